"""The noise laboratory: the plan, exponents, pages and commands."""

import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from hptransfer.errors import InputError
from hptransfer.laboratory import exponents
from hptransfer.laboratory.exponents import fit, worst_case
from hptransfer.laboratory.file import is_study, load_study
from hptransfer.laboratory.page import page, points_csv
from hptransfer.laboratory.plan import Outcome, Point, _between, progress
from hptransfer.laboratory.study import Study
from hptransfer.laboratory.write import exponents_json, stored
from hptransfer.records.cells import DIVERGED, CellStore
from hptransfer.suite.file import load_suite
from studied import TINY, finish, tiny_study

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tiny(tmp_path: Path) -> Study:
    return tiny_study(tmp_path)


def test_a_finished_study_needs_no_further_cell_and_has_every_point(tiny: Study) -> None:
    [known] = progress(tiny, finish(tiny))
    assert known.missing is None
    assert [point.eps for point in known.points] == [1.0, 2**-0.5, 0.5]
    assert all(math.isfinite(point.mean) for point in known.points)


def test_the_chosen_setting_is_measured_on_seeds_that_did_not_choose_it(tiny: Study) -> None:
    seeds = {record.cell.seeds for record in finish(tiny).values()}
    assert seeds == {(0, 2), (2, 4)}


def test_a_grid_whose_best_setting_lies_at_an_edge_is_widened(tiny: Study) -> None:
    method = tiny.methods["scion"].model_copy(update={"log2_lr": [-4.0, -3.5]})
    part = tiny.parts[0].model_copy(update={"log2_eps": [0.0]})
    narrow = tiny.model_copy(update={"methods": {"scion": method}, "parts": [part]})
    [known] = progress(narrow, finish(narrow))
    assert known.points[0].settings[0] > -3.5


def test_between_grid_points_the_calls_may_lie_as_low_as_the_vertex_of_a_parabola() -> None:
    def around(a: float, b: float) -> dict[tuple[float, float, float], float]:
        beside = {(0.0, 0.0, 4.0): 2.0**a, (0.0, 0.0, 6.0): 2.0**b}
        return {(0.0, 0.0, 5.0): 1.0, **beside}

    best = (0.0, 0.0, 5.0)
    x = np.linspace(-1, 1, 200_001)
    for a, b in ((0.2, 0.2), (0.0, 0.3), (0.1, 0.25)):
        parabola = np.polyval(np.polyfit([-1, 0, 1], [a, 0, b], 2), x)
        assert _between(around(a, b), best) == pytest.approx(-parabola.min(), abs=1e-9)
    assert _between(around(0.0, math.inf), best) == _between(around(0.0, 5.0), best)


def test_a_fresh_seed_that_diverges_keeps_its_point_out_of_the_fit(tiny: Study) -> None:
    records = finish(tiny)
    [key] = [k for k, r in records.items() if r.cell.seeds == (2, 4) and r.cell.model["eps"] == 0.5]
    status = records[key].status.copy()
    status[0] = DIVERGED
    [known] = progress(tiny, {**records, key: dataclasses.replace(records[key], status=status)})
    assert [point.outcome for point in known.points] == ["measured", "measured", "diverged"]
    [(_, fitted)] = exponents.fits([known])
    assert fitted.verdict == "diverged"


def point(x: float, exponent: float, outcome: Outcome = "measured", noise: float = 0.0) -> Point:
    rng = np.random.default_rng(round(8 * x))
    calls = 2.0 ** (exponent * x) * np.exp(noise * rng.standard_normal(24))
    return Point(2.0**-x, (0.0, 0.0, 3.0), calls, calls.mean(), 0.0, 0.5, outcome)


def test_a_power_law_has_its_exponent_and_a_verdict() -> None:
    x = [0.0, 0.5, 1.0, 1.5]
    points = [point(each, 4.0, noise=0.05) for each in x]
    for theory, verdict in ((4.0, "agrees"), (5.0, "disagrees")):
        found = fit(x, points, theory, whole=True)
        assert found.slope == pytest.approx(4.0, abs=0.1)
        assert found.verdict == verdict


def test_a_wide_union_is_undecided() -> None:
    x = [0.0, 0.5, 1.0, 1.5]
    found = fit(x, [point(each, 4.0, noise=1.5) for each in x], 4.0, whole=True)
    assert found.union[1] - found.union[0] > 0.5
    assert found.verdict == "undecided"


@pytest.mark.parametrize("outcome", ["censored", "capped"])
def test_a_censored_or_capped_point_is_never_fitted(outcome: Outcome) -> None:
    x = [0.0, 0.5, 1.0, 1.5]
    points = [point(each, 4.0) for each in x[:3]]
    far = dataclasses.replace(point(1.5, 40.0), outcome=outcome)
    assert fit(x, [*points, far], 4.0, whole=True).slope == pytest.approx(4.0)
    few = fit(x[:3], [*points[:2], far], 4.0, whole=True)
    assert few.verdict == outcome
    assert math.isnan(few.slope)


def test_too_few_points_of_an_unfinished_series_are_incomplete() -> None:
    assert fit([0.0, 0.5], [point(0.0, 4.0), point(0.5, 4.0)], 4.0, whole=False).verdict == (
        "incomplete"
    )


def test_the_theory_states_the_exponents_of_the_papers() -> None:
    assert [worst_case(p, "batched") for p in (1.25, 1.5, 2.0)] == [7.0, 5.0, 4.0]
    assert [worst_case(p, "transported") for p in (1.25, 1.5, 2.0)] == [6.5, 4.5, 3.5]


def test_a_gain_is_the_ratio_of_the_mean_calls_with_its_interval() -> None:
    value, (low, high) = exponents.gain(point(1.0, 5.0, noise=0.3), point(1.0, 4.0, noise=0.3))
    assert low < value < high
    assert value == pytest.approx(2.0, rel=0.3)


def test_a_study_is_no_suite_and_a_wrong_one_says_where(tmp_path: Path) -> None:
    assert is_study("heavy_tails")
    assert not is_study("quickstart")
    with pytest.raises(InputError, match="study of the noise laboratory"):
        load_suite("heavy_tails")
    for old, new, told in (
        ('methods = ["scion"]', 'methods = ["scoin"]', "no method 'scoin'"),
        ("radius_hidden", "radius_hiden", "no field 'radius_hiden'"),
        ("gap = 20.0", "gpa = 20.0", "no field 'gpa'"),
        ("sigma = 4.0", "sigma = -4.0", "greater than 0"),
        ("cap = 60.0", "caps = 60.0", "unknown key 'caps'"),
        ("directions = [2]", "directions = [2]\nspread = 'first'\naspect = 4", "the matrix mode"),
    ):
        (tmp_path / "wrong.toml").write_text(TINY.replace(old, new))
        with pytest.raises(InputError, match=told):
            load_study(str(tmp_path / "wrong.toml"))


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hptransfer", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_run_measures_a_study_once_and_plan_says_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    before = command(tmp_path, "plan", "tiny.toml")
    assert before.returncode == 0, before.stderr
    assert "0 of 3 points are known" in before.stdout
    ran = command(tmp_path, "run", "tiny.toml", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    assert "[3/3] scion" in ran.stderr
    assert "exponent of the calls in 1/eps" in ran.stdout
    assert "3 of 3 points are known" in command(tmp_path, "plan", "tiny.toml").stdout
    lines = [p.read_text() for p in (tmp_path / "results/tiny").glob("cells-*.jsonl")]
    page = (tmp_path / "results/tiny/report.html").read_text()
    again = command(tmp_path, "run", "tiny.toml")
    assert again.stdout == ran.stdout
    assert command(tmp_path, "report", "tiny").returncode == 0
    assert (tmp_path / "results/tiny/report.html").read_text() == page
    assert [p.read_text() for p in (tmp_path / "results/tiny").glob("cells-*.jsonl")] == lines


def test_the_page_of_a_study_names_every_series_and_reaches_for_nothing(tiny: Study) -> None:
    known = progress(tiny, finish(tiny))
    text = page(tiny, known, "hptransfer run tiny")
    assert "3 of 3 points." in text
    assert text.count(">scion gauss p 2 r 2<") == 3
    assert "Calls against 1/eps: gauss, p = 2: scion" in text
    assert not re.findall(r"(?:src|href)=[\"']https?:", text)
    before = page(tiny, progress(tiny, {}), "hptransfer run tiny")
    assert "0 of 3 points." in before
    assert "<svg" not in before


def test_points_csv_holds_what_a_fit_needs(tiny: Study) -> None:
    known = progress(tiny, finish(tiny))
    table = pd.read_csv(io.StringIO(points_csv(known)))
    slope = np.polyfit(-np.log2(table["eps"]), np.log2(table["calls"]), 1)[0]
    [(_, fitted)] = exponents.fits(known)
    assert slope == pytest.approx(fitted.slope)


def exponents_of_the_page(name: str) -> str:
    """A table of docs/heavy_tails.md, from a committed study, of the fits that have a number."""
    found = json.loads((ROOT / "results/reference" / name / "exponents.json").read_text())
    lines = ["| in | part | method | noise | theory | exponent | lowest to highest | verdict |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for key, axis in (("in_goal", "1/eps"), ("in_directions", "min(m, n)")):
        for each in found[key]:
            if each["part"] == "methods" or each["by_seeds"]["value"] is None:
                continue
            theory = "" if each["theory"] is None else f"{each['theory']:g}"
            cells = (axis, each["part"], each["method"], each["noise"], theory)
            lines.append(f"| {' | '.join([*cells, *_span(each), each['verdict'] or ''])} |")
    for each in found["gaps"]:
        if each["part"] == "methods" or each["by_seeds"]["value"] is None:
            continue
        cells = ("gap", each["part"], "scion less transported", each["noise"], "0.5")
        lines.append(f"| {' | '.join([*cells, *_span(each), each['verdict']])} |")
    return "\n".join(lines)


def _span(each: dict[str, Any]) -> tuple[str, str]:
    """The slope, and the hull of its intervals."""
    bounds = [each[kind] for kind in ("by_seeds", "by_points", "by_grid")]
    low, high = min(b["low"] for b in bounds), max(b["high"] for b in bounds)
    return f"{bounds[0]['value']:.2f}", f"{low:.2f} to {high:.2f}"


def points_of_the_page(name: str) -> str:
    """How much of a committed study is measured, in words."""
    study = stored(name, ROOT / "results/reference")
    known = progress(study, CellStore(ROOT / "results/reference", name).read())
    count = sum(len(each.points) for each in known)
    of = sum(len(each.series.part.log2_eps) for each in known)
    return f"{count} of {of} points are measured."


COMMITTED = ("heavy_tails", "heavy_tails_long")


@pytest.mark.parametrize("name", COMMITTED)
def test_the_table_of_the_page_is_that_of_the_committed_study(name: str) -> None:
    page = (ROOT / "docs/heavy_tails.md").read_text()
    shown = page.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]
    assert shown == f"{points_of_the_page(name)}\n\n{exponents_of_the_page(name)}"


def test_the_exponents_follow_their_published_schema(tiny: Study) -> None:
    schema = json.loads((ROOT / "docs/exponents.schema.json").read_text())
    for known in (progress(tiny, {}), progress(tiny, finish(tiny))):
        Draft202012Validator(schema).validate(exponents_json(tiny, known))


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_study_is_the_built_in_one(name: str) -> None:
    folder = ROOT / "results/reference"
    study = load_study(name)
    assert stored(name, folder) == study
    known = progress(study, CellStore(folder, name).read())
    assert points_csv(known) == (folder / name / "points.csv").read_text()
    kept = (folder / name / "exponents.json").read_text()
    assert rounded(kept) == rounded(json.dumps(exponents_json(study, known)))


def rounded(text: str) -> Any:
    """A document whose last digits do not depend on the machine."""
    return json.loads(text, parse_float=lambda digits: round(float(digits), 6))


def test_the_committed_study_is_whole() -> None:
    known = progress(
        load_study("heavy_tails"), CellStore(ROOT / "results/reference", "heavy_tails").read()
    )
    assert all(each.missing is None for each in known)


def test_a_study_refuses_the_options_of_suites(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    for option, value in (("--seeds", "3"), ("--device", "cuda")):
        refused = command(tmp_path, "run", "tiny.toml", option, value)
        assert refused.returncode == 2
        assert f"{option}: a study of the noise laboratory has no such option" in refused.stderr


def test_without_an_exponent_in_theory_there_is_no_verdict() -> None:
    x = [0.0, 0.5, 1.0, 1.5]
    assert fit(x, [point(each, 4.0) for each in x], None, whole=True).verdict is None


def test_the_growth_compares_points_of_one_goal(tiny: Study) -> None:
    part = tiny.parts[0].model_copy(update={"log2_eps": [0.0, -1.0], "directions": [2, 4, 8]})
    wide = tiny.model_copy(update={"parts": [part]})
    known = [
        dataclasses.replace(each, points=[point(0.0, 4.0), point(1.0, 4.0)][: 1 + (i < 2)])
        for i, each in enumerate(progress(wide, {}))
    ]
    [(_, fitted)] = exponents.growths(known)
    assert (fitted.n_points, fitted.verdict) == (2, "incomplete")
