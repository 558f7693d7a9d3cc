"""Metrics, by hand and against ranx."""

import os

os.environ["NUMBA_DISABLE_JIT"] = "1"  # ranx would compile for a minute to rank forty users

import numpy as np
import pytest
from ranx import Qrels, Run, evaluate

from dmesr_model.metrics import hit_rate_at_k, mrr_at_k, ndcg_at_k, pessimistic_ranks, tie_margin


def test_metrics_by_hand():
    ranks = np.array([1, 3, 11])
    assert hit_rate_at_k(ranks, 10).tolist() == [1, 1, 0]
    assert ndcg_at_k(ranks, 10) == pytest.approx([1, 0.5, 0])  # 1 / log2(1 + 3) = 1/2
    assert mrr_at_k(ranks, 10) == pytest.approx([1, 1 / 3, 0])


def test_ties_count_against_the_target():
    scores = np.array([[0.5, 0.9, 0.5, 0.5, 0.1]])
    assert pessimistic_ranks(scores, np.array([2])).tolist() == [4]  # 0.9 before it, two equals before it
    seen = np.array([[True, False, True, False, False]])  # the target's own column never excludes it
    assert pessimistic_ranks(scores, np.array([2]), seen).tolist() == [3]


def test_the_margin_of_a_tie_by_hand():
    lengths = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[0.0, 2.0], [1.0, 0.0]])  # 5 and 2, 2 and 1
    assert tie_margin(*lengths) == pytest.approx([1e-5, 2e-6], rel=1e-6)


def test_a_model_that_gives_nan_ranks_last():
    scores = np.array([[0.5, np.nan, 0.2], [np.nan, 0.9, 0.1]])
    assert pessimistic_ranks(scores, np.array([0, 0])).tolist() == [2, 3]


def test_metrics_agree_with_ranx():
    random = np.random.default_rng(0)
    scores = random.permutation(40 * 30).reshape(40, 30).astype(float)  # no ties, which ranx would break its own way
    targets = random.integers(30, size=40)
    ranks = pessimistic_ranks(scores, targets)
    qrels = Qrels({f"u{user}": {f"i{target}": 1} for user, target in enumerate(targets)})
    run = Run({f"u{user}": {f"i{item}": row[item] for item in range(30)} for user, row in enumerate(scores)})
    theirs = evaluate(qrels, run, ["hit_rate@10", "ndcg@10", "mrr@10"])
    assert hit_rate_at_k(ranks, 10).mean() == pytest.approx(theirs["hit_rate@10"])
    assert ndcg_at_k(ranks, 10).mean() == pytest.approx(theirs["ndcg@10"])
    assert mrr_at_k(ranks, 10).mean() == pytest.approx(theirs["mrr@10"])
