"""A loss between two runs: a monotone cubic, and how far a straight line lies from it."""

from dataclasses import replace

import numpy as np
import pytest

from hptransfer.analysis.between import found, interpolated
from hptransfer.analysis.curve import Curve
from hptransfer.analysis.judgement import Case
from hptransfer.suite.grid import Tried

X = np.array([-8.0, -7.0, -6.0, -5.0])
GRID = Tried(1.0, False)


def points(losses: np.ndarray) -> Curve:
    mean = losses.mean(axis=1)
    return Curve(X, losses, mean, np.array([not np.isfinite(row).all() for row in losses]))


def test_a_straight_line_is_read_without_slack() -> None:
    losses = np.stack([2 + 0.1 * X, 3 + 0.1 * X], axis=1)
    values, slack = interpolated(X, losses, -6.25)
    assert values == pytest.approx([2 - 0.625, 3 - 0.625])
    assert slack == pytest.approx(0, abs=1e-12)


def test_the_value_lies_between_its_neighbours_and_the_slack_is_the_difference_to_a_line() -> None:
    losses = np.array([[1.0], [1.1], [1.5], [4.0]])
    [value], slack = interpolated(X, losses, -6.5)
    assert 1.1 < value < 1.3
    assert slack == pytest.approx(1.3 - value)


def test_a_seed_without_a_point_is_read_off_those_that_it_has() -> None:
    losses = np.array([[1.0, 1.0], [np.nan, 1.2], [1.4, 1.4], [1.6, 1.6]])
    values, _ = interpolated(X, losses, -5.5)
    assert values == pytest.approx([1.5, 1.5])


def test_the_slack_widens_the_case_by_an_interpolation_alone() -> None:
    losses = np.array([[1.1, 1.11], [1.0, 1.0], [1.1, 1.12], [2.5, 2.6]])
    inside = found(points(losses), -6.5, GRID)
    assert inside.source == "parabola"
    assert inside.case is not None
    assert inside.case.slack == 0
    outside = found(points(losses), -5.5, GRID)
    assert outside.source == "interpolation"
    assert outside.case is not None
    assert outside.case.slack > 0
    assert outside.case.seen().bias == pytest.approx(outside.case.slack + _bias(outside.case))


def _bias(case: Case) -> float:
    return float(replace(case, slack=0.0).seen().bias[0])


@pytest.mark.parametrize(("at", "source"), [(-8.5, "below"), (-4.5, "above")])
def test_beyond_the_tried_range_there_is_no_case(at: float, source: str) -> None:
    made = found(points(np.array([[1.1], [1.0], [1.1], [1.3]])), at, GRID)
    assert (made.case, made.source) == (None, source)
