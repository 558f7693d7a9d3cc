"""What an untrained model already tells apart."""

import numpy as np
import pytest
import torch

from dmesr_model.encoding import gatherer_for
from dmesr_model.model import DMESR, ModelConfig


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_weights_before_training(backbone):
    torch.manual_seed(0)
    config = ModelConfig(views=("image", "text"), width=64, backbone=backbone, positions="from_end")
    model = DMESR(config, encoder_width=100, item_ids=[])

    def spread(values):
        return round(float(values.detach().std()), 2)

    assert model.items.fusion is not None
    attention, block = model.items.fusion.coarse_to_fine.attention, model.backbone.blocks[0]
    small = [model.items.adapters[0].layers[2], attention.value, block.attention.query, block.feed_forward.inner]
    assert [spread(linear.weight) for linear in small] == [0.02] * 4
    open_ones = [attention.query, attention.key]  # 1/√64 = 0.125: logits of about 1
    open_ones += [block.attention.value, block.attention.output] if backbone == "bert4rec" else []
    assert {round(float(linear.weight.detach().std()) * 8, 1) for linear in open_ones} == {1.0}
    positions, tokens_BTD, valid_BT = model.backbone.positions, torch.randn(1, 9, 64), torch.ones(1, 9) > 0
    # BERT4Rec's positions have 0.02 · √64, and each event three times their length, whatever its own.
    assert spread(positions.position_TD) == (0.16 if backbone == "bert4rec" else 0.02)
    same = torch.allclose(positions(tokens_BTD, valid_BT), positions(99 * tokens_BTD, valid_BT), atol=1e-3)
    assert same == (backbone == "bert4rec")
    if same:
        assert spread(positions.token_norm(tokens_BTD)) == 0.48


def test_the_temperature_starts_where_the_config_says():
    model = DMESR(ModelConfig(views=("image", "text"), alignment_temperature=0.05), encoder_width=3, item_ids=[])
    assert float(model.log_temperature.detach().exp()) == pytest.approx(0.05)


def test_a_concatenated_id_starts_as_an_added_one(toy_features):
    features = toy_features()
    config = ModelConfig(views=("image", "text"), id_mode="concatenated")
    model = DMESR(config, features.encoder_width, features.item_ids).eval()
    assert model.items.identity is not None
    torch.nn.init.normal_(model.items.identity.table.weight)
    items = gatherer_for(model, features).gather(np.arange(24) + 1)
    joined_SND = model.items(items).streams_SND
    model.items.joint = None
    torch.testing.assert_close(joined_SND, model.items(items).streams_SND)


def test_a_mask_tells_histories_apart_before_training():
    """Two users of BERT4Rec with 40 other events each: from weights of 0.02 their vectors would differ by 2 %."""
    torch.manual_seed(0)
    config = ModelConfig(backbone="bert4rec", views=(), use_segments=False)
    model = DMESR(config, encoder_width=1, item_ids=[str(item) for item in range(80)]).eval()
    identity = model.items.identity
    assert identity is not None
    events_BTD = identity(torch.arange(1, 81), has_unknown=False)[0].view(2, 40, -1)
    tokens_SBTD = torch.nn.functional.pad(events_BTD, (0, 0, 0, 1))[None]
    masked_BT = torch.arange(41).expand(2, -1) == 40
    first_W, second_W = model.encode_sequences(tokens_SBTD, torch.ones_like(masked_BT), masked_BT)[:, -1]
    assert (first_W - second_W).norm() > 0.2 * first_W.norm()
