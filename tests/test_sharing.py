"""Several processes on one suite train each run once, and take over runs of a dead one."""

import contextlib
import errno
import fcntl
import io
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from commanded import COMMAND
from hptransfer.cli.progress import Live
from hptransfer.records.store import Store
from hptransfer.run.session import Event, Finished, Started, Status
from hptransfer.run.sharing import Sharing
from hptransfer.run.workers import Ended
from hptransfer.spec import RunRecord, Unit
from hptransfer.suite.claim import SuiteTable
from sessions import session, tiny
from stored import record

# An optimizer whose worker waits before the training until the file GATE exists.
GATED = """
import multiprocessing
import os
import time

from hptransfer.optimizers.adamw import adamw


def gated(p, *, weight_decay: float = 0.1):
    \"\"\"AdamW behind a gate.\"\"\"
    gate = os.environ.get("GATE")
    while gate and multiprocessing.parent_process() and not os.path.exists(gate):
        time.sleep(0.02)
    return adamw(p, weight_decay=weight_decay)
"""
BREAKING = """
from types import SimpleNamespace

from hptransfer.optimizers.adamw import adamw


def breaking(p, *, weight_decay: float = 0.1):
    \"\"\"AdamW that breaks at its sixth step.\"\"\"
    rule = adamw(p, weight_decay=weight_decay)

    def update(g, state, w, step):
        if step.t == 5:
            raise RuntimeError("broken on purpose")
        return rule.update(g, state, w, step)

    parts = {name: getattr(rule, name) for name in ("init_weight", "init_state")}
    return SimpleNamespace(update=update, **parts)
"""
GATED_SUITE = """
claim = "a claim"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }
data = { name = "file", path = "FOLDER/text.txt" }
base = { width = 8 }
proxy = 8
targets = [16]
steps = 30
batch = 2
eval_tokens = 512
seeds = 2
max_seeds = 2

[optimizers.one]
use = "FOLDER/gated.py:gated"
lr = "2^-8..2^-4"
[optimizers.two]
use = "FOLDER/gated.py:gated"
lr = "2^-6..2^-2"
hp = { weight_decay = 0.2 }
"""


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    (tmp_path / "gated.py").write_text(GATED)
    (tmp_path / "text.txt").write_bytes(bytes(i * i % 251 for i in range(60_000)))
    path = tmp_path / "tiny.toml"
    path.write_text(GATED_SUITE.replace("FOLDER", str(tmp_path)))
    return path


def trained(folder: Path) -> Counter[str]:
    """Number of records per run."""
    paths = folder.glob("records-*.jsonl")
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return Counter(json.loads(line)["key"] for line in lines)


def traces(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(("claim-", "running-"))]


def four_runs(folder: Path) -> SuiteTable:
    table = {"transported_scion": {"lr": "2^-6..2^-3", "trials": 4}}
    return tiny(folder, steps=3, optimizers=table)


def up_to_start(events: Iterator[Event]) -> Started:
    return next(event for event in events if isinstance(event, Started))


def up_to_waiting(events: Iterator[Event]) -> Status:
    return next(event for event in events if isinstance(event, Status) and event.awaited)


def test_the_plan_leaves_out_what_another_process_trains(tmp_path: Path) -> None:
    first, second = (session(four_runs(tmp_path), tmp_path, workers=1) for _ in range(2))
    events = first.run()
    unit = up_to_start(events).unit
    with second.sharing.begin(), second.pool as pool:
        units, awaited = second._todo(pool, {}, set())
        assert [spec.key for unit in units for spec in unit.runs] == [
            spec.key for spec in second.plan() if spec.key != unit.spec.key
        ]
        assert awaited == [(unit.spec, f"pid {os.getpid()}")]
        assert not second.sharing.news()
        events.close()  # as Ctrl-C does
        assert second.sharing.news()
        units, awaited = second._todo(pool, {}, set())
        assert sum(unit.lanes for unit in units) == 4
        assert awaited == []
    assert traces(tmp_path / "tiny") == []


@pytest.mark.parametrize("locks", [True, False])
def test_a_session_waits_for_the_runs_of_another_and_claims_nothing_meanwhile(
    tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if not locks:
        monkeypatch.setattr(fcntl, "flock", refuse)
    first, second = (session(four_runs(tmp_path), tmp_path, workers=1) for _ in range(2))
    early, late = first.run(), second.run()
    unit = up_to_start(early).unit
    status = up_to_waiting(late)
    assert status.awaited == [(unit.spec, f"pid {os.getpid()}")]
    assert len(status.others) == 1
    assert status.done == 3
    assert second.sharing.claims._held == {}
    event: Event | None = None
    for event in early:
        if isinstance(event, RunRecord):
            assert event.key not in first.sharing.claims._held
    assert event == Finished([])
    assert list(late)[-1] == Finished([])
    assert set(trained(tmp_path / "tiny").values()) == {1}
    assert len(trained(tmp_path / "tiny")) == 4
    assert traces(tmp_path / "tiny") == []


def test_a_unit_is_for_every_worker_of_every_process(tmp_path: Path) -> None:
    suite = four_runs(tmp_path)
    alone = session(suite, tmp_path, workers=1, lanes=4)
    with alone.sharing.begin(), alone.pool as pool:
        assert [unit.lanes for unit in alone._todo(pool, {}, set())[0]] == [4]
        with session(suite, tmp_path).sharing.begin():
            assert [unit.lanes for unit in alone._todo(pool, {}, set())[0]] == [2, 2]


def test_a_run_that_was_recorded_after_the_look_is_not_claimed(tmp_path: Path) -> None:
    writer = Store(tmp_path, "x")
    sharing = Sharing(Store(tmp_path, "x"))
    old = record(3, status="failed", finished=1.0)
    writer.append(old)
    with sharing.begin():
        sharing.look()
        specs = [record(seed).spec for seed in range(4)]
        writer.append(record(0))
        writer.append(record(1, status="failed", error="Traceback\n  line\nOSError: full\n"))
        assert sharing.news()
        assert sharing.claim(Unit(tuple(specs))) == Unit((specs[2], specs[3]))
        assert sharing.claims._held.keys() == {specs[2].key, specs[3].key}
        assert sharing.news(), "the plan was not right"
        assert sharing.over() == {specs[0].key, specs[1].key}
        assert sharing.error(specs[1].key) == "OSError: full"
        writer.append(replace(old, finished=2.0))
        assert specs[3].key in sharing.over(), "it was tried again, and failed again"


def test_a_run_that_another_claimed_after_the_look_and_left_is_planned_again(
    tmp_path: Path,
) -> None:
    one, two = (Sharing(Store(tmp_path, "x")) for _ in range(2))
    spec = record().spec
    with one.begin(), two.begin():
        one.look()
        assert two.claim(Unit((spec,))) == Unit((spec,))
        assert one.claim(Unit((spec,))) is None
        two.release([spec])
        assert one.news(), "all is as it was at the look, but the unit is no longer in the plan"


def test_a_run_that_fails_elsewhere_is_not_tried_here_but_by_the_next_session(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "breaking.py"
    plugin.write_text(BREAKING)
    table = {"breaking": {"use": f"{plugin}:breaking", "lr": "2^-6..2^-5", "trials": 2}}
    suite = tiny(tmp_path, optimizers=table)

    first, second, third = (session(suite, tmp_path, workers=1) for _ in range(3))
    early, late = first.run(), second.run()
    unit = up_to_start(early).unit
    up_to_waiting(late)
    for event in early:
        if isinstance(event, Ended):
            assert first.sharing.claims._held == {}
    finished = list(late)[-1]
    assert isinstance(finished, Finished)
    errors = {ended.unit.spec.key: ended.error for ended in finished.failed}
    assert errors.keys() == {spec.key for spec in second.plan()}
    assert errors[unit.spec.key] == "RuntimeError: broken on purpose"
    assert set(trained(tmp_path / "tiny").values()) == {1}

    last = list(third.run())[-1]
    assert isinstance(last, Finished)
    assert len(last.failed) == 2
    assert set(trained(tmp_path / "tiny").values()) == {2}


@pytest.mark.parametrize("known", [0, 1])
def test_the_display_says_how_many_work_and_what_is_waited_for(tmp_path: Path, known: int) -> None:
    shown = session(four_runs(tmp_path), tmp_path)
    specs = [(spec, "pid 1") for spec in shown.plan()]
    text, now = io.StringIO(), [0.0]
    with Live(Console(file=text, width=60), shown, False, known, clock=lambda: now[0]) as live:
        live.show(Status(0, 4, 1.0, ["pid 1 since 10:31"]))
        live.show(Status(0, 4, 1.0, ["pid 1 since 10:31"], specs[:1]))
        live.show(Status(0, 4, 1.0, ["pid 1 since 10:31"], specs[:1]))  # once
        for now[0] in (59.0, 60.0, 61.0, 119.0):
            live.show(Status(0, 4, 1.0, ["pid 1 since 10:31", "pid 2 since 10:32"]))
        live.show(Status(1, 4, 1.0, ["pid 2 since 10:32"], specs[:3]))
        now[0] = 120.0
        live.show(Status(1, 4, 1.0, []))
    lines = [
        "note: with this one 2 processes work on tiny (pid 1 since 10:31) and share its runs",
        "waits for transported_scion width 8  2^-6 of pid 1",
        "note: with this one 3 processes work on tiny (pid 1 since 10:31, pid 2 since 10:32) "
        "and share its runs",
        "waits for transported_scion width 8  2^-6 of pid 1 and 2 other runs",
        "note: this process alone works on tiny now",
    ]
    assert text.getvalue().splitlines() == lines[known:]


@contextlib.contextmanager
def started(
    suite: Path, count: int, gate: str = "", *arguments: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of the command line, and all their workers, until the block ends."""
    command = [*COMMAND, "run", str(suite), "--workers", "1", "--lanes", "1", *arguments]
    processes = [
        subprocess.Popen(
            command,
            cwd=suite.parent,
            env={**os.environ, "GATE": gate},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def until_claimed(folder: Path, count: int, processes: list[subprocess.Popen[str]]) -> None:
    """Wait until `count` runs have a claim, while all processes live."""
    while len(list(folder.glob("claim-*"))) < count:
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 6])
def test_processes_at_once_train_each_run_once(gated: Path, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "results" / "tiny"
    gate = tmp_path / "gate"
    with started(gated, count, str(gate), "--steps", "2") as processes:
        until_claimed(folder, count, processes)
        gate.touch()  # all of them are at work
        errors = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * count, errors
    assert any(f"{count} processes work on tiny" in text for text in errors), errors
    found = trained(folder)
    assert len(found) > 20
    assert set(found.values()) == {1}
    assert set(Store(tmp_path / "results", "tiny").frame().status) == {"done"}
    assert traces(folder) == []


@pytest.mark.slow
def test_a_process_takes_over_the_run_of_one_that_is_killed(gated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "tiny"
    shut = str(tmp_path / "shut")
    with started(gated, 1, shut, "--steps", "2", "--optimizer", "one") as [killed]:
        until_claimed(folder, 1, [killed])
        with started(gated, 1, "", "--steps", "2", "--optimizer", "one") as [heir]:
            assert heir.stderr is not None
            lines = iter(heir.stderr.readline, "")
            waits = next(line for line in lines if line.startswith("waits for"))
            assert f"of pid {killed.pid}" in waits
            killed.kill()
            errors = "".join(lines)
            heir.wait()
            assert heir.returncode == 0, errors
    found = trained(folder)
    assert set(found.values()) == {1}
    assert len(list(folder.glob("records-*.jsonl"))) == 1
    assert traces(folder) == []
