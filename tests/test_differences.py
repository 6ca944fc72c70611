"""Differences between optimizers, each at its best lr, over shared seeds."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from frames import half_octaves, make_suite, search, study, to_frame
from hptransfer.analysis.differences import differences
from hptransfer.analysis.frame import select
from hptransfer.report import Section, metrics_json, render
from hptransfer.suite.resolved import Suite

SAME = {"adamw": lambda n: -6.0, "muon": lambda n: -5.2}


def shifted(by: float, noise: float = 0.004) -> tuple[Section, pd.DataFrame]:
    """Two optimizers on the same seeds; the losses of the second are higher by so many nats."""
    suite = make_suite("adamw", "muon")
    frame = study(suite, SAME, noise=noise, seeds=5)
    muon = np.array([spec["optimizer"]["name"] == "muon" for spec in frame["spec"]])
    frame.loc[muon, "loss"] += by
    return Section(suite, frame), frame


def test_a_difference_is_that_of_the_best_losses_of_each_seed() -> None:
    section, _ = shifted(0.3)
    found = differences(section.suite, section.rows)
    assert [(each.n, each.first, each.second) for each in found] == [
        (32, "adamw", "muon"),
        (128, "adamw", "muon"),
    ]
    for each in found:
        assert each.tested.difference.value == pytest.approx(0.3, abs=0.01)
        assert each.tested.n == 5
        assert each.tested.differs
        assert each.censored == ()


def test_what_all_optimizers_share_by_seed_widens_no_interval() -> None:
    section, _ = shifted(0.0, noise=0.05)
    alone = max(row.tested.difference.high for row in differences(section.suite, section.rows))
    frame = section.frame.copy()
    frame["loss"] += 0.5 * frame["seed"]
    assert section.recorded is not None
    rows = select(section.recorded, frame)
    assert max(row.tested.difference.high for row in differences(section.suite, rows)) == (
        pytest.approx(alone)
    )


def test_equal_optimizers_do_not_differ_after_the_correction() -> None:
    suite = make_suite("a", "b", "c", targets=[64, 128, 256])
    alarms = 0
    for seed in range(40):
        rows = [
            run
            for label, shift in (("a", 0), ("b", 100), ("c", 200))
            for n in (32, 64)
            for run in _alike(suite, label, n, shift + 1000 * seed)
        ]
        found = differences(suite, select(suite, to_frame(rows)))
        assert len(found) == 6
        alarms += any(each.tested.differs for each in found)
    assert alarms <= 5, "one family in twenty"


def _alike(suite: Suite, label: str, n: int, draw: int) -> list[dict[str, Any]]:
    runs = search(suite, label, n, -5, [-6, -5, -4], range(5), noise=0)
    for run in runs:
        own = np.random.default_rng([run["seed"], draw, n]).normal()
        run["loss"] += 0.01 * own
    return runs


def test_an_optimum_at_an_edge_is_named() -> None:
    suite = make_suite("adamw", "muon", targets=[])
    rows = [
        *search(suite, "adamw", 32, -6, half_octaves(-6), range(3)),
        *search(suite, "muon", 32, -5, [-5, -4, -3], range(3)),
    ]
    [only] = differences(suite, select(suite, to_frame(rows)))
    assert only.censored == ("muon",)


def test_an_optimizer_without_a_loss_has_no_difference() -> None:
    section, frame = shifted(0.1)
    muon = np.array([spec["optimizer"]["name"] == "muon" for spec in frame["spec"]])
    frame.loc[muon, ["status", "loss"]] = ["diverged", np.inf]
    assert section.recorded is not None
    assert differences(section.suite, select(section.recorded, frame)) == []


def test_the_report_and_its_metrics_hold_the_differences() -> None:
    section, _ = shifted(0.3)
    assert "Differences between optimizers" in render([section])
    [suite] = metrics_json([section])["suites"]
    first = suite["differences"][0]
    assert (first["first"], first["second"], first["differs"]) == ("adamw", "muon", True)
    assert first["difference"]["value"] == pytest.approx(0.3, abs=0.01)
    assert first["difference"]["low"] < first["difference"]["value"] < first["difference"]["high"]
