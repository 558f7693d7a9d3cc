"""Losses against transcriptions of their formulas in NumPy, and against each other."""

import numpy as np
import pytest
import torch

from dmesr_model.candidates import CandidateRows
from dmesr_model.losses import full_softmax, gbce_beta, generalised_bce, sampled_softmax


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    user_MW, item_NW = torch.randn(50, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    return user_MW, item_NW, torch.randint(9, (50,))


def test_full_softmax_formula(vectors):
    user_MW, item_NW, target_M = vectors
    score_MN = (user_MW @ item_NW.T).detach().numpy()
    by_hand = [np.log(np.exp(row).sum()) - row[target] for row, target in zip(score_MN, target_M, strict=True)]
    assert float(full_softmax(user_MW, item_NW, target_M).detach()) == pytest.approx(sum(by_hand), rel=1e-5)


def test_full_softmax_gradient_is_that_of_its_formula(vectors):
    user_MW, item_NW, target_M = vectors
    blockwise = torch.autograd.grad(0.25 * full_softmax(*vectors), (user_MW, item_NW))
    score_MN = user_MW @ item_NW.T
    plain = score_MN.logsumexp(dim=1) - score_MN[torch.arange(50), target_M]
    torch.testing.assert_close(blockwise, torch.autograd.grad(0.25 * plain.sum(), (user_MW, item_NW)))


def test_full_softmax_is_in_full_precision_under_autocast(vectors):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = full_softmax(*vectors)
    torch.testing.assert_close(mixed, full_softmax(*vectors))


def everyone(items):
    return CandidateRows(torch.arange(items), torch.zeros(1, items))


def test_sampled_softmax_with_all_items_is_full_softmax(vectors):
    sampled = sampled_softmax(*vectors, everyone(9), torch.zeros(50, dtype=torch.int64))
    torch.testing.assert_close(sampled, full_softmax(*vectors))


def test_a_candidate_stands_for_as_many_items_as_its_chance_says():
    # scores: target 1, candidate 0, which stands for 4 items in one sequence and for 2 in the other
    user_MW, item_NW = torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0]])
    candidates = CandidateRows(torch.tensor([1]), torch.tensor([[0.25], [0.5]]).log())
    for sequence, items in ((0, 4), (1, 2)):
        loss = sampled_softmax(user_MW, item_NW, torch.tensor([0]), candidates, torch.tensor([sequence]))
        assert float(loss) == pytest.approx(np.log(np.e + items) - 1)


def random_candidates():
    """Six of nine items, some of them targets, with chances for positions of three sequences."""
    return CandidateRows(torch.tensor([0, 1, 3, 5, 6, 8]), torch.rand(3, 6).log()), torch.randint(3, (50,))


@pytest.mark.parametrize("scores", [1, 6 * 7, 6 * 50, 1000])
def test_sampled_softmax_and_its_gradient_are_those_of_its_formula(vectors, scores, monkeypatch):
    """In blocks of one position, of seven with a rest, and in one."""
    monkeypatch.setattr("dmesr_model.losses.SCORES_IN_CACHE", scores)
    monkeypatch.setattr("dmesr_model.losses.FEWEST_POSITIONS", 1)
    user_MW, item_NW, target_M = vectors
    candidates, sequence_M = random_candidates()
    score_MN = user_MW @ item_NW.T
    stands_for_MC = (target_M[:, None] != candidates.rows_C) / candidates.log_chance_BC[sequence_M].exp()
    positive_M = score_MN[torch.arange(50), target_M]
    sum_M = positive_M.exp() + (score_MN[:, candidates.rows_C].exp() * stands_for_MC).sum(dim=1)
    by_hand = (sum_M.log() - positive_M).sum()
    sampled = sampled_softmax(*vectors, candidates, sequence_M)
    torch.testing.assert_close(sampled, by_hand)
    found = torch.autograd.grad(0.25 * sampled, (user_MW, item_NW))
    torch.testing.assert_close(found, torch.autograd.grad(0.25 * by_hand, (user_MW, item_NW)))


def test_a_target_far_ahead_still_has_a_gradient():
    vector = torch.tensor([[18.0]], requires_grad=True)
    items = torch.tensor([[1.0], [0.0]])
    row = torch.tensor([0])
    loss = sampled_softmax(vector, items, row, CandidateRows(torch.tensor([1]), torch.zeros(1, 1)), row)
    expected = -np.exp(-18.0)
    assert float(torch.autograd.grad(loss, vector)[0]) == pytest.approx(expected, rel=1e-3)


def test_sampled_softmax_is_in_full_precision_under_autocast(vectors):
    arguments = *vectors, *random_candidates()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = sampled_softmax(*arguments)
    torch.testing.assert_close(mixed, sampled_softmax(*arguments))


def test_bce_formula_and_its_generalisation():
    positive, negative = 0.7, [0.2, -1.5]
    sigmoid = lambda score: 1 / (1 + np.exp(-score))  # noqa: E731
    by_hand = -np.log(sigmoid(positive)) - sum(np.log(1 - sigmoid(score)) for score in negative)
    arguments = torch.tensor([positive]), torch.tensor([negative]), torch.zeros(1, 2, dtype=torch.bool)
    assert float(generalised_bce(*arguments, beta=1.0)) == pytest.approx(by_hand, rel=1e-6)
    beta = gbce_beta(negatives=2, item_count=101, calibration=0.0)
    assert float(generalised_bce(*arguments, beta)) == pytest.approx(by_hand, rel=1e-6)
    by_hand_at_half = -0.5 * np.log(sigmoid(positive)) - sum(np.log(1 - sigmoid(score)) for score in negative)
    assert float(generalised_bce(*arguments, 0.5)) == pytest.approx(by_hand_at_half, rel=1e-6)


def test_gbce_beta_by_hand():
    assert gbce_beta(2, 101, calibration=0.0) == pytest.approx(1)
    assert gbce_beta(2, 101, calibration=1.0) == pytest.approx(0.02)  # a = 2 / 100
    assert gbce_beta(2, 101, calibration=0.75) == pytest.approx(0.02 * (0.75 * (1 - 50) + 50))
    assert gbce_beta(500, 101, calibration=0.75) == pytest.approx(1)


def test_a_hit_is_no_negative():
    positive, hit = torch.tensor([1.0]), torch.tensor([[True]])
    vector, row = torch.ones(1, 1, requires_grad=True), torch.tensor([0])
    loss = sampled_softmax(vector, vector, row, everyone(1), row)
    assert float(loss.detach()) == 0
    assert float(torch.autograd.grad(loss, vector)[0]) == 0  # a number, though no candidate is left
    assert float(generalised_bce(positive, positive[None], hit, beta=1.0)) == pytest.approx(np.log1p(np.exp(-1)))
