"""Attention from coarse tokens to segments can be read out."""

import numpy as np
import pytest
import torch

from dmesr_model.explain import attention_entropy, segment_attention
from dmesr_model.model import DMESR, ModelConfig


def test_weights_of_own_segments_sum_to_one(toy_features):
    features = toy_features()
    model = DMESR(ModelConfig(views=("image", "text"), width=8, adapter_width=8), 12, features.item_ids)
    weights = segment_attention(model, features, ["item-7", "item-3", "item-0"])
    assert weights.shape == (3, 2, 3)
    np.testing.assert_allclose(weights[0], [[1, 0, 0], [1, 0, 0]])  # one segment only
    np.testing.assert_allclose(weights[1], 0)  # no text
    np.testing.assert_allclose(weights[2].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("view", [0, 1])
def test_a_views_weights_are_its_own(view, toy_features):
    """Item 4 has no view: what a view's learned token looks at moves with that token."""
    torch.manual_seed(0)
    features = toy_features()
    features.segment_index_NL[4] = features.segment_index_NL[0]
    model = DMESR(ModelConfig(views=("text", "image"), width=8, adapter_width=8), 12, features.item_ids)
    before = segment_attention(model, features, ["item-4"])[0]
    torch.nn.init.normal_(model.items.adapters[view].absent_D)
    after = segment_attention(model, features, ["item-4"])[0]
    assert np.abs(after[view] - before[view]).max() > 1e-3
    np.testing.assert_array_equal(after[1 - view], before[1 - view])


def test_a_model_without_item_fusion_says_so(toy_features):
    model = DMESR(ModelConfig(views=("image",), fusion="none", width=8), 12, [])
    with pytest.raises(ValueError, match="fusion='item'"):
        segment_attention(model, toy_features(), ["item-0"])


def test_unknown_ids_are_named(toy_features):
    model = DMESR(ModelConfig(views=("image", "text"), width=8, adapter_width=8), 12, [])
    with pytest.raises(KeyError, match=r"no items \['nope', 3\]; give strings of features.item_ids"):
        segment_attention(model, toy_features(), ["item-0", "nope", 3])


def test_entropy_by_hand():
    weights = np.array([[[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]])
    np.testing.assert_allclose(attention_entropy(weights, np.array([2, 3])), [[1.0], [0.0]])
