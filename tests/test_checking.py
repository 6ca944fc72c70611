"""The coords command: table, sentences, files and exit code."""

import json
from pathlib import Path

import pytest

from commands import call

FEW = ["--seeds", "1", "--steps", "5", "--width", "32", "--width", "64"]


def test_coords_fails_where_the_widths_are_too_few_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["coords", *FEW, "--optimizer", "scion"], monkeypatch) == 1
    shown = capsys.readouterr()
    assert "coords: slopes of log2 RMS over log2 width, head from zero" in shown.out
    assert "scion: too few widths (indicative: n = 1 seed)" in shown.out
    assert "[2/2] scion width 64 seed 0" in shown.err
    assert "error: scion: not what the suite states" in shown.err
    assert (tmp_path / "results/coords/coords.svg").read_text().startswith("<svg")


def test_what_is_named_twice_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    twice = ["--width", "64", "--optimizer", "scion", "--optimizer", "scion"]
    assert call(["coords", *FEW, *twice], monkeypatch) == 1
    steps = [x for x in capsys.readouterr().err.splitlines() if x.startswith("[")]
    assert steps == ["[1/2] scion width 32 seed 0", "[2/2] scion width 64 seed 0"]


def test_coords_passes_where_passes_pass_and_controls_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
claim = "SP AdamW drifts, muP-AdamW does not"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 8 }
data = "python_source"
base = { width = 32 }
proxy = 32
steps = 6
batch = 4
controls = ["adamw"]

[optimizers.adamw]
lr = "2^-10..2^-4"

[optimizers.adamw_mup]
lr = "2^-10..2^-4"
"""
    (tmp_path / "small.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert call(["coords", "small.toml", "--json", "--quiet"], monkeypatch) == 0
    result = json.loads(capsys.readouterr().out)
    verdicts = {v["optimizer"]: (v["verdict"], v["expected"]) for v in result["verdicts"]}
    assert verdicts == {"adamw": ("fails", True), "adamw_mup": ("passes", True)}
    widths = {row["narrowest"] for row in result["slopes"]}, {r["widest"] for r in result["slopes"]}
    assert widths == ({32}, {512})
    # a control that passes is a surprise; so is any other optimizer that fails
    for controls, label in (("", "adamw"), ('controls = ["adamw_mup"]', "adamw_mup")):
        (tmp_path / "small.toml").write_text(text.replace('controls = ["adamw"]', controls))
        assert call(["coords", "small.toml", "--quiet", "--optimizer", label], monkeypatch) == 1
        assert f"error: {label}: not what the suite states" in capsys.readouterr().err


def test_a_control_that_is_no_label_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text(
        'claim = "x"\nmodel = "gpt"\ndata = "python_source"\nproxy = 32\nsteps = 5\nbatch = 4\n'
        'controls = ["adam"]\n[optimizers.adamw]\nlr = "2^-9..2^-4"\n'
    )
    monkeypatch.chdir(tmp_path)
    assert call(["coords", "s.toml"], monkeypatch) == 2
    assert "controls: no optimizer is labelled 'adam'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "afile").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hptransfer.train.coords.measure", None)
    assert call(["coords", *FEW, "--results", "afile"], monkeypatch) == 2
    assert "afile: is a file, needs a folder" in capsys.readouterr().err
