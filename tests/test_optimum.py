"""The best learning rate of made-up curves: vertex, standard error, censoring, best trial."""

import math
from typing import Any

import numpy as np
import pytest

from frames import LOSS_INIT, half_octaves, make_suite, record, search, to_frame
from hptransfer.analysis.frame import select
from hptransfer.analysis.optimum import Optimum, optimum
from hptransfer.suite.ranges import value_range
from hptransfer.suite.resolved import Suite

MUON = {"muon": lambda n: -5.2}


def optimum_of(records: list[dict[str, Any]]) -> Optimum:
    best = optimum(to_frame(records).assign(hp_point="{}"))
    assert best is not None
    return best


@pytest.mark.parametrize("center", [-5.4, -5.0, -4.8])
def test_the_vertex_of_a_noiseless_parabola_is_its_center(center: float) -> None:
    suite = make_suite("muon")
    best = optimum_of(search(suite, "muon", 32, center, half_octaves(center), noise=0))
    assert best.log2_lr == pytest.approx(center, abs=1e-9)
    assert best.censored is None
    assert not best.cliff


def test_with_one_seed_the_standard_error_is_that_of_the_grid() -> None:
    suite = make_suite("muon")
    best = optimum_of(search(suite, "muon", 32, -5, half_octaves(-5)))
    assert best.se == pytest.approx(0.5 / math.sqrt(12))


def test_the_bootstrap_standard_error_is_the_spread_of_the_vertex_over_seeds() -> None:
    suite = make_suite("muon")
    spread, told = [], []
    for first in range(0, 120, 4):
        best = optimum_of(
            search(suite, "muon", 32, -5.1, half_octaves(-5), range(first, first + 4), noise=0.06)
        )
        spread.append(best.log2_lr)
        told.append(best.se)
    # with four seeds it is too wide, because resampled minima jump between grid points
    assert 0.7 * np.std(spread) < np.mean(told) < 2 * np.std(spread)


def test_identical_seeds_do_not_make_an_optimum_exact() -> None:
    suite = make_suite("muon")
    best = optimum_of(search(suite, "muon", 32, -5.1, half_octaves(-5), range(3), noise=0))
    assert best.se == pytest.approx(1 / 8 / math.sqrt(12))


@pytest.mark.parametrize(
    ("grid", "flag"),
    [([-5, -4, -3], "low"), ([-7, -6, -5], "high"), ([-8, -5, -4], "gap"), ([-6, -5, -4], None)],
)
def test_a_minimum_without_tried_neighbours_is_censored(
    grid: list[float], flag: str | None
) -> None:
    suite = make_suite("muon")
    best = optimum_of(search(suite, "muon", 32, -5, grid))
    assert best.censored == flag
    if flag:
        assert best.log2_lr == -5


def test_a_failed_neighbour_counts_as_not_tried() -> None:
    suite = make_suite("muon")
    records = search(suite, "muon", 32, -5, [-6, -5])
    records += search(suite, "muon", 32, -5, [-4], status="failed")
    assert optimum_of(records).censored == "high"


def test_a_diverged_neighbour_is_a_cliff_and_the_grid_point_stands() -> None:
    suite = make_suite("muon")
    best = optimum_of(search(suite, "muon", 32, -5, [-7, -6, -5, -4], cliff=0.5))
    assert (best.log2_lr, best.se, best.cliff, best.n_diverged) == (-5, 0.25, True, 1)
    assert best.censored is None


def test_a_neighbour_no_better_than_the_model_at_init_is_a_cliff_too() -> None:
    suite = make_suite("muon")
    records = search(suite, "muon", 32, -5, [-6, -5, -4])
    records[2]["loss"] = LOSS_INIT + 3
    assert optimum_of(records).cliff


def test_all_diverged_is_no_optimum() -> None:
    suite = make_suite("muon")
    rows = to_frame(search(suite, "muon", 32, -5, [-6, -5, -4], status="diverged"))
    assert optimum(rows.assign(hp_point="{}")) is None


def searching_suite() -> Suite:
    suite = make_suite("muon")
    table = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    return suite.model_copy(update={"optimizers": {"muon": table}})


def test_with_searched_values_the_optimum_is_the_best_trial() -> None:
    suite = searching_suite()
    spec = suite.template("muon", 32)
    records = [
        record(spec.point(x, 0, beta=beta), 32, -5 + shift, noise=0)
        for x in (-6.25, -5.0, -4.5)
        for beta, shift in ((0.8, 0.3), (0.95, 0.0))
    ]
    rows = select(suite, to_frame(records))
    best = optimum(rows)
    assert best is not None
    assert (best.log2_lr, best.hp) == (-5.0, {"beta": 0.95})
    assert best.loss == pytest.approx(2.6)


def test_a_seed_that_diverged_once_does_not_make_another_trial_the_best() -> None:
    suite = searching_suite()
    spec = suite.template("muon", 32)
    tried = [(x, seed) for x in (-6.0, -5.5, -5.0, -4.5, -4.0) for seed in (0, 1, 2)] + [(-7.0, 0)]
    fell = {(-4.0, 0): "diverged"}
    points = [(spec.point(*trial, beta=0.95), fell.get(trial)) for trial in tried]
    records = [record(point, 32, -5, noise=0, status=how) for point, how in points]
    best = optimum(select(suite, to_frame(records)))
    assert best is not None
    assert (best.log2_lr, best.loss) == (pytest.approx(-5.0), pytest.approx(2.6))
