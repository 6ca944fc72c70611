"""What runs cost, the share of the device that each takes, and who trains at once."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from hptransfer.cost.estimate import Fit, Share, Speed
from hptransfer.errors import InputError
from hptransfer.run import costs
from hptransfer.run.session import Finished, Session, Started
from hptransfer.run.workers import Job, Pool, Probe
from sessions import cores, session, tiny


def test_a_target_above_the_memory_is_refused_with_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tiny(tmp_path, targets=[4096], verify=False)
    monkeypatch.setattr(costs, "memory_of", lambda device: 300 * 2**20)
    with pytest.raises(
        InputError, match=r"transported_scion at width 4096 needs about [\d.]+ GiB, one example"
    ) as error:
        session(suite, tmp_path).expected()
    assert re.fullmatch(r"width (512|1024) would fit", error.value.hint)


def probe(waiting: Session, device: str = "cpu") -> Probe:
    spec = waiting.plan()[0]
    return Probe(spec, waiting.suite.data, device, Share(2, 1, waiting.costs.how(spec)), 2)


def test_a_step_is_timed_in_every_worker_at_once_while_none_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    waiting = session(tiny(tmp_path), tmp_path)
    own = probe(waiting)
    with waiting.pool as pool:
        found = pool.measure(own)
        assert found.lanes == 2
        assert found.step > 0
        assert found.evaluation > 0
        monkeypatch.setattr(pool, "measure", lambda probe: Speed(probe.lanes, 7.0, 8.0, 2))
        assert waiting.costs.speed(own.spec).step == 7.0
        assert session(tiny(tmp_path), tmp_path).costs.speed(own.spec).step == 7.0
        other = replace(own.spec, batch=3)
        busy = {pipe: Job([own.spec], {}, "cpu", 1, None) for pipe in pool._processes}
        monkeypatch.setattr(pool, "_busy", busy)
        assert 0 < waiting.costs.speed(other).step < 7


def test_the_processes_that_were_found_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hptransfer.cost.estimate.LONG_STEP", 0.0)
    cores(monkeypatch, 2)
    seconds = {2: 4.0, 1: 1.0}

    def measure(pool: Pool, probe: Probe) -> Speed:
        n = probe.share.processes
        return Speed(probe.lanes, seconds.pop(n) if n == 1 else seconds[n], 0.1, n)

    monkeypatch.setattr(Pool, "measure", measure)
    for _ in range(2):  # the second would not find 1 in `seconds`
        waiting = session(tiny(tmp_path), tmp_path, workers=None)
        spec = waiting.plan()[0]
        assert waiting.costs.speed(spec) == Speed(1, 1.0, 0.1, 1)
        assert (waiting.costs.share(spec).processes, waiting.costs.share(spec).threads) == (1, 2)


class Answering:
    """A worker's pipe: warm at once, then its speed."""

    log: ClassVar[list[str]] = []

    def __init__(self, name: str, *answers: object) -> None:
        self.name, self.answers = name, list(answers)

    def send(self, question: object) -> None:
        self.log.append(f"{self.name} {question if isinstance(question, str) else 'probe'}")

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
    assert waiting.pool.measure(probe(waiting)) == Speed(2, 2.0, 4.5, 2)
    assert Answering.log == [
        *("a probe", "b probe", "a answers", "b answers"),
        *("a go", "b go", "a answers", "b answers"),
    ]


def test_a_step_that_a_worker_cannot_time_is_one_line(tmp_path: Path) -> None:
    waiting = session(tiny(tmp_path), tmp_path)
    told = pytest.raises(InputError, match=r"^width 8, timed in 2 workers: device: cuda:99")
    with waiting.pool as pool, told:
        pool.measure(probe(waiting, "cuda:99"))
    with session(tiny(tmp_path), tmp_path).pool as pool:
        pool.start(2)
        with pytest.raises(InputError, match=r"timed in 2 workers: its process died$") as caught:
            pool.measure(replace(probe(waiting), data=Kill()))  # type: ignore[arg-type]
        assert "too little memory" in caught.value.hint


class Kill:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (9,)


@pytest.mark.parametrize(
    ("reached", "more", "threads"), [(0.5, 0, 1), (0.7, 0, 1), (0.9, 0, 2), (0.9, 1, 1)]
)
def test_the_last_unit_takes_the_cores_of_one_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: float, more: int, threads: int
) -> None:
    """Two cores, two workers, one of them at work; `more` runs are expected after these."""
    cores(monkeypatch, 2)
    waiting = session(tiny(tmp_path), tmp_path)
    first, second = waiting.plan()[:2]
    later = replace(second, seed=1)
    monkeypatch.setattr(waiting.costs, "speed", lambda _: Speed(1, 1.0, 0.1, 2))
    given: list[Job] = []

    class Other:
        """The pipe of the worker that is busy with the first run."""

    pool = waiting.pool
    busy = Other()
    monkeypatch.setattr(pool, "_busy", {busy: Job([first], {}, "cpu", 1, None)})
    monkeypatch.setattr(pool, "_reached", {busy: reached})
    monkeypatch.setattr(pool, "submit", given.append)
    left = [first, second, later][: 2 + more]
    with waiting.sharing.begin():
        assert [type(e) for e in waiting._submit(pool, [[second]], left)] == [Started]
    assert [job.threads for job in given] == [threads]


def test_a_run_may_have_the_share_of_a_core_or_of_several_where_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 6)
    room = 2**30

    def counts(**options: object) -> list[tuple[int, int]]:
        waiting = session(tiny(tmp_path), tmp_path, **options)
        return [(s.processes, s.threads) for s in waiting.costs.shares(waiting.plan()[0])]

    monkeypatch.setattr(costs, "memory_of", lambda device: room)
    assert counts(workers=None) == [(6, 1), (3, 2), (1, 6)]
    assert counts(workers=2) == [(2, 3)]
    assert counts(workers=8) == [(8, 1)]
    cost = session(tiny(tmp_path), tmp_path).costs.cost(session(tiny(tmp_path), tmp_path).plan()[0])
    room = int(3.5 / 0.9 * (cost.fixed + cost.activations))
    assert counts(workers=None) == [(3, 2), (1, 6)]
    room = int(1.1 / 0.9 * (cost.fixed + cost.activations // 2))
    assert counts(workers=None) == [(1, 6)]
    with pytest.raises(InputError, match="has room for") as refused:
        counts(workers=2)
    assert "fewer workers" in refused.value.hint


def test_no_run_recomputes_that_need_not_in_fewer_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 4)
    waiting = session(tiny(tmp_path), tmp_path, workers=None)
    spec = waiting.plan()[0]
    fits = {4: None, 2: Fit(1, True, 7), 1: Fit(1, False, 9)}
    monkeypatch.setattr(waiting.costs, "_room", lambda processes: processes)
    monkeypatch.setattr(waiting.costs, "_fit", lambda spec, processes: fits[processes])
    assert [s.processes for s in waiting.costs.shares(spec)] == [1]
    waiting.costs._shares.clear()
    fits[1] = fits[2]
    assert [s.processes for s in waiting.costs.shares(spec)] == [2, 1]


def taken(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What a pool is given from now on: under way, and never trained."""
    jobs: list[Job] = []

    def submit(job: Job) -> None:
        jobs.append(job)
        pipe = object()
        pool._busy[pipe] = job  # type: ignore[index]
        pool._reached[pipe] = 0.0  # type: ignore[index]

    monkeypatch.setattr(pool, "submit", submit)
    return jobs


def test_units_train_at_once_as_long_as_their_shares_are_at_most_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cores: narrow runs take one each, wide ones two, until nothing waits behind them."""
    cores(monkeypatch, 4)
    waiting = session(tiny(tmp_path), tmp_path, workers=None)
    narrow = waiting.plan()[0]
    wide = narrow.at("width", 16)
    speeds = {8: Speed(1, 1.0, 0.1, 4), 16: Speed(1, 9.0, 0.1, 2)}
    monkeypatch.setattr(waiting.costs, "speed", lambda spec: speeds[spec.width])
    pool = waiting.pool
    jobs = taken(pool, monkeypatch)
    units = [[replace(spec, seed=i)] for i, spec in enumerate([narrow, narrow, wide, wide, narrow])]
    todo = list(units)
    with waiting.sharing.begin():
        assert len(list(waiting._submit(pool, todo, []))) == 3
        assert [(j.unit[0].width, j.threads) for j in jobs] == [(8, 1), (8, 1), (16, 2)]
        assert todo == units[3:]
        first = next(iter(pool._busy))
        del pool._busy[first]
        assert list(waiting._submit(pool, todo, [])) == [], "a quarter is free, a half is needed"
        pool._busy.clear()
        assert len(list(waiting._submit(pool, todo, []))) == 2
    assert [j.threads for j in jobs[3:]] == [2, 2], "the last has the cores that nobody waits for"


def test_no_two_units_use_the_same_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores: wide runs take four each, narrow ones one."""
    cores(monkeypatch, 8)
    waiting = session(tiny(tmp_path), tmp_path, workers=None)
    narrow = waiting.plan()[0]
    speeds = {8: Speed(1, 1.0, 0.1, 8), 16: Speed(1, 9.0, 0.1, 2)}
    monkeypatch.setattr(waiting.costs, "speed", lambda spec: speeds[spec.width])
    pool = waiting.pool
    taken(pool, monkeypatch)

    def threads(*widths: int) -> list[int]:
        pool._busy.clear()
        pool._reached.clear()
        todo = [[replace(narrow.at("width", w), seed=i)] for i, w in enumerate(widths)]
        with waiting.sharing.begin():
            list(waiting._submit(pool, todo, []))
        return [job.threads for job, _ in pool.reached]

    assert threads(16, 8, 8, 8) == [4, 1, 1, 2]
    assert threads(8, 8, 8, 16) == [1, 1, 1, 5]
    assert threads(*[8] * 9) == [1] * 8
    assert threads(8, 8) == [4, 4]
    assert threads(8, *[16] * 2) == [2, 6], "the second wide one waits"
    assert threads(16) == [8]


def test_a_run_that_fits_alone_is_trained_alone_on_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 2)
    changes = {"targets": [64], "verify": False, "fresh_seeds": 2, "steps": 4}
    waiting = session(tiny(tmp_path, **changes), tmp_path, workers=None)
    cost = waiting.costs.cost(waiting.plan()[0].at("width", 64))
    room = int(1.1 / 0.9 * (cost.fixed + cost.activations))
    monkeypatch.setattr(costs, "memory_of", lambda device: room)
    beside = {8: 0, 64: 0}
    for event in waiting.run():
        if isinstance(event, Started):
            width = event.unit[0].width
            beside[width] = max(beside[width], len(waiting.pool.reached))
    assert event == Finished([])
    assert beside == {8: 2, 64: 1}
    rows = waiting.rows()
    threads = {n: {env["threads"] for env in own.env} for n, own in rows.groupby("n")}
    assert threads == {8: {1}, 64: {2}}
