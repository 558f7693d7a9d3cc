"""Contrastive alignment against a transcription of its formula, and who takes part in it."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from dmesr_model.alignment import alignment_loss, info_nce, mean_squared_distance, same_text, uniformity


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


def test_identical_texts_are_not_each_others_negatives():
    """Items 0 and 1 share a text: dropping one of them from the other's negatives leaves the loss of two items."""
    vectors = torch.randn(3, 2, 8)
    vectors[1] = vectors[0]
    present = torch.ones(3, 2, dtype=torch.bool)
    ids = torch.tensor([[7, 8], [7, 8], [4, 5]])
    first, second = (functional.normalize(vectors[:, view], dim=-1) for view in range(2))
    pair = info_nce(first[[0, 2]], second[[0, 2]], torch.zeros(2, 2, dtype=torch.bool), torch.tensor(0.5))
    excluded = same_text(ids[:, 0], ids[:, 1])
    assert excluded.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert float(info_nce(first, second, excluded, torch.tensor(0.5))[0]) == pytest.approx(float(pair[0]), rel=1e-5)
    assert torch.isfinite(alignment_loss(vectors, present, ids, torch.tensor(0.5)))


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


def test_nothing_to_align_is_zero():
    nobody = torch.zeros(3, 2, dtype=torch.bool)
    assert float(alignment_loss(torch.randn(3, 2, 4), nobody, torch.full((3, 2), -1), torch.tensor(0.1))) == 0


def test_distance_and_uniformity_by_hand():
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    assert mean_squared_distance(first, second) == pytest.approx(1.0)  # 0 and |(0,1) - (1,0)|² = 2
    assert uniformity(first) == pytest.approx(-4.0)  # log exp(-2 · 2)
