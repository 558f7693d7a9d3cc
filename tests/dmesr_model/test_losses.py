"""Losses against transcriptions of their formulas in NumPy, and against each other."""

import numpy as np
import pytest
import torch

from dmesr_model.losses import binary_cross_entropy, full_softmax, gbce_beta, generalised_bce, sampled_softmax


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


def test_sampled_softmax_with_all_items_is_full_softmax(vectors):
    user_MW, item_NW, target_M = vectors
    score_MN = user_MW @ item_NW.T
    positive_M = score_MN.gather(1, target_M[:, None])[:, 0]
    hit_MN = target_M[:, None] == torch.arange(9)
    sampled_M = sampled_softmax(positive_M, score_MN, torch.zeros(9), hit_MN)
    torch.testing.assert_close(sampled_M.sum(), full_softmax(*vectors))


def test_sampled_softmax_corrects_by_the_expected_count():
    # one negative of score 0 that stands for 1 / exp(-log 4) = 4 items: -1 + log(e + 4)
    loss = sampled_softmax(
        torch.tensor([1.0]), torch.tensor([[0.0]]), torch.tensor([-np.log(4.0)]), torch.tensor([[False]])
    )
    assert float(loss) == pytest.approx(np.log(np.e + 4) - 1)


def test_bce_formula_and_its_generalisation():
    positive, negative = 0.7, [0.2, -1.5]
    sigmoid = lambda score: 1 / (1 + np.exp(-score))  # noqa: E731
    by_hand = -np.log(sigmoid(positive)) - sum(np.log(1 - sigmoid(score)) for score in negative)
    arguments = torch.tensor([positive]), torch.tensor([negative]), torch.zeros(1, 2, dtype=torch.bool)
    assert float(binary_cross_entropy(*arguments)) == pytest.approx(by_hand, rel=1e-6)
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
    assert float(sampled_softmax(positive, positive[None], torch.zeros(1), hit)) == 0
    assert float(binary_cross_entropy(positive, positive[None], hit)) == pytest.approx(np.log1p(np.exp(-1)))
