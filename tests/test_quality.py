"""What weakens a sweep is found, named with its place, and comes with a cure."""

from typing import Any

import numpy as np
import pytest

from hptransfer.analysis.quality import Finding, findings
from hptransfer.foreign.sweep import sweep
from swept import csv, holds, read, runs

GOOD = runs({"muon": holds}, octaves=tuple(np.arange(-10.0, -4.0, 0.5)))


def found(rows: list[dict[str, Any]], **asked: Any) -> dict[str, Finding]:
    reading = read(csv(rows), **asked)
    made = findings(sweep(reading), reading.rows, reading.columns.together)
    return {each.kind: each for each in made}


def test_a_good_sweep_has_no_weakness() -> None:
    assert found(GOOD) == {}


def changed(row: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """A row of a sweep with this weakness; None for one that it lacks."""
    x, wide, made = round(np.log2(row["lr"]), 2), row["width"] == 256, dict(row)
    lost = {
        "edge": wide and x > -7,
        "gap": wide and x in (-6.5, -6),
        "coarse": x % 2 != 0,
        "few points": abs(x + 7) > 0.5 and x != -4.5,
        "unequal grids": wide and x == -10,
        "one seed": row["seed"] > 0,
        "unequal seeds": row["seed"] == 2 and x == -9,
        "missing": wide,
    }
    if lost.get(kind):
        return None
    if kind == "flat":
        made["loss"] = 3.0 + 0.0001 * row["seed"]
    if kind == "close rates" and x == -9:
        made["lr"] *= 1 + 0.005 * row["seed"]
    if kind == "unfinished" and x == -9 and row["seed"] == 0:
        made["loss"] = None
    if kind == "shorter":
        made["epoch"] = 5 if wide and x == -9 else 10
    if kind == "together":
        made["depth"] = row["width"] // 32
    return made


SAID = {
    "edge": "muon at width 256: the best lr (0.00781 = 2^-7) is the largest one tried; try larger",
    "gap": "muon at width 256: a neighbour of the best lr was left out; try the rates between.",
    "coarse": "muon at width 64, 256: learning rates lie up to 2.0 octaves apart at the optimum",
    "few points": "muon at width 64, 256: fewer than 4 learning rates fit the parabola",
    "unequal grids": "not every width has the same learning rates (12 from 0.000977 to 0.0442 at 64"
    ", 11 from 0.00138 to 0.0442 at 256)",
    "one seed": "muon: one seed, so no verdict is more than indicative",
    "unequal seeds": "muon at width 64, 256: not every lr ran on every seed",
    "flat": "muon at width 64, 256: the loss changes by less than 0.01 nat over all learning rates",
    "close rates": "muon at width 64, 256: two learning rates differ by less than 1%",
    "unfinished": "muon: unfinished runs are left out (1 at width 64, 1 at width 256)",
    "shorter": "muon: runs stopped early (3 at width 256, the first after 50% of the longest)",
    "together": "depth changes with the width: a drift may come from any of them.",
}


@pytest.mark.parametrize("kind", SAID)
def test_each_weakness_is_found_and_said(kind: str) -> None:
    rows = [made for row in GOOD if (made := changed(row, kind)) is not None]
    made = found(rows)
    assert kind in made
    assert SAID[kind] in made[kind].sentence


def test_a_label_without_runs_at_a_width_is_named() -> None:
    rows = [*GOOD, *({**row, "optimizer": "sgd"} for row in GOOD if row["width"] == 64)]
    made = found(rows)
    assert made["missing"].sentence == "sgd has no run at width 256."
    assert (made["missing"].label, made["missing"].values) == ("sgd", (256,))
