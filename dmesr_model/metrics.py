"""Ranking metrics with one relevant item a user. Ranks start at 1; each function returns one value a user."""

import numpy as np


def pessimistic_ranks(scores_BN: np.ndarray, target_B: np.ndarray, excluded_BN: np.ndarray | None = None) -> np.ndarray:
    """Rank of each target among N items, ties counted against it: 1 + items that score no less. int64 [B].

    A NaN is no less than anything, so a model that gives NaN ranks its targets last.

    Args:
        scores_BN: higher is better.
        target_B: column of each target.
        excluded_BN: bool, True for items that are not ranked (seen ones); the target itself is always ranked.
    """
    rows = np.arange(len(target_B))
    at_least_BN = ~(scores_BN < scores_BN[rows, target_B][:, None])
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
