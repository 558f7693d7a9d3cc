"""Negatives that all positions of a step share, drawn anew for each step from a seeded generator."""

from typing import Literal

import numpy as np

NegativeSampling = Literal["uniform", "popularity"]


def draw_uniform(item_count: int, negatives: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Different items, each as likely as any other.

    Returns:
        (item_index_K int64 ascending, log_count_K float32): the expected count of each is K / N.
    """
    drawn = min(negatives, item_count)
    item_index_K = np.sort(random.choice(item_count, size=drawn, replace=False)) + 1
    return item_index_K, np.full(drawn, np.log(drawn / item_count), dtype=np.float32)


def draw_by_popularity(
    event_count_N: np.ndarray, negatives: int, power: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Items with probability ∝ (events + 1)^power, with replacement; an item drawn c times is returned once.

    Args:
        event_count_N: training events of each item, by position.

    Returns:
        (item_index_K int64 ascending, log_count_K float32): log(expected count / c), which keeps the estimate unbiased.
    """
    weight_N = (event_count_N + 1.0) ** power
    cumulative_N = np.cumsum(weight_N)
    drawn = np.searchsorted(cumulative_N, random.random(negatives) * cumulative_N[-1], side="right")
    positions_K, times_K = np.unique(np.minimum(drawn, len(weight_N) - 1), return_counts=True)
    expected_K = negatives * weight_N[positions_K] / cumulative_N[-1]
    return positions_K + 1, np.log(expected_K / times_K).astype(np.float32)
