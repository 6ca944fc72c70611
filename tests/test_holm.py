"""Holm's correction against worked numbers, and the intervals that agree with it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from hptransfer.analysis.holm import LEVEL, holm


def sample(p: float, n: int = 5) -> list[float]:
    """Values whose t-test against 0 has this p."""
    z = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[:n]
    error = z.std(ddof=1) / np.sqrt(n)
    return list(z + error * student.isf(p / 2, n - 1))


def test_the_correction_is_that_of_a_worked_example() -> None:
    """By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not be below the one before."""
    found = holm([sample(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [each.p for each in found] == pytest.approx([0.01, 0.04, 0.03, 0.005])
    assert [each.p_holm for each in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [each.differs for each in found] == [True, False, False, True]


def test_one_sample_alone_has_the_interval_of_scipy() -> None:
    values = [0.1, 0.3, 0.2, 0.6]
    [found] = holm([values])
    result: Any = ttest_1samp(values, 0.0)
    assert found.p == found.p_holm == pytest.approx(result.pvalue)
    low, high = result.confidence_interval(1 - LEVEL)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))


@given(st.lists(st.floats(1e-6, 0.9), min_size=1, max_size=12))
def test_an_interval_excludes_0_where_its_test_rejects_and_nowhere_else(ps: list[float]) -> None:
    for each in holm([sample(p) for p in ps]):
        if abs(each.p_holm - LEVEL) > 1e-9:
            assert (each.difference.low > 0) == each.differs


def test_more_tests_make_no_interval_narrower() -> None:
    [alone] = holm([sample(0.02)])
    first, *_ = holm([sample(0.02), *[sample(0.5)] * 9])
    assert first.difference.low < alone.difference.low
    assert alone.differs
    assert not first.differs


def test_one_value_and_none_are_not_tested_and_do_not_count() -> None:
    first, one, none = holm([sample(0.02), [0.5], []])
    assert first.p_holm == pytest.approx(0.02)
    assert (one.difference.value, one.n, one.differs) == (0.5, 1, False)
    assert np.isnan([one.difference.low, one.p, none.difference.value]).all()
    assert holm([]) == []


def test_equal_values_leave_no_doubt() -> None:
    zero, moved = holm([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
    assert (zero.p_holm, zero.differs) == (1.0, False)
    assert (zero.difference.low, zero.difference.high) == (0.0, 0.0)
    assert moved.p_holm < 1e-9
    assert moved.differs
    assert moved.difference.low == pytest.approx(0.1)
