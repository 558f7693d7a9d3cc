"""Shared negatives: who is drawn, and how often is expected."""

import numpy as np
import pytest

from dmesr_model.negatives import draw_by_popularity, draw_uniform


def test_uniform_draw_is_distinct_and_complete_when_large():
    drawn, log_count = draw_uniform(10, 4, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == 4
    assert log_count == pytest.approx(np.log([0.4] * 4))
    everything, log_count = draw_uniform(10, 99, np.random.default_rng(0))
    assert everything.tolist() == list(range(1, 11))
    assert log_count == pytest.approx([0] * 10)


def test_popularity_draw_estimates_a_sum_without_bias():
    events = np.array([0, 8, 3, 99])
    values = np.array([5.0, 1.0, 2.0, 0.5])
    random = np.random.default_rng(1)
    estimates = []
    for _ in range(4000):
        drawn, log_count = draw_by_popularity(events, 3, power=0.5, random=random)
        estimates.append((values[drawn - 1] * np.exp(-log_count)).sum())
    assert np.mean(estimates) == pytest.approx(values.sum(), rel=0.03)
