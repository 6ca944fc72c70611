"""The spread of lr* over subsets of the points of a curve."""

from dataclasses import replace

import numpy as np
import pytest

from frames import CENTERS, make_suite, study
from hptransfer.analysis.frame import select
from hptransfer.analysis.optimum import optima
from hptransfer.analysis.parabola import Near
from hptransfer.analysis.points import Spread, spreads, subsets
from hptransfer.analysis.sentences import enough_points
from hptransfer.report import Section, metrics_json, render
from hptransfer.spec import FIRST_SCHEMA
from hptransfer.suite.resolved import Suite

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


def test_the_spreads_of_an_optimizer_pool_its_curves() -> None:
    suite = make_suite("adamw", "muon")
    rows = select(suite, study(suite, {label: CENTERS[label] for label in suite.templates}))
    table = spreads(suite, rows)
    assert list(dict.fromkeys(each.optimizer for each in table)) == ["adamw", "muon"]
    best = optima(suite, rows)["muon"]
    errors = [each.se for each in best.values() if each is not None]
    for each in (each for each in table if each.optimizer == "muon" and each.n_points < 5):
        assert each.n_curves == 2
        assert each.seeds == pytest.approx(np.sqrt(np.mean(np.square(errors))))
        assert 0 < each.spread <= each.largest
    three, four = (row for row in table if row.optimizer == "muon" and row.n_points < 5)
    assert three.n_points < four.n_points
    assert three.n_subsets > 4


def test_an_optimum_beside_a_divergence_counts_for_no_spread() -> None:
    suite = make_suite("muon")
    rows = select(suite, study(suite, {"muon": CENTERS["muon"]}))
    assert spreads(suite, rows)[0].n_curves == 2
    best = optima(suite, rows)["muon"][32]
    assert best is not None
    beside = (rows["n"] == 32) & (rows["log2_lr"] == np.floor(2 * best.log2_lr) / 2)
    beside |= (rows["n"] == 32) & (rows["log2_lr"] == np.ceil(2 * best.log2_lr) / 2)
    lower, upper = sorted(rows.loc[beside, "log2_lr"].unique())
    for log2_lr in (lower, upper):
        lost = rows.copy()
        lost.loc[beside & (lost["log2_lr"] == log2_lr), ["status", "loss"]] = ["diverged", np.inf]
        found = optima(suite, lost)["muon"][32]
        assert found is not None
        assert found.cliff
        assert {each.n_curves for each in spreads(suite, lost)} == {1}


def test_records_of_schema_1_have_no_spreads() -> None:
    suite = make_suite("muon")
    rows = select(suite, study(suite, {"muon": CENTERS["muon"]}))
    assert spreads(suite, rows)
    older = {label: replace(run, schema=FIRST_SCHEMA) for label, run in suite.templates.items()}
    assert spreads(Suite.of(suite, older, suite.bounds), rows) == []


def spread(label: str, n_points: int, spread: float, seeds: float = 0.1) -> Spread:
    return Spread(label, n_points, 2, 10, spread, 2 * spread, seeds)


def test_the_sentence_names_the_fewest_from_which_on_the_choice_matters_less_than_seeds() -> None:
    told = enough_points(
        [
            spread("adamw", 3, 0.09), spread("adamw", 4, 0.05),
            spread("muon", 3, 0.09), spread("muon", 4, 0.11), spread("muon", 5, 0.02),
            spread("scion", 3, 0.2), spread("scion", 4, 0.15),
            spread("moga", 3, 0.01, seeds=float("nan")),
        ]
    )  # fmt: skip
    assert told.endswith(
        "less than the seeds do: 3 for adamw; 5 for muon; all that were tried, or more, for scion; "
        "an unknown number (one seed) for moga."
    )
    assert enough_points([]) == ""


def test_the_report_and_the_metrics_have_the_spreads() -> None:
    suite = make_suite("muon")
    section = Section(suite, study(suite, {"muon": CENTERS["muon"]}))
    page, [metrics] = render([section]), metrics_json([section])["suites"]
    assert "How many learning rates are enough" in page
    assert enough_points(section.points) in page
    first = metrics["points"][0]
    assert (first["optimizer"], first["n_points"]) == ("muon", 3)
    assert f"{first['spread']:.2f}<small>at most {first['largest']:.2f}</small>" in page
    assert first["enough"] == (first["spread"] < first["standard_error"])
    nothing = render([Section(suite, section.frame[:0])])
    assert "How many learning rates are enough" not in nothing
