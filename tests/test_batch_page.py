"""The tables and the figure of batch sizes: what they show where a study is not a plain one."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hptransfer.analysis.batch import critical_batches, seed_losses, tuned
from hptransfer.analysis.batch_sentences import law_sentence, unit
from hptransfer.analysis.frame import select
from hptransfer.analysis.landscape import laws
from hptransfer.analysis.optimum import optimum
from hptransfer.report import batch_tables
from hptransfer.report.batch_figure import losses
from hptransfer.report.cells import Table
from hptransfer.report.svg import line_style
from hptransfer.suite.resolved import Suite
from test_batch import CURVATURE, LR, a_suite, by_tokens, records, table_of
from test_budget import IMAGES, made, refusal


def figure_of(suite: Suite, **how: Any) -> Figure:
    return losses(suite, tuned(suite, records(suite, **how)))


def xs(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata(), float)


def lost(label: str, batch: int) -> bool:
    return (label, batch) == ("muon", 32)


def column(table: Table, name: str) -> list[str]:
    k = next(i for i, each in enumerate(table.columns) if each.startswith(name))
    return [row[k].text for row in table.rows]


def test_no_two_lines_of_a_figure_look_alike() -> None:
    assert len({line_style(i) for i in range(64)}) == 64


def test_a_line_and_its_band_break_where_every_run_diverged() -> None:
    figure = figure_of(a_suite(), fails=lost)
    [ax] = figure.axes
    adamw, muon = (line for line in ax.lines if len(xs(line)) == 6)
    assert np.isfinite(np.asarray(adamw.get_ydata(), float)).all()
    gap = np.isnan(np.asarray(muon.get_ydata(), float))
    assert gap.tolist() == [False, False, False, True, False, False]
    for band, pieces in zip(ax.collections, (1, 2), strict=True):
        assert len(band.get_paths()) == pieces
    crosses = [line for line in ax.lines if line.get_marker() == "x" and len(xs(line))]
    assert len(crosses) == 1
    assert "diverged at 32" in str(figure.get_label())


def test_a_censored_optimum_has_an_open_mark_and_its_word() -> None:
    suite = a_suite(optimizers={"adamw": {"lr": LR}})
    frame = records(suite)
    spent = np.array([spec["batch"] for spec in frame["spec"]])
    frame = frame[(spent != 128) | (frame["log2_lr"] <= -4.5)]
    figure = losses(suite, tuned(suite, frame))
    [ax] = figure.axes
    marks = [line for line in ax.lines if len(xs(line)) == 1]
    assert [line.get_fillstyle() for line in marks] == [*["full"] * 5, "none"]
    assert str(figure.get_label()).endswith("2.020 at 128 (censored).")


def test_the_loss_at_lr_star_lies_on_the_parabola_where_a_group_was_tuned_too() -> None:
    """A line between two runs lies above the curve, and would do so for Muon alone."""
    table = {"lr": LR, "groups": {"aux": {"lr": "2^-8..2^-2"}}}
    suite = a_suite(targets=[8], budgets=[], baseline=None, optimizers={"muon": table})
    rows = select(suite, records(suite))
    rows = rows[(rows["n"] == 8) & (rows["log2_lr"] != -6.5)]
    best = optimum(rows)
    assert best is not None and best.hp
    assert best.log2_lr == pytest.approx(-6.5)
    assert seed_losses(rows, best, best.log2_lr)[0] == pytest.approx(2.0)
    assert seed_losses(rows, best, -6.25)[0] == pytest.approx(2.0 + CURVATURE / 16)


def test_the_best_batch_is_chosen_on_the_seeds_that_all_share() -> None:
    """Seed 2 is bad by its own, and batch 16 lacks it: by its mean it would be the best one."""

    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        return 2.0 + 0.3 * (seed == 2) + {8: 0.0, 16: 0.01}.get(batch, 0.05)

    suite = a_suite(budgets=[])
    frame = records(suite, level=level)
    spent = np.array([spec["batch"] for spec in frame["spec"]])
    table = table_of(suite, frame[~((spent == 16) & (frame["seed"] == 2))])
    assert table["muon", 16].loss < table["muon", 8].loss
    assert [n for (label, n), row in table.items() if row.is_best and label == "muon"] == [8]
    assert table["muon", 16].difference.value == pytest.approx(0.01)


def test_a_batch_of_one_seed_takes_no_seed_away_from_the_others() -> None:
    """As a waypoint has it."""
    suite = a_suite()
    frame = records(suite, level=lambda *where: by_tokens(*where) - 0.5 * (where[1] == 16))
    spent = np.array([spec["batch"] for spec in frame["spec"]])
    table = table_of(suite, frame[(spent != 16) | (frame["seed"] == 0)])
    assert not table["adamw", 16].is_best
    assert [row.is_best for (label, _), row in table.items() if label == "adamw"].count(True) == 1
    assert np.isfinite(table["adamw", 32].difference.high)
    found = critical_batches(list(table.values()))["adamw"]
    assert list(found.by_seed) == [0, 1, 2]
    assert found.of_means is not None and found.of_means.n_bracketed == 5


def test_a_critical_batch_above_every_batch_sorts_behind_all_of_them() -> None:
    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        overhead = 1.5 if (label, batch) == ("adamw", 128) else 1.0
        return by_tokens(label, batch, divisor, seed) + 0.1 * float(np.log2(overhead))

    suite = a_suite()
    found = critical_batches(tuned(suite, records(suite, level=level)))
    rows = batch_tables.critical(suite, found).rows
    assert [(row[1].text, row[1].sort) for row in rows] == [("128", 128), ("> 128", math.inf)]


def test_the_law_has_the_sign_of_the_rules_beside_it() -> None:
    suite = a_suite()
    table = batch_tables.laws(suite, laws(suite, select(suite, records(suite))))
    assert column(table, "r") == ["0.50", "0.50"]
    assert table.note.startswith("lr* = c (B/4)^r: a straight line")
    steps = {"axis": "steps", "proxy": 100, "targets": [200, 400], "steps": 100, "tokens": None}
    suite = a_suite(**steps, budgets=None)
    frame = records(suite, center=lambda label, n: -5.0 - 0.5 * float(np.log2(n / 100)))
    found = laws(suite, select(suite, frame))
    table = batch_tables.laws(suite, found)
    assert column(table, "a") == ["0.50", "0.50"]
    assert table.note.startswith("lr* = c (T/100)^−a: a straight line")
    assert "fewer than 100" not in table.note
    short = a_suite(**{**steps, "proxy": 50, "targets": [100, 200]}, budgets=None)
    assert "Among the values are fewer than 100 steps (50), where" in (
        batch_tables.laws(short, laws(short, select(short, records(short)))).note
    )
    assert law_sentence(suite, found["adamw"]).startswith(
        "adamw: lr* = 2^-5.00 (T/100)^−0.50 at T steps (factor 2^"
    )


def test_a_tuned_group_at_the_edge_of_its_range_is_flagged() -> None:
    suite = a_suite()
    row = table_of(suite, records(suite))["muon", 4]
    assert row.optimum is not None
    at_edge = replace(row, is_best=True, optimum=replace(row.optimum, hp_edges={"aux_lr": "high"}))
    assert batch_tables.flags(at_edge) == "aux_lr censored high, best"


def test_without_further_budgets_there_is_no_column_of_tokens_to_a_loss() -> None:
    suite = a_suite(budgets=[])
    table = batch_tables.batches(suite, tuned(suite, records(suite)))
    assert not any("'s loss" in name for name in table.columns)


def test_a_suite_of_images_counts_examples() -> None:
    images = made(IMAGES, model="mlp", data="mnist5k", tokens=3_200)
    assert (unit(images), unit(a_suite())) == ("examples", "tokens")
    assert batch_tables.batches(images, []).caption == "Batch sizes at equal examples"


def test_a_batch_beyond_the_data_is_refused_by_the_field_that_names_it() -> None:
    images = {"model": "mlp", "data": "mnist5k", "tokens": None, "steps": 9}
    named = {
        "proxy": {"proxy": 512, "targets": [8]},
        "targets": {"targets": [512]},
    }
    for key, changes in named.items():
        error = refusal(IMAGES, **images, **changes)
        assert str(error).startswith(f"{key}: batch 512 is larger than the training part"), key


def test_numbers_of_steps_have_no_best_one_and_the_proxy_no_regret() -> None:
    """More steps are better at once, and an lr is not carried to where it was tuned."""
    steps = {"axis": "steps", "proxy": 100, "targets": [200, 400], "steps": 100, "tokens": None}
    suite = a_suite(**steps, budgets=None)
    found = tuned(suite, records(suite))
    assert not any(row.is_best or math.isfinite(row.difference.value) for row in found)
    table = batch_tables.batches(suite, found)
    assert column(table, "lr unchanged")[0] == "–"
    assert column(table, "lr unchanged")[1] != "–"
    assert "best row" not in table.note
    [ax] = losses(suite, found).axes
    assert ax.get_title(loc="left") == "tuned at every number of steps"
