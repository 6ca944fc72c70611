"""Means over seeds of points that do not share them all."""

import math

import numpy as np
import pytest

from hptransfer.analysis.paired import means

SEED = np.array([-0.3, 0.1, 0.2])
CURVE = np.array([1.0, 0.4, 0.2, 0.5])
WHOLE = CURVE[:, None] + SEED


def test_with_every_seed_it_is_the_mean() -> None:
    assert means(WHOLE) == pytest.approx(CURVE)


def test_a_lucky_seed_alone_does_not_beat_the_mean_of_three() -> None:
    grid = WHOLE.copy()
    grid[[0, 3], 1:] = math.nan
    assert np.nanmean(grid, axis=1).argmin() != 2, "the plain mean is deceived"
    assert means(grid) == pytest.approx(CURVE)


def test_a_divergence_and_an_unsound_point_say_nothing_about_a_seed() -> None:
    grid = WHOLE.copy()
    grid[0, 1:] = math.nan
    grid[3, 2] = math.inf
    assert means(grid)[:3] == pytest.approx(CURVE[:3])
    assert means(grid)[3] == math.inf
    grid[3, 2] = 9.0  # clipped at the loss at init
    assert means(grid, np.array([True, True, True, False]))[:3] == pytest.approx(CURVE[:3])


def test_without_a_point_that_has_every_seed_the_plain_mean_stands() -> None:
    grid = np.array([[1.0, math.nan], [math.nan, 2.0], [math.inf, 3.0]])
    assert means(grid).tolist() == [1.0, 2.0, math.inf]
    assert means(np.empty((0, 2))).tolist() == []
