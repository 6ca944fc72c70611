"""Every axis of a suite, from the command line to its verdicts and its report."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from hptransfer import cli
from hptransfer.records.store import Store

SUITE = """
claim = "a claim"
model = { name = "MODEL" }
data = DATA
base = { width = 8 }
AXIS
eval_tokens = 512
seeds = 2
max_seeds = 2
trials = 3

[optimizers.adamw]
lr = "2^-7..2^-5"
[optimizers.scion_unconstrained]
lr = "2^-5..2^-3"
"""
GPT = 'gpt", n_layer = 1, head_size = 8, context = 16, residual_base = 1, sqrt2 = true'
DEPTH = 'axis = "depth"\nwidth = 8\nproxy = 1\ntargets = [3]\nsteps = 3\nbatch = 2'

AXES = {
    "width": ('axis = "width"\nproxy = 8\ntargets = [16]\nsteps = 3\nbatch = 2', [8, 16]),
    "depth": (DEPTH, [1, 3]),
    "batch_size": (
        'axis = "batch_size"\nwidth = 8\nproxy = 2\ntargets = [4]\nsteps = 3\nbatch = 1',
        [2, 4],
    ),
    "steps": (
        'axis = "steps"\nwidth = 8\nproxy = 3\ntargets = [5]\nsteps = 1\nbatch = 2',
        [3, 5],
    ),
}


def write(folder: Path, axis: str, model: str = GPT, data: str = "") -> Path:
    """A tiny suite; `model`: the rest of the model's table after its name."""
    text = folder / "text.txt"
    text.write_bytes(bytes(i * i % 251 for i in range(60_000)))
    data = data or f'{{ name = "file", path = "{text}" }}'
    suite = SUITE.replace('MODEL"', model).replace("DATA", data).replace("AXIS", axis)
    path = folder / "tiny.toml"
    path.write_text(suite)
    return path


def hptransfer(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: object) -> int:
    """The command line in this process; its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["hptransfer", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_goes_from_a_suite_to_verdicts_and_a_report(
    axis: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, (proxy, target) = AXES[axis]
    suite = write(tmp_path, table)
    assert hptransfer(monkeypatch, tmp_path, "run", suite, "--workers", 1, "--lanes", 4) == 0
    shown = capsys.readouterr()
    word = axis.replace("_", " ")
    told = {n: f"{n} steps" if axis == "steps" else f"{word} {n}" for n in (proxy, target)}
    for label in ("adamw", "scion_unconstrained"):
        line = next(line for line in shown.out.splitlines() if line.startswith(f"{label}: "))
        assert told[proxy] in line or told[target] in line

    folder = tmp_path / "results" / "tiny"
    metrics = json.loads((folder / "metrics.json").read_text())["suites"][0]
    assert metrics["runs"]["missing"] == []
    judged = {(t["optimizer"], t["proxy"], t["target"]): t["verdict"] for t in metrics["transfers"]}
    assert set(judged) == {(o, proxy, target) for o in ("adamw", "scion_unconstrained")}
    assert set(judged.values()) <= {"censored", "drifts", "inconclusive", "transfers"}
    assert set(pd.read_csv(folder / "runs.csv")["n"]) == {proxy, target}
    assert told[target] in (folder / "report.html").read_text()

    runs = Store(tmp_path / "results", "tiny").frame()
    assert set(runs.status) == {"done"}
    own = {"width": "width", "batch_size": "batch", "steps": "steps"}
    for part in runs.spec:
        values = {**{k: part[k] for k in own.values()}, "n_layer": part["model"]["n_layer"]}
        moving = values.pop(own.get(axis, "n_layer"))
        assert moving in (proxy, target), "the axis is what varies"
        still = {"width": 8, "batch": 2, "steps": 3, "n_layer": 1}
        assert values == {k: v for k, v in still.items() if k in values}, "and nothing else"
    curves = [len(curve) for curve in runs.curve]
    if axis == "steps":
        assert set(curves) == {3, 5}


def test_a_deeper_run_has_more_blocks_and_thinner_branches(tmp_path: Path) -> None:
    from hptransfer.datasets import Unread
    from hptransfer.models.gpt import GPT
    from hptransfer.suite.file import load_suite
    from hptransfer.suite.resolved import resolve
    from hptransfer.train.build import model_factory
    from units import tokens

    suite = resolve(load_suite(str(write(tmp_path, DEPTH))), Unread())
    for depth in (1, 3):
        model = model_factory(suite.template("adamw", depth), tokens())(8)
        assert isinstance(model, GPT)
        assert [block.branch for block in model.blocks] == [1 / depth] * depth


IMAGES = '"mnist5k"'
WRONG = {
    "a depth axis on a model without one": (
        DEPTH,
        'mlp"',
        IMAGES,
        "axis: 'depth' needs a model with a field n_layer, 'mlp' has none",
        "models with one: gpt, vit",
    ),
    "a depth axis without a width": (
        DEPTH.replace("width = 8\n", ""),
        GPT,
        "",
        "width: missing on the axis 'depth'",
        "for instance width = 64",
    ),
    "a negative residual base": (
        DEPTH,
        GPT.replace("residual_base = 1", "residual_base = -1"),
        "",
        "model.residual_base: got -1, allowed: 0 to 1000",
        "the default is 0",
    ),
    "a fractional residual base": (
        DEPTH,
        GPT.replace("residual_base = 1", "residual_base = 1.5"),
        "",
        "model.residual_base: got 1.5 (float), needs a int",
        "the default is 0",
    ),
    "a residual base on a model without branches": (
        AXES["width"][0],
        'mlp", residual_base = 2',
        IMAGES,
        "model.residual_base: 'mlp' has no field 'residual_base'",
        "fields of mlp: in_shape, n_classes, sqrt2",
    ),
    "a width that the groups do not divide": (
        AXES["width"][0].replace("16", "20"),
        'cnn"',
        IMAGES,
        "width 20 is not a multiple of group 8",
        "the nearest widths are 16 and 24",
    ),
    "a patch that does not divide the images": (
        AXES["width"][0],
        'vit", head_size = 8, patch = 5',
        IMAGES,
        "model.patch: 5 does not divide images of 28 x 28",
        "patches that do: 1, 2, 4, 7, 14, 28",
    ),
    "an axis value of nothing": (
        DEPTH.replace("[3]", "[0]"),
        GPT,
        "",
        "targets: got 0, needs values of at least 1",
        "for instance targets = [2]",
    ),
    "more layers than a model admits": (
        DEPTH.replace("[3]", "[5000]"),
        GPT,
        "",
        "targets.n_layer: got 5000, allowed: 1 to 1000",
        "the default is 2",
    ),
    "images for a model of text": (
        AXES["width"][0],
        'gpt", head_size = 8',
        IMAGES,
        "model 'gpt': reads tokens, and the data 'mnist5k' are images",
        "models of images: mlp, vit, cnn",
    ),
    "text for a model of images": (
        AXES["width"][0],
        'vit", head_size = 8',
        "",
        "model 'vit': text data need its field `context`",
        "give the model's function an argument such as context: int = 64",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_suite_that_its_model_or_axis_does_not_admit_is_one_line_and_a_hint(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    axis, model, data, message, hint = WRONG[case]
    write(tmp_path, axis, model, data)
    assert hptransfer(monkeypatch, tmp_path, "run", "tiny.toml", "--lanes", 1) == 2
    shown = capsys.readouterr()
    end = shown.err[shown.err.index("error: ") :]
    assert end.removeprefix("error: ").removeprefix("tiny.toml: ") == f"{message}\n\nhint: {hint}\n"
    assert shown.out == ""
    assert not (tmp_path / "results").exists()
