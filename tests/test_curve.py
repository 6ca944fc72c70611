"""Losses above the one at init, and means of points with different seeds."""

import math

import numpy as np
import pytest

from frames import LOSS_INIT, half_octaves, make_suite, record, search, to_frame
from hptransfer.analysis.curve import best_by_lr, curve
from hptransfer.analysis.frame import select
from hptransfer.analysis.losses import capped, learned, means
from hptransfer.suite.ranges import value_range

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
    grid[3, 2] = 9.0  # no more than the loss at init
    assert means(grid, np.array([True, True, True, False]))[:3] == pytest.approx(CURVE[:3])


def test_without_a_point_that_has_every_seed_the_plain_mean_stands() -> None:
    grid = np.array([[1.0, math.nan], [math.nan, 2.0], [math.inf, 3.0]])
    assert means(grid).tolist() == [1.0, 2.0, math.inf]
    assert means(np.empty((0, 2))).tolist() == []


def test_a_loss_no_lower_than_at_init_and_a_divergence_learned_nothing() -> None:
    loss = np.array([2.0, 5.5, 9.0, math.inf, math.nan, 2.0, math.inf])
    init = np.array([5.5, 5.5, 5.5, 5.5, 5.5, math.nan, math.nan])
    assert learned(loss, init).tolist() == [True, False, False, False, False, True, False]
    kept = capped(loss, init)
    assert kept[[0, 1, 2, 3, 5, 6]].tolist() == [2.0, 5.5, 5.5, 5.5, 2.0, math.inf]
    assert math.isnan(kept[4]), "a run that was not made has no loss"


def test_a_curve_leaves_failed_runs_out_and_caps_at_the_loss_at_init() -> None:
    suite = make_suite("muon")
    records = search(suite, "muon", 32, -5, [-6, -5, -4, -3], noise=0)
    records[2]["loss"] = LOSS_INIT + 3
    records[3] |= {"status": "failed", "loss": math.nan}
    points = curve(to_frame(records).assign(hp_point="{}"))
    assert points.x.tolist() == [-6, -5, -4]
    assert points.mean[2] == LOSS_INIT
    assert points.roofed.tolist() == [False, False, True]


def test_the_loss_at_an_lr_is_that_of_its_curve_or_of_its_best_trial() -> None:
    suite = make_suite("muon")
    records = search(suite, "muon", 32, -5, half_octaves(-5), (0, 1), noise=0.1)
    rows = to_frame(records[:-1]).assign(hp_point="{}")
    points = curve(rows)
    assert best_by_lr(rows) == pytest.approx(dict(zip(points.x, points.mean, strict=True)))
    table = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    suite = suite.model_copy(update={"optimizers": {"muon": table}})
    spec = suite.template("muon", 32)
    pairs = [
        record(spec.point(-5, 0, beta=beta), 32, center, noise=0)
        for beta, center in ((0.8, -5.0), (0.95, -6.0))
    ]
    assert best_by_lr(select(suite, to_frame(pairs))) == pytest.approx({-5.0: 2.6})
