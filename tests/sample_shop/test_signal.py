"""The simulated signal: the metric's arithmetic, and that knowing more ranks better."""

import numpy as np
import pytest

from sample_shop.signal import SignalConfig, measure, ndcg_at_10
from sample_shop.simulation import ShopConfig, simulate


def test_ndcg_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.1]])
    # Row 0: item 0 is seen, so item 2 ranks second. Row 1: items 0 and 1 tie, so the target ranks second.
    assert ndcg_at_10(scores, [[0], []], np.array([2, 1])) == pytest.approx(1 / np.log2(3))


def test_knowing_more_ranks_better() -> None:
    results = measure(simulate(ShopConfig()), 1, SignalConfig())
    assert results["ids"] > 1.3 * results["popularity"]
    assert results["ids and attributes"] > 1.1 * results["ids"]
