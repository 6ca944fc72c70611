"""Values of a wrong type or out of range, in records and in a manifest: named, no traceback."""

import json
from pathlib import Path
from typing import Any

import pytest

from commanded import hptransfer
from frames import make_suite, record, search, to_frame
from hptransfer.analysis import frame as frames
from hptransfer.datasets import Unread
from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.report.write import write_report
from hptransfer.spec import MOST, SCHEMA, canonical, digest
from hptransfer.suite.file import parse_suite
from hptransfer.suite.manifest import as_manifest, stored_suite
from hptransfer.suite.resolved import Suite, resolve
from stored import failure, files, left_out
from stored import record as written

HUGE = 10**400
NO_COUNT = (0, -1, 1.0, 2**63, HUGE, True, "1", None, [1])
NO_REAL = (-HUGE, HUGE, True, "1", None, [1.0])
NO_TEXT = (1, None, ["x"], "\ud800")
NO_TABLE = (1, None, [], "x")
NO_LOSS = (-0.5, 1e300, HUGE, True, "1", None)
NO_CURVE = (
    None, 1, "ab", [], [[1, 2]], [[1], [2], [3]], [[1, 2], [1]], [["1"], [2]], [[True], [False]],
    [[1], [HUGE]], [[1], [-1.0]], [[1], [1e300]], [[1], [[2]]], {"0": [1], "1": [2]}, [[1], {}],
)  # fmt: skip

WRONG: dict[str, tuple[Any, ...]] = {
    "spec": (*NO_TABLE, {}),
    **{f"spec.{name}": NO_COUNT for name in ("width", "steps", "batch", "eval_examples", "schema")},
    "spec.seed": (-1, 0.0, HUGE, True, "0", None),
    "spec.log2_lr": (*NO_REAL, -1e300, 1e300),
    "spec.warmup": (*NO_REAL, -0.1, 1.1),
    "spec.clip": (*NO_REAL, -1.0, 1e300),
    **{f"spec.{name}": (1, None, ["x"]) for name in ("schedule", "precision")},
    **{f"spec.{name}": (*NO_TABLE, {}) for name in ("model", "data", "optimizer")},
    **{f"spec.{name}": NO_TABLE for name in ("hp", "base")},
    **{f"spec.{name}.name": (1, None, ["x"]) for name in ("model", "data", "optimizer")},
    "spec.base.width": NO_COUNT,
    "spec.model.context": (*NO_COUNT, MOST),
    "key": (*NO_TEXT, "0" * 20),
    "cell": (*NO_TEXT, "0" * 20),
    "status": (*NO_TEXT, "finished"),
    **dict.fromkeys(("loss", "loss_init", "train_loss", "train_mean"), NO_LOSS),
    "curve": NO_CURVE,
    "seconds": (*NO_REAL, -1.0, 1e300),
    "flops": (*NO_REAL, -1.0, 1e300),
    "finished": (*NO_REAL, -1.0, 1e300),
    "peak_memory": (-1, 1.0, 2**63, HUGE, True, "1", None),
    "env": NO_TABLE,
    "env.versions": NO_TABLE,
    "env.versions.torch": NO_TEXT,
    "env.git": (1, ["x"], "\ud800"),
    "env.device": NO_TEXT,
    "env.lanes": NO_COUNT,
    "env.threads": NO_COUNT,
    "probes": NO_TABLE,
    "error": NO_TEXT,
    "schema": ("1", None, 1.0, True, [1]),
}


def put(table: dict[str, Any], place: str, value: Any) -> None:
    *folders, name = place.split(".")
    for folder in folders:
        table = table[folder]
    table[name] = value


def changed(folder: Path, place: str, value: Any) -> Store:
    """A store of two records, one of them with a changed value and the key that belongs to it."""
    store = Store(folder, "x")
    env = {"device": "cpu", "lanes": 4, "threads": 1, "versions": {"torch": "2"}, "git": "0"}
    store.append(written(0, env=env))
    store.append(written(1, env=env))
    path = files(store)[0]
    first, second = path.read_text().splitlines()
    line = json.loads(first)
    put(line, place, value)
    spec = line["spec"]
    if place.startswith("spec") and isinstance(spec, dict):
        shared = {k: v for k, v in spec.items() if k not in ("log2_lr", "seed")}
        line |= {"key": digest(canonical(spec)), "cell": digest(canonical(shared))}
    path.write_text(f"{json.dumps(line)}\n{second}\n")
    return Store(folder, "x")


@pytest.mark.parametrize("place", WRONG)
def test_a_record_with_a_value_that_cannot_be_is_left_out(place: str, tmp_path: Path) -> None:
    for i, value in enumerate(WRONG[place]):
        seeds, note = left_out(changed(tmp_path / str(i), place, value))
        assert seeds == [1], f"{place} is {value!r:.40}"
        assert "left out 1 damaged record line (line 1: " in note


RIGHT: dict[str, tuple[Any, ...]] = {
    "spec.width": (1, MOST // (100 * 16 * 64)),
    "spec.seed": (0, MOST),
    "spec.log2_lr": (-30, 6.0),
    "spec.clip": (0, 3.4e38),
    "spec.warmup": (0, 1),
    "spec.base": ({},),
    "spec.hp": ({}, {"beta": None, "betas": [1, 2.5], "name": "x"}),
    "spec.model.n_layer": ([2, 2],),
    "loss": (0, 3.4e38),
    "curve": ([[], []], [[1, 2], [3, None]], [[1.5], [0]]),
    "seconds": (0, 0.0, 1e8),
    "finished": (0, 4e9),
    "peak_memory": (0, 2**40),
    "env": ({},),
    "env.git": (None, "", "é"),
    "env.more": ([HUGE],),
    "error": ("", "a\n\0é"),
    "more": ([HUGE],),
}


@pytest.mark.parametrize("place", RIGHT)
def test_a_record_with_a_value_that_may_be_is_read(place: str, tmp_path: Path) -> None:
    for i, value in enumerate(RIGHT[place]):
        assert len(changed(tmp_path / str(i), place, value).frame()) == 2, f"{value!r:.40}"


@pytest.mark.parametrize(
    ("status", "loss", "read"),
    [
        ("done", 2.0, True),
        ("done", None, False),
        ("diverged", None, True),
        ("diverged", 2.0, False),
        ("failed", None, True),
    ],
)
def test_a_loss_is_null_where_the_run_has_none(
    status: str, loss: float | None, read: bool, tmp_path: Path
) -> None:
    store = changed(tmp_path, "loss", loss)
    path = files(store)[0]
    path.write_text(path.read_text().replace('"status": "done"', f'"status": "{status}"', 1))
    seeds = store.frame()["seed"].tolist() if read else left_out(store)[0]
    assert seeds == ([0, 1] if read else [1])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_a_number_that_json_or_python_does_not_have_is_damage(text: str, tmp_path: Path) -> None:
    store = changed(tmp_path, "loss", 2.0)
    path = files(store)[0]
    path.write_text(path.read_text().replace('"loss": 2.0', f'"loss": {text}', 1))
    assert left_out(store)[0] == [1]


def test_a_damaged_record_leaves_the_report_to_the_others(tmp_path: Path) -> None:
    suite = make_suite("adamw", targets=[])
    store = Store(tmp_path, suite.name)
    store.write_manifest(suite)
    lines = []
    for row in search(suite, "adamw", 32, -6, range(-8, -3)):
        curve = list(zip(*row["curve"], strict=True))
        lines.append({**row, "schema": SCHEMA, "curve": curve, "env": {**row["env"], "git": "0"}})
    lines[0]["env"]["versions"] = 3
    lines[1]["finished"] = 1e300
    lines[2]["peak_memory"] = HUGE
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (store.folder / "records-a.jsonl").write_text(text)
    done = hptransfer("report", suite.name, "--results", tmp_path, cwd=tmp_path)
    assert done.returncode == 0
    assert "left out 3 damaged record lines (1, 2, 3; line 1: versions is 3)" in done.stderr
    assert done.stderr.count("\n") == 1
    found = json.loads((store.folder / "metrics.json").read_text())
    assert found["suites"][0]["runs"]["found"] == 2


@pytest.mark.parametrize("layers", [0, -1, HUGE, 2.0, True, "2", None, "none"])
def test_a_run_of_no_depth_is_of_no_suite_over_depth(layers: object) -> None:
    suite = make_suite("muon", axis="depth", proxy=2, targets=[4], width=32)
    row = record(suite.template("muon", 4).point(-5, 0), 4, -5.0)
    spec = {**row["spec"], "model": {**row["spec"]["model"], "n_layer": layers}}
    if layers == "none":
        del spec["model"]["n_layer"]
    assert len(frames.select(suite, to_frame([row]))) == 1
    assert frames.select(suite, to_frame([{**row, "spec": spec}])).empty


@pytest.mark.parametrize("value", [1, True, "0.9", None, [0.9], "none"])
def test_a_run_without_the_searched_value_is_no_trial_of_the_search(value: object) -> None:
    table = {"lr": "2^-8..2^-4", "search": {"beta": "0.8..0.95"}}
    suite = make_suite("muon", sampler="tpe", optimizers={"muon": table})
    row = record(suite.template("muon").point(-5, 0, beta=0.85), 32, -5.0)
    spec = {**row["spec"], "hp": {} if value == "none" else {"beta": value}}
    assert len(frames.select(suite, to_frame([row]))) == 1
    assert frames.select(suite, to_frame([{**row, "spec": spec}])).empty


def resolved() -> dict[str, Any]:
    """The manifest of a suite with a searched hyperparameter."""
    table = {"lr": "2^-8..2^-4", "search": {"beta1": "0.8..0.95"}}
    suite = resolve(
        parse_suite(
            {
                "name": "x",
                "claim": "none",
                "model": "gpt",
                "data": "python_source",
                "proxy": 32,
                "targets": [64],
                "steps": 10,
                "batch": 2,
                "sampler": "tpe",
                "optimizers": {"adamw": table},
            },
            {},
        ),
        Unread("0" * 64),
    )
    return {"schema": SCHEMA, **as_manifest(suite)}


NO_MANIFEST: dict[str, tuple[Any, ...]] = {
    "schema": ("1", None, 1.5, [1]),
    "claim": (1, "\ud800"),
    "model": (1, [], {}, {"name": 1}),
    "data": (1, {"name": "file"}, {"name": "file", "path": 1}),
    "proxy": (0, HUGE, "32"),
    "targets": (1, [0], [HUGE], ["64"], [32]),
    "waypoints": (1, [0], [HUGE], ["48"], [32], [64], [65]),
    "steps": (0, HUGE, None),
    "seeds": (0, 10**9),
    "optimizers": ({}, [], {"adamw": 1}, {"other": {"lr": "2^-8..2^-4"}}),
    "optimizers.adamw.lr": (1, "x", None),
    "optimizers.adamw.search": ({"beta1": 1}, {"no_such": "0.8..0.95"}, {"eps": "x"}),
    "thresholds": (1, {"tol": 1e300}, {"drift": 1e300}),
    "templates": (1, [], {"other": {}}, {"adamw": 1}, {"adamw": {}}),
    "templates.adamw.width": NO_COUNT,
    "templates.adamw.model": (1, {}, {"name": "gpt"}, {"name": "gpt", "revision": 1, "context": 0}),
    "templates.adamw.optimizer": ({"name": "adamw"}, {"revision": 1}),
    "templates.adamw.hp": (1, {}, {"beta1": 1}, {"beta1": "0.9"}),
    "templates.adamw.more": (1,),
    "templates.adamw.hp.eps": (float("nan"),),
    "bounds": (1, {}, {"adamw": 1}, {"adamw": []}, {"adamw": [1.0]}, {"adamw": [1.0, 0.0]}),
    "bounds.adamw": ([-1e300, 1.0], [None, 1.0], [1, 2, 3]),
    "changed": (1, {"trials": "x"}),
}


@pytest.mark.parametrize("place", NO_MANIFEST)
def test_a_manifest_of_the_wrong_shape_is_one_line_and_a_hint(place: str, tmp_path: Path) -> None:
    for value in NO_MANIFEST[place]:
        manifest = resolved()
        put(manifest, place, value)
        store = Store(tmp_path, "x")
        store.write_text("suite.json", json.dumps(manifest))
        for read in (lambda: write_report(["x"], tmp_path, None), store.read_manifest):
            error = failure(read)
            assert str(error).startswith(f"{tmp_path}/x/suite.json: damaged suite manifest (")
            assert error.hint == "delete that file; the next run writes it again"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 1, "claim": NaN}', "ÿ"])
def test_a_manifest_that_is_no_json_is_one_line_and_a_hint(text: str, tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.write_bytes("suite.json", text.encode("latin-1"))
    assert "damaged suite manifest (" in str(failure(store.read_manifest))


def test_a_manifest_over_depth_needs_the_depth_in_its_templates(tmp_path: Path) -> None:
    manifest = resolved()
    manifest |= {"axis": "depth", "width": 32, "proxy": 2, "targets": [4]}
    store = Store(tmp_path, "x")
    store.write_text("suite.json", json.dumps(manifest))
    assert isinstance(store.read_manifest(), Suite)
    del manifest["templates"]["adamw"]["model"]["n_layer"]
    store.write_text("suite.json", json.dumps(manifest))
    assert "(templates.adamw: model without n_layer, the axis)" in str(failure(store.read_manifest))


def test_a_manifest_without_templates_is_no_report(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.write_text("suite.json", json.dumps({**resolved(), "templates": {}, "bounds": {}}))
    error = failure(lambda: write_report(["x"], tmp_path, None))
    assert str(error) == f"{tmp_path}/x/suite.json: holds no resolved suite"


def test_a_damaged_manifest_is_an_error_of_the_command(tmp_path: Path) -> None:
    Store(tmp_path, "x").write_text("suite.json", json.dumps({**resolved(), "templates": {"a": 1}}))
    done = hptransfer("report", "x", "--results", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/x/suite.json: damaged suite manifest (")
    assert "\nhint: delete that file" in done.stderr


def test_a_suite_of_more_than_can_be_counted_is_refused() -> None:
    with pytest.raises(InputError, match="steps: got 1000000"):
        stored_suite({**{k: v for k, v in resolved().items() if k != "schema"}, "steps": 10**20})
