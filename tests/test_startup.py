"""Modules that a command loads before it works, and its objects when it ends."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from commands import call

CALL = """
import sys

sys.argv = ["hptransfer", *{arguments}]
from hptransfer.cli import main

try:
    main()
except SystemExit:
    heavy = sorted({{"torch", "pandas", "matplotlib", "optuna"}} & set(sys.modules))
    print("LOADED", heavy)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_a_command_without_training_loads_nothing_heavy(
    arguments: list[str], tmp_path: Path
) -> None:
    code = CALL.format(arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["plan", "none"], 2)])
def test_a_command_leaves_nothing_for_the_last_search_for_cycles(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        assert call(arguments, monkeypatch) == code
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
    assert gc.get_freeze_count() == 0
