"""Contrastive alignment against a transcription of its formula, and who takes part in it."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from dmesr_model.alignment import alignment_loss, info_nce, mean_squared_distance, uniformity


def transcribe(first, second, excluded, temperature):
    """Symmetric InfoNCE, term by term."""
    values = []
    for i in range(len(first)):
        kept = [j for j in range(len(first)) if j == i or not excluded[i][j]]
        positive = np.exp(first[i] @ second[i] / temperature)
        forward = sum(np.exp(first[i] @ second[j] / temperature) for j in kept)
        backward = sum(np.exp(first[j] @ second[i] / temperature) for j in kept)
        values.append(-0.5 * np.log(positive / forward) - 0.5 * np.log(positive / backward))
    return np.array(values)


def test_info_nce_formula():
    torch.manual_seed(0)
    first, second = (functional.normalize(torch.randn(6, 4), dim=-1) for _ in range(2))
    excluded = torch.zeros(6, 6, dtype=torch.bool)
    excluded[1, 2] = excluded[2, 1] = True
    expected = transcribe(first.double().numpy(), second.double().numpy(), excluded.numpy(), 0.2)
    assert info_nce(first, second, excluded, torch.tensor(0.2)).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("ids", "together"),
    [
        ([[7, 8], [7, 8], [4, 5]], True),
        ([[7, 8], [7, 6], [4, 5]], True),
        ([[7, 8], [9, 8], [4, 5]], True),
        ([[7, 8], [9, 7], [4, 5]], True),  # one text in both views, of two items
        ([[7, 8], [8, 9], [4, 5]], True),
        ([[7, 8], [9, 6], [4, 5]], False),
        ([[7, 7], [9, 6], [4, 5]], False),  # an item's own two views stay each other's positive
    ],
)
def test_items_with_a_text_in_common_are_not_each_others_negatives(ids, together):
    torch.manual_seed(2)
    vectors, present = torch.randn(3, 2, 8), torch.ones(3, 2, dtype=torch.bool)
    first, second = functional.normalize(vectors, dim=-1).double().numpy().swapaxes(0, 1)
    excluded = np.zeros((3, 3), dtype=bool)
    excluded[0, 1] = excluded[1, 0] = together
    expected = transcribe(first, second, excluded, 0.5).mean()
    found = alignment_loss(vectors, present, torch.tensor(ids), torch.tensor(0.5))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_absent_views_take_no_part():
    torch.manual_seed(1)
    coarse = torch.randn(5, 2, 8, requires_grad=True)
    present = torch.ones(5, 2, dtype=torch.bool)
    present[1, 0] = present[3, 1] = False
    ids = torch.arange(10).view(5, 2)
    loss = alignment_loss(coarse, present, ids, torch.tensor(0.1))
    loss.backward()
    assert coarse.grad is not None
    assert coarse.grad[[1, 3]].abs().max() == 0
    assert coarse.grad[[0, 2, 4]].abs().min() > 0
    kept = [0, 2, 4]
    alone = alignment_loss(coarse[kept], present[kept], ids[kept], torch.tensor(0.1))
    assert float(alone.detach()) == pytest.approx(float(loss.detach()), rel=1e-6)


def test_three_views_average_their_pairs():
    coarse, present, ids = torch.randn(4, 3, 8), torch.ones(4, 3, dtype=torch.bool), torch.arange(12).view(4, 3)
    pairs = [
        alignment_loss(coarse[:, pair], present[:, pair], ids[:, pair], torch.tensor(0.3))
        for pair in ([0, 1], [0, 2], [1, 2])
    ]
    assert float(alignment_loss(coarse, present, ids, torch.tensor(0.3))) == pytest.approx(float(sum(pairs)) / 3)
    present[:2, 2] = False  # two items have the last view: their pairs with it count half of the first pair
    pairs[1:] = [
        alignment_loss(coarse[2:, pair], present[2:, pair], ids[2:, pair], torch.tensor(0.3))
        for pair in ([0, 2], [1, 2])
    ]
    expected = (4 * pairs[0] + 2 * pairs[1] + 2 * pairs[2]) / 8
    assert float(alignment_loss(coarse, present, ids, torch.tensor(0.3))) == pytest.approx(float(expected))


def test_mixed_precision_leaves_it_in_float32():
    torch.manual_seed(0)
    coarse, present, ids = torch.randn(6, 2, 8), torch.ones(6, 2, dtype=torch.bool), torch.arange(12).view(6, 2)
    alone = alignment_loss(coarse, present, ids, torch.tensor(0.01))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(alignment_loss(coarse, present, ids, torch.tensor(0.01)), alone)


def test_nothing_to_align_is_zero():
    nobody = torch.zeros(3, 2, dtype=torch.bool)
    assert float(alignment_loss(torch.randn(3, 2, 4), nobody, torch.full((3, 2), -1), torch.tensor(0.1))) == 0


def test_distance_and_uniformity_by_hand():
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    assert mean_squared_distance(first, second) == pytest.approx(1.0)  # 0 and |(0,1) - (1,0)|² = 2
    assert uniformity(first) == pytest.approx(-4.0)  # log exp(-2 · 2)
