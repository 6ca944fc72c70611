"""The command line as a user runs it, and a suite of a second."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from hptransfer import cli
from hptransfer.cost import machine
from hptransfer.records.store import Store

COMMAND = [sys.executable, "-m", "hptransfer"]

SUITE = """
claim = "a claim"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }
data = { name = "file", path = "TEXT" }
base = { width = 8 }
proxy = 8
targets = [16]
steps = 3
batch = 2
eval_tokens = 512
seeds = 2
max_seeds = 2
negative_control = "adamw"

[optimizers.adamw]
lr = "2^-8..2^-4"
[optimizers.scion]
lr = "2^-6..2^-2"
"""


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def hptransfer(*arguments: object, cwd: Path) -> Done:
    """The command in this process, which has all imports behind it."""
    captured = io.StringIO(), io.StringIO()
    words = ["hptransfer", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "stdin", io.StringIO())
        patch.setenv("COLUMNS", "100")
        patch.setattr(machine, "usable_cores", lambda: 1)  # one core, one thread
        stack.enter_context(contextlib.redirect_stdout(captured[0]))
        stack.enter_context(contextlib.redirect_stderr(captured[1]))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, captured[0].getvalue(), captured[1].getvalue())


def frame(folder: Path) -> pd.DataFrame:
    return Store(folder / "results", "tiny").frame()
