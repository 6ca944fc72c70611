"""The curve and the optimum that `tune` prints rest on the same losses."""

import re

import pandas as pd
import pytest
from rich.text import Text

from frames import make_suite, record, to_frame
from hptransfer.analysis.frame import select
from hptransfer.analysis.optimum import optimum
from hptransfer.cli.tables import curve_table
from hptransfer.suite.ranges import value_range
from hptransfer.suite.resolved import Suite

LUCK = {0: -0.3, 1: 0.1, 2: 0.2}  # nats that each seed adds to a loss


def unequal_seeds(suite: Suite) -> pd.DataFrame:
    """Seed 0, a lucky one, at every lr; the other seeds only near the optimum."""
    records = []
    for lr in (-8, -7, -6, -5, -4, -3):
        for seed in (0, 1, 2) if -7 <= lr <= -5 else (0,):
            run = record(suite.template("muon", 32).point(lr, seed), 32, -6, noise=0)
            records.append(run | {"loss": run["loss"] + LUCK[seed]})
    return select(suite, to_frame(records))


def printed(line: str) -> dict[float, float]:
    """log2 lr -> loss in a line of points."""
    return {float(lr): float(loss) for lr, loss in re.findall(r"(-?[\d.]+): ([\d.]+)", line)}


def test_the_points_of_unequal_seeds_are_on_one_scale_with_the_optimum() -> None:
    suite = make_suite("muon")
    rows = unequal_seeds(suite)
    table, [line] = curve_table(suite, 32, rows)
    losses = printed(line)
    assert losses == pytest.approx({lr: 2.6 + 0.08 * (lr + 6) ** 2 for lr in losses}, abs=6e-4)
    best = optimum(rows)
    assert best is not None
    shown = next(iter(table.columns[2].cells))
    assert isinstance(shown, Text)
    assert shown.plain == f"{best.loss:.4f}"
    assert min(losses.values()) == pytest.approx(best.loss, abs=6e-4)


def test_of_a_search_over_more_than_the_lr_each_lr_shows_its_best_trial() -> None:
    suite = make_suite("muon")
    searched = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    suite = suite.model_copy(update={"optimizers": {"muon": searched}})
    spec = suite.template("muon", 32)
    runs = [
        record(spec.point(lr, 0, beta=beta), 32, center, noise=0)
        for lr in (-7, -6, -5)
        for beta, center in ((0.8, -6), (0.95, -4))
    ]
    rows = select(suite, to_frame(runs))
    _, [line] = curve_table(suite, 32, rows)
    best = optimum(rows)
    assert best is not None
    assert printed(line)[-6] == pytest.approx(best.loss, abs=6e-4)
    assert printed(line)[-7] == pytest.approx(2.68, abs=6e-4)
