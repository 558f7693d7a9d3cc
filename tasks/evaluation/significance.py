"""Is one model better than another, or was it luck: paired tests over the same test users.

The unit is the user: a user's metric is averaged over seeds first, so that seeds tell nothing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Of the second minus the first model.

    Args:
        difference: mean over users.
        low, high: 95 % confidence interval of the mean.
        p_value: two-sided; 1 where the users' values are all the same in both models.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_t_test(first_U: np.ndarray, second_U: np.ndarray) -> Comparison | None:
    """Student's paired t-test over users.

    None with fewer than two of them, and where all gain or lose the same: their spread, 0, would claim certainty.
    """
    from scipy.stats import t

    count = len(first_U)
    if count < 2:
        return None
    gap_U = second_U - first_U
    mean, error = float(gap_U.mean()), float(gap_U.std(ddof=1)) / count**0.5
    if mean == error == 0:
        return Comparison(mean, mean, mean, 1.0)
    if error <= _ROUNDING * abs(mean):
        return None
    reach = float(t.ppf(0.975, count - 1)) * error
    return Comparison(mean, mean - reach, mean + reach, float(2 * t.sf(abs(mean) / error, count - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm (1979): the family's chance of any false finding stays below the level.

    The i-th smallest of m (from 0) is multiplied by m − i, and made no smaller than the one before it, at most 1.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def confidence_interval(values_U: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean over users of a metric between 0 and 1, by Student's t.

    None with fewer than two users, and where all have the same value: their spread, 0, would claim certainty.
    """
    from scipy.stats import t

    count = len(values_U)
    error = float(values_U.std(ddof=1)) / count**0.5 if count >= 2 else 0.0
    mean = float(values_U.mean()) if count else 0.0
    if error <= _ROUNDING * abs(mean):
        return None
    reach = float(t.ppf(0.975, count - 1)) * error
    return max(mean - reach, 0.0), min(mean + reach, 1.0)
