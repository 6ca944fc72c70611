"""A sweep that was made elsewhere, judged: the same analysis as a suite's, on any grid."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hptransfer.analysis.carried import Transfer
from hptransfer.analysis.frame import select
from hptransfer.analysis.optimum import Optimum, optima
from hptransfer.analysis.parabola import chunks
from hptransfer.analysis.points import spreads
from hptransfer.analysis.sentences import sentence
from hptransfer.analysis.transfer import transfers
from hptransfer.errors import InputError
from hptransfer.foreign.rows import Reading
from hptransfer.foreign.sweep import Sweep, sweep
from hptransfer.records.store import Store
from swept import BOTH, SWEEPS, WIDTHS, csv, drifts, holds, question, read, runs

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
DECADES = tuple(np.log2(10.0) * np.arange(-5, 0.5))
LINEAR = tuple(np.log2(np.arange(0.002, 0.0161, 0.001)))
ODD = tuple(-10 + 8 / 19 * np.arange(17))


def judged(suite: Sweep, found: Reading) -> dict[tuple[str, int], Transfer]:
    return {(each.optimizer, each.n): each for each in transfers(suite, found.rows)}


def test_a_drift_and_a_transfer_are_told_apart_and_neither_lr_was_run_at_the_target() -> None:
    suite, found = question(runs(BOTH))
    made = judged(suite, found)
    assert made["adamw", 256].verdict == "drifts"
    assert made["adamw", 256].drift.value == pytest.approx(-2, abs=0.1)
    assert made["adamw", 256].regret.value == pytest.approx(0.4, abs=0.03)
    assert made["muon", 256].verdict == "transfers"
    assert made["muon", 256].n_seeds == 3


def test_our_own_runs_read_as_a_table_get_the_verdict_that_they_have() -> None:
    store = Store(REFERENCE, "quickstart")
    kept = store.read_manifest()
    assert kept is not None
    labels = ["scion_unconstrained", "transported_scion"]
    own = {
        each.optimizer: each
        for each in transfers(kept.only(labels), select(kept.only(labels), store.frame()))
    }
    table = pd.read_csv(REFERENCE / "quickstart" / "runs.csv")
    found = read(table[table["optimizer"].isin(labels)].to_csv(index=False))
    made = judged(sweep(found), found)
    assert len(made) == len(labels)
    for (label, _), each in made.items():
        assert each.verdict == own[label].verdict
        assert each.n_seeds == own[label].n_seeds
        assert each.drift.value == pytest.approx(own[label].drift.value, abs=0.05)
        assert each.regret.value == pytest.approx(own[label].regret.value, abs=0.002)
        assert each.regret.high == pytest.approx(own[label].regret.high, abs=0.003)


@pytest.mark.parametrize("octaves", [DECADES, LINEAR, ODD], ids=["decades", "linear", "8/19"])
def test_the_optimum_follows_the_grid_that_was_tried(octaves: tuple[float, ...]) -> None:
    suite, found = question(runs({"muon": holds}, octaves=octaves, noise=0.0))
    best = optima(suite, found.rows)["muon"]
    for n in WIDTHS:
        made = best[n]
        assert made is not None
        assert made.censored is None
        assert made.log2_lr == pytest.approx(-7.1, abs=0.01)


def test_a_rate_that_one_width_leaves_out_is_a_gap_on_its_own_grid_alone() -> None:
    rows = runs({"muon": holds}, octaves=DECADES)
    assert all(best and not best.censored for best in _best(rows).values())
    without = [row for row in rows if (row["width"], round(row["lr"], 5)) != (256, 0.001)]
    found = _best(without)[256]
    assert found is not None
    assert found.censored == "gap"


def _best(rows: list[dict[str, Any]]) -> dict[int, Optimum | None]:
    suite, found = question(rows)
    return optima(suite, found.rows)["muon"]


def test_a_wall_beside_a_basin_does_not_move_its_minimum() -> None:
    rows = runs({"muon": holds}, octaves=ODD, noise=0.0, seeds=1, curvature=0.002)
    for row in rows:
        row["loss"] += 3 * max(0.0, np.log2(row["lr"]) + 6.3)
    suite, found = question(rows)
    for best in optima(suite, found.rows)["muon"].values():
        assert best is not None
        assert best.log2_lr == pytest.approx(-7.1, abs=0.15)


def test_an_lr_between_two_tried_ones_is_interpolated_and_the_sentence_says_so() -> None:
    suite, found = question(runs({"adamw": drifts}))
    [made] = transfers(suite, found.rows)
    assert made.source == "interpolation"
    assert made.carried.mean == pytest.approx(3 + 0.1 * 2**2, abs=0.03)
    assert "its loss is interpolated between its neighbours" in sentence(suite, made)


def test_an_lr_inside_the_fitted_points_has_the_loss_of_the_parabola() -> None:
    suite, found = question(runs({"muon": lambda n: -7.2 if n == 64 else -7.4}))
    [made] = transfers(suite, found.rows)
    assert made.source == "parabola"
    assert made.regret.value == pytest.approx(0.1 * 0.2**2, abs=0.002)
    assert "the fitted parabola gives its loss" in sentence(suite, made)


def test_a_tried_lr_within_a_sixteenth_octave_stands_for_the_optimum() -> None:
    suite, found = question(runs({"muon": lambda n: -7.04}, noise=0.0))
    [made] = transfers(suite, found.rows)
    assert made.carried.log2_lr == -7
    assert made.source == "run"


@pytest.mark.parametrize(("shift", "word"), [(4, "above"), (-4, "below")])
def test_nothing_is_extrapolated_beyond_the_tried_range(shift: float, word: str) -> None:
    near, far = np.arange(-10.0, -3.5, 0.5), np.arange(-10.0, -3.5, 0.5) - shift
    rows = runs({"muon": lambda n: -7.1}, widths=[64], octaves=near)
    rows += runs({"muon": lambda n: -7.1 - shift}, widths=[256], octaves=far[far < -7.2]
                 if shift > 0 else far[far > -7.0])  # fmt: skip
    suite, found = question(rows)
    [made] = transfers(suite, found.rows)
    assert made.verdict == "incomplete"
    assert np.isnan(made.regret.value)
    assert f"lies {word} every lr tried at width 256: try it there" in sentence(suite, made)


def broken(rows: list[dict[str, Any]], lost: Callable[[float, int], bool]) -> None:
    """Runs at width 256 at these log2 lr and seeds diverge."""
    for row in rows:
        if row["width"] == 256 and lost(np.log2(row["lr"]), row["seed"]):
            row["loss"] = "nan"


def test_a_carried_lr_between_two_that_diverge_drifts_without_a_number() -> None:
    rows = runs({"adamw": drifts})
    broken(rows, lambda x, seed: x > -6.7)
    suite, found = question(rows)
    [made] = transfers(suite, found.rows)
    assert made.verdict == "drifts"
    assert made.regret.value == np.inf
    assert "diverges at width 256 (n = 3 seeds; no run there, both of its neighbours diverged)" in (
        sentence(suite, made)
    )


def test_a_carried_lr_beside_a_divergence_has_no_loss_until_that_at_init_is_known() -> None:
    rows = runs({"adamw": drifts})
    broken(rows, lambda x, seed: x > -6.2)
    suite, found = question(rows)
    [made] = transfers(suite, found.rows)
    assert made.verdict == "incomplete"
    assert "lies beside an lr that diverged at width 256" in sentence(suite, made)
    known = read(csv(rows), loss_init=5.5)
    [made] = transfers(sweep(known), known.rows)
    assert made.verdict == "drifts"


def test_a_carried_lr_that_diverged_on_one_seed_is_no_mean() -> None:
    rows = runs({"adamw": lambda n: -6.5 if n == 64 else -8.5}, noise=0.0)
    broken(rows, lambda x, seed: abs(x + 6.5) < 0.01 and seed == 1)
    suite, found = question(rows)
    [made] = transfers(suite, found.rows)
    assert made.verdict == "incomplete"
    assert "diverged on some seeds at width 256" in sentence(suite, made)


def test_one_seed_is_indicative() -> None:
    suite, found = question(runs(BOTH, seeds=1))
    made = judged(suite, found)
    assert made["adamw", 256].verdict == "drifts"
    assert made["adamw", 256].indicative
    assert "indicative: 1 seed" in sentence(suite, made["adamw", 256])


def test_a_misfit_of_the_parabola_shows_no_drift_by_one_seed() -> None:
    octaves = -7 + 8 / 19 * np.arange(8)
    basin = (3.010, 3.006, 3.004, 3.003, 3.002, 3.001, 3.070, 3.225)  # flat, and a wall beside it
    rows = runs({"mup": lambda n: octaves[3]}, widths=[64], octaves=octaves, seeds=1, noise=0.0)
    rows += [
        {"optimizer": "mup", "width": 256, "lr": 2.0**x, "seed": 0, "loss": loss}
        for x, loss in zip(octaves, basin, strict=True)
    ]
    suite, found = question(rows)
    [made] = transfers(suite, found.rows)
    assert made.regret.value > suite.thresholds.tol
    assert made.verdict == "inconclusive"
    assert "One seed cannot decide it." in sentence(suite, made)


def test_equal_steps_of_the_lr_leave_nothing_out_though_octaves_lie_between() -> None:
    steps = tuple(np.log2(np.arange(0.001, 0.032, 0.005)))
    rows = runs({"muon": lambda n: -7.4}, octaves=steps)
    assert all(best and not best.censored for best in _best(rows).values())


def test_a_sweep_of_one_axis_value_is_refused() -> None:
    with pytest.raises(InputError, match="no axis to transfer along; width has one value alone"):
        question(runs(BOTH, widths=[64]))


def test_the_proxy_and_the_targets_are_the_values_that_are_there() -> None:
    rows = runs(BOTH, widths=(64, 128, 256))
    suite, _ = question(rows)
    assert (suite.proxy, suite.targets) == (64, (128, 256))
    suite, _ = question(rows, proxy=128, targets=[256])
    assert (suite.proxy, suite.targets) == (128, (256,))
    for options, message in (
        ({"proxy": 100}, "proxy: width 100 has no run"),
        ({"targets": [100]}, "to: width 100 has no run"),
        ({"targets": [64]}, "to: 64 is the proxy itself"),
        ({"expect": {"adam": "drifts"}}, "expect: no label 'adam'"),
        ({"control": "sgd"}, "control: no label 'sgd'"),
    ):
        with pytest.raises(InputError, match=message):
            question(rows, **options)


public = pytest.mark.skipif(not SWEEPS.is_dir(), reason="the public sweeps are not here")


def public_sweep(name: str) -> tuple[Sweep, Reading]:
    found = read((SWEEPS / name).read_bytes())
    return sweep(found), found


@public
def test_the_public_sweep_of_mup_holds_within_an_octave_and_sp_does_not() -> None:
    suite, found = public_sweep("mup_mlp_cifar10.csv")
    made = judged(suite, found)
    assert made["mup", 8192].drift.value == pytest.approx(0.84, abs=0.15)
    best = optima(suite, found.rows)["mup"]
    assert best[1024] is not None
    assert best[8192] is not None
    assert best[8192].log2_lr - best[1024].log2_lr == pytest.approx(0.4, abs=0.15)
    assert {made["sp", n].verdict for n in (1024, 2048, 4096)} == {"drifts"}
    assert made["sp", 8192].verdict in ("drifts", "censored")
    assert all(each.indicative or each.verdict == "censored" for each in made.values())


@public
def test_the_public_sweep_over_width_and_depth_drifts_on_the_raw_lr() -> None:
    suite, found = public_sweep("gemstone_preflight.csv")
    [label] = suite.labels
    made = judged(suite, found)[label, 3072]
    assert made.verdict == "drifts"
    assert made.drift.value == pytest.approx(-3.3, abs=0.6)
    assert found.columns.together == ("depth",)


@public
def test_the_public_sweep_in_linear_steps_is_censored_where_its_best_lr_is_the_largest() -> None:
    suite, found = public_sweep("marin_qwen3_speedrun.csv")
    made = judged(suite, found)
    assert made["adamc", 1024].verdict == made["adamc", 2048].verdict == "censored"
    assert made["adamh", 768].drift.value == pytest.approx(-0.4, abs=0.1)
    assert made["adamh", 2048].drift.value == pytest.approx(-0.4, abs=0.3)
    assert set(found.columns.together) >= {"depth", "steps", "batch_size"}


@public
def test_the_public_ranking_at_one_width_has_no_axis() -> None:
    with pytest.raises(InputError, match="no axis to transfer along") as caught:
        public_sweep("orscale_cifar10_runs.csv")
    assert "optimizer (9), lr (9), seed (3)" in str(caught.value)
    assert "add runs at a second width" in caught.value.hint


def test_redraws_in_parts_are_those_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    suite, found = question(runs({"muon": holds}, noise=0.02, curvature=0.02))
    [whole] = transfers(suite, found.rows)
    monkeypatch.setattr("hptransfer.analysis.parabola.MOST_REDRAWN", 1)
    assert chunks(3, 7) == [1, 1, 1]
    [parts] = transfers(suite, found.rows)
    assert whole.judgement is not None
    assert parts.judgement is not None
    assert parts.judgement.kept == pytest.approx(whole.judgement.kept, abs=0.1)
    assert parts.judgement.regret == whole.judgement.regret


def test_a_dense_grid_asks_not_how_few_points_are_enough() -> None:
    dense = tuple(np.arange(-9.0, -5.0, 0.05))
    suite, found = question(runs({"muon": holds}, octaves=dense, seeds=2))
    assert spreads(suite, found.rows) == []
    suite, found = question(runs({"muon": holds}, seeds=2))
    assert spreads(suite, found.rows)
