"""The compare command: which runs are pairs, and what their differences say."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from commanded import hptransfer
from frames import Center, half_octaves, make_suite, record, search, study, to_frame
from hptransfer.analysis.compare import Measured, Side, compare, loss_at
from hptransfer.analysis.frame import select
from hptransfer.spec import FIRST_SCHEMA
from hptransfer.suite.ranges import value_range
from hptransfer.suite.resolved import Suite
from kept import HOLDS, kept

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
CENTERS: dict[str, Center] = {"adamw": lambda n: -6.0 if n == 32 else -7.0, "muon": HOLDS}


def side(suite: Suite, frame: pd.DataFrame) -> Side:
    return Side(suite, select(suite, frame))


def revised(suite: Suite, part: str, **changes: object) -> Suite:
    """The suite with other values in a part of each template, as another version has them."""
    templates = {
        label: replace(run, **{part: {**getattr(run, part), **changes}})
        for label, run in suite.templates.items()
    }
    return Suite.of(suite, templates, suite.bounds)


def values(measured: list[Measured], optimizer: str, n: int, quantity: str) -> tuple[float, ...]:
    [found] = [m for m in measured if (m.optimizer, m.n, m.quantity) == (optimizer, n, quantity)]
    return found.values


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite("adamw", "muon", seeds=3)


@pytest.fixture(scope="module")
def frame(suite: Suite) -> pd.DataFrame:
    return study(suite, CENTERS, seeds=3)


def test_a_folder_equals_itself(suite: Suite, frame: pd.DataFrame) -> None:
    found = compare(side(suite, frame), side(suite, frame))
    assert found.labels == {"adamw": "adamw", "muon": "muon"}
    assert found.n_paired == len(frame) - (frame["status"] == "failed").sum()
    assert found.unpaired == []
    assert {value for each in found.measured for value in each.values} == {0.0}
    kinds = [(m.optimizer, m.n, m.quantity, len(m.values)) for m in found.measured]
    assert kinds == [
        (label, n, quantity, seeds)
        for label in ("adamw", "muon")
        for n, quantity, seeds in (
            (32, "loss", 3), (128, "loss", 3), (128, "drift", 3), (128, "regret", 3),
        )
    ]  # fmt: skip


def test_a_loss_that_rose_everywhere_is_a_loss_and_neither_drift_nor_regret(
    suite: Suite, frame: pd.DataFrame
) -> None:
    higher = frame.assign(loss=frame["loss"] + 0.05 * (frame["width"] == 128))
    found = compare(side(suite, frame), side(suite, higher)).measured
    assert values(found, "muon", 128, "loss") == pytest.approx([0.05] * 3)
    assert values(found, "muon", 32, "loss") == (0, 0, 0)
    assert values(found, "muon", 128, "drift") == pytest.approx([0] * 3)
    assert values(found, "muon", 128, "regret") == pytest.approx([0] * 3)


def test_an_optimum_that_moved_is_a_drift(suite: Suite, frame: pd.DataFrame) -> None:
    moved = study(suite, {**CENTERS, "adamw": lambda n: -6.0}, seeds=3)
    found = compare(side(suite, frame), side(suite, moved)).measured
    assert np.mean(values(found, "adamw", 128, "drift")) == pytest.approx(1.0, abs=0.1)
    assert np.mean(values(found, "adamw", 128, "regret")) == pytest.approx(-0.08, abs=0.02)
    assert values(found, "muon", 128, "drift") == (0, 0, 0)


def test_a_loss_far_from_the_best_lr_does_not_count(suite: Suite, frame: pd.DataFrame) -> None:
    """Near a cliff losses differ by much and say nothing of the tuned run."""
    far = (frame["log2_lr"] < -7) & (frame["width"] == 32)
    assert far.any()
    other = frame.assign(loss=frame["loss"] + 1.0 * far)
    found = compare(side(suite, frame), side(suite, other)).measured
    assert values(found, "muon", 32, "loss") == (0, 0, 0)


def test_a_seed_with_its_least_loss_at_an_edge_has_no_drift(
    suite: Suite, frame: pd.DataFrame
) -> None:
    rising = (frame["width"] == 128) & (frame["seed"] == 1)
    other = frame.assign(loss=frame["loss"].where(~rising, 3 + 0.01 * frame["log2_lr"]))
    found = compare(side(suite, frame), side(suite, other)).measured
    assert len(values(found, "muon", 128, "drift")) == 2


def test_a_regret_is_that_of_the_searched_values_that_were_carried() -> None:
    suite = make_suite("muon")
    searched = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    suite = suite.model_copy(update={"optimizers": {"muon": searched}})

    def rows(n: int, beta: float, center: float, worse: float) -> list[dict[str, object]]:
        template = suite.template("muon", n)
        made = [
            record(template.point(x, seed, beta=beta), n, center, noise=0)
            for x in (-6.0, -5.0, -4.0)
            for seed in (0, 1)
        ]
        return [run | {"loss": run["loss"] + worse} for run in made]

    best = [*rows(32, 0.9, -5.0, 0.0), *rows(128, 0.9, -5.0, 0.0)]
    moved = [*rows(32, 0.9, -5.0, 0.0), *rows(128, 0.9, -4.0, 0.0)]
    other = [*rows(32, 0.8, -5.0, 1.0), *rows(128, 0.8, -6.0, 1.0)]
    a, b = (side(suite, to_frame([*other, *own])) for own in (best, moved))
    found = compare(a, b).measured
    assert values(found, "muon", 128, "regret") == pytest.approx([0.08, 0.08])


def test_a_comparison_the_other_way_round_has_the_other_signs(
    suite: Suite, frame: pd.DataFrame
) -> None:
    other = study(suite, {**CENTERS, "adamw": lambda n: -6.3}, seeds=3, noise=0.01)
    forth = compare(side(suite, frame), side(suite, other))
    back = compare(side(suite, other), side(suite, frame))
    for one, two in zip(forth.measured, back.measured, strict=True):
        assert np.allclose(one.values, -np.array(two.values))
    assert any(value != 0 for each in forth.measured for value in each.values)
    swapped = {"a": "b", "b": "a"}
    assert {(swapped[u.side], u.optimizer, u.axis_value, u.n_runs) for u in forth.unpaired} == {
        (u.side, u.optimizer, u.axis_value, u.n_runs) for u in back.unpaired
    }


@pytest.mark.parametrize("part", ["model", "data", "optimizer"])
def test_runs_of_another_version_of_a_part_are_pairs(
    part: str, suite: Suite, frame: pd.DataFrame
) -> None:
    later = revised(suite, part, revision="0123456789abcdef")
    again = study(later, CENTERS, seeds=3)
    assert set(again["key"]).isdisjoint(frame["key"])
    found = compare(side(suite, frame), side(later, again))
    assert found.labels == {"adamw": "adamw", "muon": "muon"}
    assert found.n_paired == len(frame)


def test_runs_of_the_first_schema_and_of_today_are_pairs_although_they_count_otherwise(
    suite: Suite, frame: pd.DataFrame
) -> None:
    before = Suite.of(
        suite,
        {x: replace(r, schema=FIRST_SCHEMA, eval_examples=7) for x, r in suite.templates.items()},
        suite.bounds,
    )
    old = study(before, CENTERS, seeds=3)
    assert "eval_batches" in old["spec"][0]
    found = compare(side(before, old), side(suite, frame))
    assert found.n_paired == len(frame)
    more = revised(suite, "hp", beta=0.9)
    more = Suite.of(
        more, {x: replace(r, eval_examples=7) for x, r in more.templates.items()}, more.bounds
    )
    assert compare(side(more, study(more, CENTERS)), side(suite, frame)).labels == {}


def test_other_settings_are_no_pairs_and_the_reason_names_them(
    suite: Suite, frame: pd.DataFrame
) -> None:
    other = revised(suite, "hp", beta=0.5)
    found = compare(side(suite, frame), side(other, study(other, CENTERS)))
    assert (found.labels, found.n_paired, found.measured) == ({}, 0, [])
    assert {each.reason for each in found.unpaired} == {
        "differs there: hp.beta 0.9, not 0.5", "differs there: hp.beta 0.5, not 0.9",
    }  # fmt: skip
    alone = make_suite("muon")
    found = compare(side(suite, frame), side(alone, study(alone, {"muon": HOLDS})))
    lost = {(u.optimizer, u.reason) for u in found.unpaired if u.optimizer == "adamw"}
    assert lost == {("adamw", "no optimizer of this label there")}
    deep = make_suite("muon", axis="batch_size", width=32, proxy=16, targets=[64])
    found = compare(side(suite, frame), side(deep, study(deep, {"muon": HOLDS})))
    assert {u.reason for u in found.unpaired if u.side == "a"} == {"the axis there is batch_size"}


def test_another_number_of_tokens_is_another_run() -> None:
    """At equal tokens the steps follow the batch, so the suite's own steps say nothing."""
    fixed = make_suite("muon", axis="batch_size", width=32, proxy=8, targets=[16])
    tokens = 8 * 64 * 100
    suites = [fixed.model_copy(update={"tokens": count}) for count in (tokens, tokens, 2 * tokens)]
    a, b, c = (side(suite, study(suite, {"muon": HOLDS})) for suite in suites)
    found = compare(a, b)
    assert found.unpaired == []
    assert {value for each in found.measured for value in each.values} == {0.0}
    assert found.n_paired == len(a.rows) > 0
    found = compare(a, c)
    assert found.n_paired == 0
    assert {each.reason for each in found.unpaired if each.side == "a"} == {
        "differs there: steps 100, not 200"
    }


def test_equal_runs_are_pairs_under_another_label(suite: Suite, frame: pd.DataFrame) -> None:
    table = {"mine": suite.optimizers["muon"], "muon": suite.optimizers["adamw"]}
    runs = {"mine": suite.templates["muon"], "muon": suite.templates["adamw"]}
    renamed = Suite.of(
        suite.model_copy(update={"optimizers": table}), runs, dict.fromkeys(runs, (-30.0, 6.0))
    )
    found = compare(side(suite, frame), side(renamed, frame))
    assert found.labels == {"adamw": "muon", "muon": "mine"}
    assert found.n_paired == len(frame)
    assert {value for each in found.measured for value in each.values} == {0.0}


def test_seeds_that_only_one_side_has_are_named(suite: Suite, frame: pd.DataFrame) -> None:
    fewer = frame[frame["seed"] != 1]
    found = compare(side(suite, frame), side(suite, fewer))
    assert {(u.side, u.axis_value, u.reason) for u in found.unpaired} == {
        ("a", 32, "lr or seed not tried there"), ("a", 128, "lr or seed not tried there"),
    }  # fmt: skip
    assert sum(u.n_runs for u in found.unpaired) == len(frame) - len(fewer)
    assert len(values(found.measured, "muon", 128, "drift")) == 2
    narrow = frame[frame["width"] == 32]
    found = compare(side(suite, frame), side(suite, narrow))
    assert {u.reason for u in found.unpaired} == {"axis value not tried there"}


def test_a_diverged_run_counts_as_the_loss_at_init_and_a_failed_one_not_at_all(
    suite: Suite, frame: pd.DataFrame
) -> None:
    changed = frame.copy()
    at = changed.index[(changed["width"] == 128) & (changed["status"] == "done")]
    changed.loc[at[0], ["status", "loss"]] = ["failed", np.nan]
    changed.loc[at[1], ["status", "loss"]] = ["diverged", np.inf]
    found = compare(side(suite, frame), side(suite, changed))
    assert found.n_paired == len(frame) - 1
    assert [(u.side, u.n_runs) for u in found.unpaired] == [("a", 1)]
    assert all(np.isfinite(each.values).all() for each in found.measured)


def test_nothing_finished_gives_no_pair_and_no_difference(
    suite: Suite, frame: pd.DataFrame
) -> None:
    found = compare(side(suite, frame), side(suite, to_frame([])))
    assert found.n_paired == 0
    assert found.measured == []
    assert sum(u.n_runs for u in found.unpaired) == len(frame)


def test_one_width_gives_losses_alone() -> None:
    suite = make_suite("muon", targets=[])
    frame = to_frame(search(suite, "muon", 32, -5.0, half_octaves(-5.0), range(3)))
    found = compare(side(suite, frame), side(suite, frame))
    assert [(m.n, m.quantity) for m in found.measured] == [(32, "loss")]


def test_a_loss_between_runs_is_that_of_the_parabola() -> None:
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    y = 3 + 0.5 * (x - 0.3) ** 2
    assert loss_at(x, y, 1.0) == y[3]
    assert loss_at(x, y, 0.25) == pytest.approx(float("nan"), nan_ok=True)
    near = np.arange(-2, 2.5, 0.5)
    assert loss_at(near, 3 + 0.5 * (near - 0.3) ** 2, 0.3) == pytest.approx(3)
    assert np.isnan(loss_at(near, near, 2.25))


def test_the_command_says_what_differs_and_what_has_no_pair(tmp_path: Path) -> None:
    for name, adamw in (("a", CENTERS["adamw"]), ("b", HOLDS)):
        (tmp_path / name).mkdir()
        kept(tmp_path / name, adamw=adamw, muon=HOLDS)
    kept(tmp_path / "a", name="other")
    done = hptransfer("compare", "a/results", "b/results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^adamw +regret +differs +128 +−0\.\d+", done.stdout, re.MULTILINE)
    assert "adamw at width 128: drifts in A, transfers in B\n" in done.stdout
    assert re.search(r"not paired: \d+ run\(s\) of adamw at width 32 in A: lr or", done.stdout)
    assert "only in A: other\n" in done.stdout
    told = re.search(r"(\d+) of (\d+) tested differences exclude 0; (\d+) pairs", done.stdout)
    assert told is not None
    found = hptransfer("compare", "a/results/mine", "b/results/mine", "--json", cwd=tmp_path)
    document = json.loads(found.stdout)
    [mine] = document["suites"]
    assert sum(each["differs"] for each in mine["differences"]) == int(told[1]) > 0
    assert (document["n_tests"], mine["n_paired"]) == (int(told[2]), int(told[3]))
    assert document["only_in_a"] == document["only_in_b"] == []


def test_two_suite_folders_are_compared_whatever_their_names(tmp_path: Path) -> None:
    kept(tmp_path, name="one")
    kept(tmp_path, name="two")
    done = hptransfer("compare", "results/one", "results/two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 of " in done.stdout
    assert "not paired" not in done.stdout


def test_the_committed_records_of_the_first_schema_are_compared(tmp_path: Path) -> None:
    folder, older = REFERENCE / "quickstart", tmp_path / "quickstart"
    shutil.copytree(folder, older, ignore=lambda *_: ["suite.json", "three_seeds"])
    done = hptransfer("compare", older, folder / "three_seeds", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [suite] = json.loads(done.stdout)["suites"]
    assert suite["n_paired"] > 0
    assert suite["a"]["records_schema"] == FIRST_SCHEMA
    assert {each["n_seeds"] for each in suite["differences"]} >= {1}


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("none", "results", "error: none: no such folder"),
        ("results", "empty", "error: empty: no records there"),
        ("results", "mine.toml", "error: mine.toml: "),
        ("results", "others", "error: results and others have no suite in common"),
    ],
)
def test_folders_that_cannot_be_compared_are_named(
    a: str, b: str, told: str, tmp_path: Path
) -> None:
    kept(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x").mkdir()
    kept(tmp_path / "x", name="other")
    (tmp_path / "x" / "results").rename(tmp_path / "others")
    done = hptransfer("compare", a, b, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "hint: " in done.stderr


def test_records_without_their_suite_are_named(tmp_path: Path) -> None:
    store = kept(tmp_path)
    (store.folder / "suite.json").unlink()
    done = hptransfer("compare", "results", "results", cwd=tmp_path)
    assert done.returncode == 2
    assert "results/mine: holds records without the suite" in done.stderr
