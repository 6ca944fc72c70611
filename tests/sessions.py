"""Sessions on a tiny suite, and machines with other numbers of cores."""

from pathlib import Path
from typing import TypedDict, Unpack

import pytest

from hptransfer.cost import machine
from hptransfer.run.session import Options, Session
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import parse_suite


class SessionOptions(TypedDict, total=False):
    """The fields of `Options` that a test may choose."""

    device: str
    workers: int | None
    lanes: int | None
    storage: str | None
    snapshot_seconds: float


def session(suite: SuiteTable, folder: Path, **options: Unpack[SessionOptions]) -> Session:
    """On the CPU, by default in two workers of one lane."""
    chosen: SessionOptions = {"device": "cpu", "workers": 2, "lanes": 1, **options}
    return Session(suite, Options(folder, **chosen), list(suite.optimizers))


def tiny(folder: Path, **changes: object) -> SuiteTable:
    """One optimizer and two runs of a GPT of width 8."""
    text = folder / "text.txt"
    text.write_bytes(bytes(i * i % 251 for i in range(60_000)))
    table: dict[str, object] = {
        "name": "tiny",
        "claim": "none",
        "model": {"name": "gpt", "n_layer": 1, "head_size": 8, "context": 16},
        "data": {"name": "file", "path": str(text)},
        "base": {"width": 8},
        "proxy": 8,
        "targets": [],
        "steps": 30,
        "batch": 2,
        "seeds": 1,
        "eval_tokens": 64,
        "optimizers": {"transported_scion": {"lr": "2^-4..2^-3", "trials": 2}},
    }
    return parse_suite({**table, **changes}, {})


def cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the machine have this number of cores."""
    monkeypatch.setattr(machine, "usable_cores", lambda: count)
