"""The results of a finished study: TOML per parameter, a script that runs, BibTeX."""

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from commands import call
from hptransfer import registry
from hptransfer.cite import bibtex
from hptransfer.export import Setting, to_python
from hptransfer.suite.file import load_suite, suite_names
from units import spec

SUITE = """
claim = "it holds"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 8 }
data = { name = "file", path = "TEXT" }
base = { width = 8 }
proxy = 8
targets = [16]
steps = 4
batch = 4
eval_tokens = 512

[optimizers.mup]
use = "adamw_mup"
lr = "2^-9..2^-6"
warmup = 0.25
clip = 1.0

[optimizers.transported_scion]
lr = "2^-5..2^-3"
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "mine.toml").write_text(SUITE.replace("TEXT", str(tiny_text)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(["tune", "mine.toml", "--quiet", "--trials", "4"], patch) == 0
    return folder


def test_the_toml_holds_lr_init_beta_and_decay_of_every_parameter(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tuned)
    assert call(["export", "mine.toml", "--to", "16"], monkeypatch) == 0
    table = tomllib.loads(capsys.readouterr().out)
    assert list(table) == ["mup", "transported_scion"]
    mup = table["mup"]
    assert mup["width"] == 16
    assert mup["lr"] == 2.0 ** mup["log2_lr"]
    assert mup["source"].startswith("tuned at width 8 on ")
    named = mup["parameters"]
    assert set(named) == set(table["transported_scion"]["parameters"])
    assert len(named) == 8
    # muP halves the hidden and output lr at twice the base width
    assert named["embedding.weight"]["lr"] == pytest.approx(mup["lr"])
    assert named["blocks.0.q.weight"]["lr"] == pytest.approx(mup["lr"] / 2)
    assert named["head.weight"]["lr"] == pytest.approx(mup["lr"] / 2)
    for values in (*named.values(), *table["transported_scion"]["parameters"].values()):
        assert {"role", "lr", "init", "decay"} <= set(values)
        assert any(key.startswith("beta") for key in values)


@pytest.mark.parametrize("label", ["mup", "transported_scion"])
def test_the_script_runs_and_builds_the_same_weights(
    label: str, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tuned)
    arguments = ["export", "mine.toml", "--optimizer", label, "--python", "--out", "made.py"]
    assert call(arguments, monkeypatch) == 0
    done = subprocess.run(
        [sys.executable, "made.py"], capture_output=True, text=True, cwd=tuned, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 2.0 < float(done.stdout) < 12.0
    space: dict[str, object] = {"__name__": "made"}
    exec((tuned / "made.py").read_text(), space)  # the script is ours
    model = space["model"]
    assert isinstance(model, torch.nn.Module)
    assert model.get_parameter("head.weight").shape == (256, 16)


ROLELESS = '''
from torch import nn


def roleless(width: int, *, in_shape: tuple[int, ...] = (4,), n_classes: int = 3) -> nn.Module:
    """A model without roles()."""
    return nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, n_classes)
    )
'''


@pytest.mark.parametrize("width", [8, 16])
def test_the_script_of_a_foreign_model_runs_at_the_base_width_too(
    width: int, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(ROLELESS)
    model = f"{tmp_path}/mine.py:roleless"
    run = spec("adamw_mup", "mlp", width=width)
    run = dataclasses.replace(run, model={"name": model, "revision": 1})
    dims = {"in_shape": (4,), "n_classes": 3}
    text = to_python(Setting("mup", run, "adamw_mup", model, {}, dims, "tuned"))
    assert ("wider" in text) == (width == 8)
    space: dict[str, object] = {"__name__": "made"}
    exec(text, space)  # the script is ours
    assert isinstance(space["optimizer"], torch.optim.Optimizer)


def test_a_script_is_of_one_optimizer(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tuned)
    assert call(["export", "mine.toml", "--python"], monkeypatch) == 2
    assert "add --optimizer, one of mup, transported_scion" in capsys.readouterr().err


def test_what_has_not_been_tuned_cannot_be_exported(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tuned)
    assert call(["export", "mine.toml", "--from", "32"], monkeypatch) == 2
    shown = capsys.readouterr().err
    assert "mup has not been tuned at width 32" in shown
    hint = shown.partition("hint: hptransfer ")[2].split()
    assert call([*hint, "--dry-run"], monkeypatch) == 0, "the hint can be typed"


def test_a_file_that_cannot_be_written_is_one_line(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tuned)
    assert call(["export", "mine.toml", "--out", "no/such/folder.toml"], monkeypatch) == 2
    assert "error: --out no/such/folder.toml: No such file" in capsys.readouterr().err


def test_every_built_in_optimizer_cites_a_source(tmp_path: Path) -> None:
    for name in registry.BUILTINS["optimizer"]:
        path = tmp_path / "one.toml"
        path.write_text(SUITE.replace('mup]\nuse = "adamw_mup"', f'own]\nuse = "{name}"'))
        text = path.read_text().partition("[optimizers.transported_scion]")[0]
        path.write_text(text.replace("2^-9..2^-6", "2^-9..2^-1").replace("clip = 1.0", ""))
        entries = bibtex(load_suite(str(path))).count("@")
        assert entries > 2, name  # Optuna and the sources of the model are always there


def test_cite_gives_the_methods_of_a_suite_and_no_others() -> None:
    for name in suite_names():
        entries = bibtex(load_suite(name))
        assert "akiba2019optuna" in entries
        labels = {t.use or k for k, t in load_suite(name).optimizers.items()}
        assert ("chen2023lion" in entries) == ("lion" in labels)
        assert ("zhang2026transported" in entries) == ("transported_scion" in labels)
        assert entries.count("{") == entries.count("}")
