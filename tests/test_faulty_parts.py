"""A part of one's own with a wrong result or an exception: one line that names it."""

import re
from pathlib import Path

import pytest

from commanded import hptransfer
from hptransfer.cost import cost_model
from hptransfer.run.session import Options, Session
from hptransfer.suite.file import load_suite

FAULTY = """
from types import SimpleNamespace


def none(p, *, beta: float = 0.9):
    "Gives nothing."


def half(p, *, beta: float = 0.9):
    "Gives half a rule."
    return SimpleNamespace(init_weight=None)


def raises(p, *, beta: float = 0.9):
    "Raises."
    raise KeyError("x")


def data():
    "Raises."
    return 1 / 0
"""
FAULTS = {
    'use = "faulty.py:none"': "optimizer 'none': gave a NoneType without init_weight, update",
    'use = "faulty.py:half"': "'half': gave a SimpleNamespace without update",
    'use = "faulty.py:raises"': "'raises': a step failed at .*faulty.py:16: KeyError: 'x'",
    'data = "faulty.py:data"': "data 'faulty.py:data': calling it failed at .*ZeroDivisionError",
    'data = "torch.optim:Adam"': "data 'torch.optim:Adam': calling it failed at .*: TypeError: ",
}


@pytest.mark.parametrize("line", FAULTS)
@pytest.mark.parametrize("command", ["plan", "coords"])
def test_a_part_that_gives_or_raises_something_else_is_one_line(
    line: str, command: str, suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    text = suite.read_text().replace("steps = 3", "steps = 5")
    if line.startswith("use"):
        text = text.replace("[optimizers.scion]", f"[optimizers.scion]\n{line}")
    else:
        text = re.sub(r"^data = .*", line, text, flags=re.MULTILINE)
    suite.write_text(text)
    done = hptransfer(command, suite, "--optimizer", "scion", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(rf"^error: .*{FAULTS[line]}.*\n\nhint: .+\n\Z", done.stderr, re.MULTILINE)


def test_a_fault_of_our_own_parts_is_no_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(cost_model, "count", fails)
    chosen = load_suite("quickstart", {"steps": 7})
    with pytest.raises(KeyError, match="a bug"):
        Session(chosen, Options(tmp_path / "results", device="cpu"), ["adamw"]).expected()
