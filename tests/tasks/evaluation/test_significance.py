import numpy as np
import pytest
from scipy import stats

from tasks.evaluation.significance import confidence_interval, holm, paired_t_test


def test_paired_t_test_by_hand() -> None:
    # Gaps 1, 0, 1, 0, 1: mean 0.6, deviation sqrt(0.3), error sqrt(0.3 / 5) = 0.2449, t = 2.449 with 4 degrees.
    found = paired_t_test(np.zeros(5), np.array([1.0, 0, 1, 0, 1]))
    assert found is not None
    assert found.difference == pytest.approx(0.6)
    assert found.p_value == pytest.approx(0.0705, abs=1e-4)
    # t(0.975, 4) = 2.776: 0.6 ± 0.680.
    assert (found.low, found.high) == pytest.approx((-0.080, 1.280), abs=1e-3)


def test_paired_t_test_equals_scipy() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=200), random.normal(size=200) + 0.1
    found = paired_t_test(first, second)
    assert found is not None
    assert found.p_value == pytest.approx(stats.ttest_rel(second, first).pvalue, rel=1e-12)


def test_equal_models_and_too_few_users() -> None:
    same = paired_t_test(np.ones(3), np.ones(3))
    assert same is not None
    assert (same.difference, same.p_value) == (0, 1)
    assert paired_t_test(np.ones(1), np.zeros(1)) is None
    assert paired_t_test(np.full(3, 0.3), np.full(3, 0.2)) is None  # all lose the same, within rounding
    assert confidence_interval(np.ones(1)) is None


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04, and the last no smaller than 0.06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_interval_by_hand() -> None:
    # 0.2, 0.4, 0.6, 0.4: mean 0.4, deviation sqrt(0.08 / 3) = 0.1633, error 0.0816; t(0.975, 3) = 3.182: 0.4 ± 0.2598.
    assert confidence_interval(np.array([0.2, 0.4, 0.6, 0.4])) == pytest.approx((0.1402, 0.6598), abs=1e-4)
    # Two users, 0 and 1: t(0.975, 1) = 12.7 reaches far beyond what a metric can be.
    assert confidence_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    # Nobody's target was found: a spread of 0 says nothing of the next hundred users.
    assert confidence_interval(np.zeros(100)) is None


@pytest.mark.parametrize("users", [7, 30])
def test_equal_values_have_no_interval_though_their_mean_is_rounded(users: int) -> None:
    assert confidence_interval(np.full(users, 1 / np.log2(5))) is None
    assert confidence_interval(np.full(users, 1 / np.log2(3))) is None
