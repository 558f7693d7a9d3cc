"""Ranking metrics with one relevant item a user. Ranks start at 1; each function returns one value a user."""

import numpy as np

TIE = 1e-6
"""Share of the product of two vectors' lengths by which inner products tie: docs/decisions/evaluate-ranks.md."""


def tie_margin(users_BD: np.ndarray, targets_BD: np.ndarray) -> np.ndarray:
    """How far below its target's score an item may score and still tie with it, float32 [B].

    Equal vectors get scores that differ by rounding, as a product of matrices sums each column in an order of its own.
    """
    lengths_B = np.linalg.norm(users_BD, axis=1) * np.linalg.norm(targets_BD, axis=1)
    return (TIE * lengths_B).astype(np.float32)


def pessimistic_ranks(
    scores_BN: np.ndarray,
    target_B: np.ndarray,
    excluded_BN: np.ndarray | None = None,
    margin_B: np.ndarray | None = None,
) -> np.ndarray:
    """Rank of each target among N items, ties counted against it: 1 + items that score no less. int64 [B].

    A NaN is no less than anything, so a model that gives NaN ranks its targets last.

    Args:
        scores_BN: higher is better.
        target_B: column of each target.
        excluded_BN: bool, True for items that are not ranked (seen ones); the target itself is always ranked.
        margin_B: of `tie_margin`, where the scores are inner products; None: only equal scores tie.
    """
    rows = np.arange(len(target_B))
    least_B = scores_BN[rows, target_B] if margin_B is None else scores_BN[rows, target_B] - margin_B
    at_least_BN = ~(scores_BN < least_B[:, None])
    if excluded_BN is not None:
        at_least_BN = at_least_BN & ~excluded_BN
    at_least_BN[rows, target_B] = False
    return 1 + at_least_BN.sum(axis=1)


def hit_rate_at_k(rank_U: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0."""
    return (rank_U <= k).astype(np.float64)


def ndcg_at_k(rank_U: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(1 + rank) where the target is among the first k, else 0 (Järvelin & Kekäläinen 2002; ideal DCG is 1)."""
    return np.where(rank_U <= k, 1.0 / np.log2(1.0 + rank_U), 0.0)


def mrr_at_k(rank_U: np.ndarray, k: int) -> np.ndarray:
    """1 / rank where the target is among the first k, else 0."""
    return np.where(rank_U <= k, 1.0 / rank_U, 0.0)
