"""The spread of lr* over subsets of the points of a curve."""

import numpy as np

from hptransfer.analysis.parabola import Near
from hptransfer.analysis.points import subsets

X = np.arange(-8, -5.9, 0.5)


def near(noise: float, low: float = -7.1) -> Near:
    rng = np.random.default_rng(0)
    losses = 2.5 + 0.06 * (X - low)[:, None] ** 2 + noise * rng.normal(size=(len(X), 3))
    made = Near.of(X, losses, np.zeros(len(X), bool))
    assert made is not None
    return made


def test_on_a_parabola_three_points_are_enough() -> None:
    table = subsets(near(0))
    assert [row.n_points for row in table] == [3, 4, 5]
    assert max(row.largest for row in table) < 1e-9


def test_the_spread_falls_with_the_number_of_points_and_all_of_them_have_none() -> None:
    three, four, five = (row.spread for row in subsets(near(0.01)))
    assert three > four > five == 0


def test_subsets_without_a_point_on_both_sides_of_their_minimum_do_not_count() -> None:
    """Of the 10 choices of 3 points, 4 have the middle point inside, and one more a minimum."""
    assert subsets(near(0))[0].n_subsets == 5


def test_without_a_parabola_there_is_no_table() -> None:
    falling = Near.of(X, 3 - 0.1 * X[:, None], np.zeros(len(X), bool))
    assert falling is not None
    assert subsets(falling) == []
