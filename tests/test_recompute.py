"""The lines of pandas on the page about recomputing a verdict give what the report says."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hptransfer.analysis.curve import curve
from hptransfer.analysis.judgement import Case, verdict
from hptransfer.suite.tables import Thresholds

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/how-to/recompute.md").read_text(encoding="utf-8")
QUICKSTART = ROOT / "results/reference/quickstart"
OCTAVES, NATS = 0.001, 0.0001  # by which the page's grid of learning rates may miss the optimum


def code() -> str:
    [block] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


def test_the_lines_on_the_page_give_lr_star_regret_and_verdict_of_the_committed_quickstart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(code(), names)
    metrics = json.loads((QUICKSTART / "metrics.json").read_text(encoding="utf-8"))["suites"][0]
    assert metrics["records_schema"] == 2
    assert metrics["thresholds"].items() >= {"tol": 0.01, "limit": 0.02}.items()
    transfers = {each["optimizer"]: each for each in metrics["transfers"]}
    assert list(names["table"].index) == list(transfers)
    for optimizer, row in names["table"].iterrows():
        told = transfers[optimizer]
        best = told["optimum_at_target"]["log2_lr_star"]["value"]
        assert row["lr_star"] == pytest.approx(best, abs=OCTAVES)
        regret = told["regret"]
        found = (row["regret"], row["low"], row["high"])
        assert found == pytest.approx((regret["value"], regret["low"], regret["high"]), abs=NATS)
        assert row["verdict"] == told["verdict"]
    [printed] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("scale", "verdicts"),
    [
        (0.05, {"inconclusive", "insensitive"}),
        (3.0, {"drifts", "transfers", "inconclusive"}),
    ],
)
def test_the_lines_on_the_page_give_the_verdict_of_the_rule_on_flatter_and_steeper_curves(
    scale: float, verdicts: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = "results/reference/quickstart/runs.csv"
    runs = pd.read_csv(ROOT / path)
    runs["loss"] = 2 + scale * (runs["loss"] - 2)
    (tmp_path / path).parent.mkdir(parents=True)
    runs.to_csv(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code(), names)
    metrics = json.loads((QUICKSTART / "metrics.json").read_text(encoding="utf-8"))["suites"][0]
    for each in metrics["transfers"]:
        optimizer = each["optimizer"]
        points = curve(runs[(runs["optimizer"] == optimizer) & (runs["n"] == each["target"])])
        case = Case.of(points.x, points.grid, points.roofed, each["log2_lr_carried"])
        assert case is not None
        assert names["table"].loc[optimizer, "verdict"] == verdict(case, Thresholds())
    assert set(names["table"]["verdict"]) == verdicts


def test_the_lines_on_the_page_use_nothing_of_hptransfer() -> None:
    imported = re.findall(r"^(?:import|from) (\w+)", code(), re.MULTILINE)
    assert imported == ["numpy", "pandas", "scipy"]
