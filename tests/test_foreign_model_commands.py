"""Foreign models through the commands: notes, refusals in one line, encodings of files."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from commanded import hptransfer
from foreign import HERE, address
from hptransfer.cost import calibrate

SUITE = """
claim = "it holds"
model = { name = "MODEL", context = 8 }
data = { name = "file", path = "TEXT" }
base = { width = 16 }
proxy = 16
targets = [32]
steps = 5
batch = 4
eval_tokens = 64
seeds = 2
max_seeds = 2
verify = false
[optimizers.adamw]
lr = "2^-7..2^-6"
"""


@pytest.fixture
def suite_of(tmp_path: Path, tiny_text: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        path = tmp_path / "h.toml"
        path.write_text(SUITE.replace("MODEL", address(name)).replace("TEXT", str(tiny_text)))
        return path

    return write


@pytest.mark.parametrize("name", ["lstm", "moe", "reads_a_number", "albert", "frozen"])
def test_a_run_trains_what_neither_maps_nor_runs_without_numbers_and_says_so(
    name: str,
    suite_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite = suite_of(name)
    monkeypatch.setattr(calibrate, "LONG_STEP", math.inf)  # lanes are tried on a slow machine too
    done = hptransfer("tune", suite, "--trials", "2", "-q", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("counted in a step on the CPU" in done.stderr) == (name in ("moe", "reads_a_number"))
    assert ("trains one run at a time" in done.stderr) == (name in ("lstm", "moe"))
    assert "Traceback" not in done.stderr


def test_chosen_lanes_are_the_only_ones_that_are_tried(
    suite_of: Callable[[str], Path], tmp_path: Path
) -> None:
    suite = suite_of("lstm")
    one = hptransfer("tune", suite, "--trials", "2", "-q", "--yes", "--lanes", "1", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    assert "note" not in one.stderr
    four = hptransfer("plan", suite, "--lanes", "4", cwd=tmp_path)
    assert four.returncode == 2
    assert re.search(r"^error: model 'lstm': 4 lanes fail \(RuntimeError", four.stderr)
    assert "hint: 1 lane trains one run at a time (--lanes)" in four.stderr


@pytest.mark.parametrize("name", ["pair", "noisy", "sparse_by_function", "GPT", "complex_weights"])
@pytest.mark.parametrize("command", ["plan", "tune", "coords"])
def test_a_refused_model_is_one_line_in_every_command(
    name: str, command: str, suite_of: Callable[[str], Path], tmp_path: Path
) -> None:
    suite = suite_of(name)
    flags = {"plan": [], "tune": ["-q", "--yes"], "coords": ["-q"]}[command]
    done = hptransfer(command, suite, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r"^error: .+\n\nhint: .+\n\Z", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"# -*- coding: latin-1 -*-\n# \xe9\n"])
def test_a_plug_in_in_any_encoding_that_python_reads_is_read(
    mark: bytes, tmp_path: Path, tiny_text: Path
) -> None:
    (tmp_path / "marked.py").write_bytes(mark + (HERE / "zoo_models.py").read_bytes())
    text = SUITE.replace("MODEL", "marked.py:tied_gpt").replace("TEXT", str(tiny_text))
    (tmp_path / "h.toml").write_text(text, encoding="utf-8-sig")
    done = hptransfer("plan", "h.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_plug_in_that_is_no_python_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_bytes(b"x = '\x00'\n")
    done = hptransfer("validate", "bad.py:x", cwd=tmp_path)
    assert done.returncode == 2
    assert "the file has to be valid Python" in done.stderr
