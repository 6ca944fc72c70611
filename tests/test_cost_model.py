"""The cost model of a suite: refusals, timings by workers, placements of runs."""

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from hptransfer.cost import machine
from hptransfer.cost.placement import Placement
from hptransfer.cost.speed import Speed
from hptransfer.errors import InputError
from hptransfer.run.session import Event, Finished, Session, Started
from hptransfer.run.workers import Ended, Job, Pool, Timing
from hptransfer.spec import Unit
from sessions import cores, session, tiny


def test_a_target_above_the_memory_is_refused_with_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tiny(tmp_path, targets=[4096], verify=False)
    monkeypatch.setattr(machine, "memory_of", lambda device: 300 * 2**20)
    with pytest.raises(
        InputError, match=r"transported_scion at width 4096 needs about [\d.]+ GiB, one example"
    ) as error:
        session(suite, tmp_path).expected()
    assert re.fullmatch(r"width (512|1024) would fit", error.value.hint)


def timing(waiting: Session, device: str = "cpu") -> Timing:
    return Timing(waiting.plan()[0], waiting.suite.data, device, Placement(2, 1), 2)


def test_a_step_is_timed_in_every_worker_at_once_while_none_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    waiting = session(tiny(tmp_path), tmp_path)
    own = timing(waiting)
    with waiting.pool as pool:
        found = pool.time(own)
        assert found.lanes == 2
        assert found.step > 0
        assert found.evaluation > 0
        monkeypatch.setattr(pool, "time", lambda timing: Speed(timing.lanes, 7.0, 8.0, 2))
        assert waiting.costs.speed(own.spec).step == 7.0
        assert session(tiny(tmp_path), tmp_path).costs.speed(own.spec).step == 7.0
        other = replace(own.spec, batch=3)
        busy = {pipe: Job(Unit((own.spec,)), {}, "cpu", Placement()) for pipe in pool._processes}
        monkeypatch.setattr(pool, "_busy", busy)
        assert 0 < waiting.costs.speed(other).step < 7


def test_the_processes_that_were_found_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hptransfer.cost.calibrate.LONG_STEP", 0.0)
    cores(monkeypatch, 2)
    seconds = {2: 4.0, 1: 1.0}

    def time(pool: Pool, timing: Timing) -> Speed:
        n = timing.placement.processes
        return Speed(timing.lanes, seconds.pop(n) if n == 1 else seconds[n], 0.1, n)

    monkeypatch.setattr(Pool, "time", time)
    for _ in range(2):  # the second would not find 1 in `seconds`
        waiting = session(tiny(tmp_path), tmp_path, workers=None)
        spec = waiting.plan()[0]
        assert waiting.costs.speed(spec) == Speed(1, 1.0, 0.1, 1)
        assert (waiting.costs.placement(spec).processes, waiting.costs.placement(spec).threads) == (
            1,
            2,
        )


class Answering:
    """A worker's pipe: warm at once, then its speed."""

    log: ClassVar[list[str]] = []

    def __init__(self, name: str, *answers: object) -> None:
        self.name, self.answers = name, list(answers)

    def send(self, question: object) -> None:
        self.log.append(f"{self.name} {question if isinstance(question, str) else 'timing'}")

    def recv(self) -> object:
        self.log.append(f"{self.name} answers")
        return self.answers.pop(0)

    def is_alive(self) -> bool:
        return True


def test_no_worker_starts_its_clock_before_all_are_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = session(tiny(tmp_path), tmp_path)
    pipes = [Answering("a", None, Speed(1, 1.0, 4.0)), Answering("b", None, Speed(1, 3.0, 5.0))]
    monkeypatch.setattr(waiting.pool, "_processes", {pipe: pipe for pipe in pipes})
    assert waiting.pool.time(timing(waiting)) == Speed(2, 2.0, 4.5, 2)
    assert Answering.log == [
        *("a timing", "b timing", "a answers", "b answers"),
        *("a go", "b go", "a answers", "b answers"),
    ]


def test_a_step_that_a_worker_cannot_time_is_one_line(tmp_path: Path) -> None:
    waiting = session(tiny(tmp_path), tmp_path)
    told = pytest.raises(InputError, match=r"^width 8, timed in 2 workers: device: cuda:99")
    with waiting.pool as pool, told:
        pool.time(timing(waiting, "cuda:99"))
    with session(tiny(tmp_path), tmp_path).pool as pool:
        for end, code, hint in (
            (Kill(signal.SIGKILL), -9, "too little memory"),
            (Kill(signal.SIGTERM), -15, "what it wrote to stderr says why"),
        ):
            pool.start(2)
            died = rf"timed in 2 workers: its process died \(exit code {code}\)$"
            with pytest.raises(InputError, match=died) as caught:
                pool.time(replace(timing(waiting), data=end))
            assert hint in caught.value.hint


class Kill:
    """Its unpickling ends the process."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = int(number)

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return signal.raise_signal, (self.number,)


def test_the_fewest_processes_that_were_chosen_are_refused_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_of", lambda device: 2**10)
    waiting = session(tiny(tmp_path), tmp_path, workers=2)
    with pytest.raises(InputError, match="has room for") as refused:
        waiting.costs.placements(waiting.plan()[0])
    assert "fewer workers" in refused.value.hint


def test_a_failed_run_is_recorded_with_the_placement_that_it_had(tmp_path: Path) -> None:
    """The record has neither the whole batch nor the threads of a calibration."""
    waiting = session(tiny(tmp_path), tmp_path)
    unit = Unit((waiting.plan()[0],))
    placement = Placement(2, 3, micro_batch=1, recompute=True)
    waiting._end(Ended(unit, "made up", placement=placement), {}, set())
    [env] = waiting.store.frame()["env"]
    assert unit.spec.batch == 2
    assert (env["micro_batch"], env["threads"], env["recompute"]) == (1, 3, True)


def test_a_worker_that_fails_tells_where_its_unit_was_placed(tmp_path: Path) -> None:
    waiting = session(tiny(tmp_path), tmp_path, workers=1)
    placement = Placement(1, 1, micro_batch=1)
    with waiting.pool as pool:
        pool.submit(Job(Unit((waiting.plan()[0],)), {"name": "none"}, "cpu", placement))
        [ended] = list(pool.messages(timeout=60))
    assert isinstance(ended, Ended)
    assert ended.error
    assert ended.placement == placement


def test_a_run_that_fits_alone_is_trained_alone_on_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 2)
    changes = {"targets": [64], "verify": False, "seeds": 2, "max_seeds": 2, "steps": 4}
    waiting = session(tiny(tmp_path, **changes), tmp_path, workers=None)
    cost = waiting.costs.cost(waiting.plan()[0].at("width", 64))
    room = int(1.1 / 0.9 * (cost.fixed + cost.activations))
    monkeypatch.setattr(machine, "memory_of", lambda device: room)
    beside = {8: 0, 64: 0}
    event: Event | None = None
    for event in waiting.run():
        if isinstance(event, Started):
            width = event.unit.spec.width
            beside[width] = max(beside[width], len(waiting.pool.jobs))
    assert event == Finished([])
    assert beside == {8: 2, 64: 1}
    rows = waiting.rows()
    threads = {n: {env["threads"] for env in own.env} for n, own in rows.groupby("n")}
    assert threads == {8: {1}, 64: {2}}
