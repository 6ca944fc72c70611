"""Sessions: resume, failed runs, memory, and every built-in suite at its smallest size."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from hptransfer import engine
from hptransfer.estimate import Fit, Share, Speed
from hptransfer.execute import Finished, Options, Session, Started, Status
from hptransfer.registry import InputError
from hptransfer.spec import RunRecord
from hptransfer.suite import Suite
from hptransfer.suitefile import load_suite, parse_suite, suite_names
from hptransfer.workers import Ended, Job, Pool, Probe

SMALLEST = {"steps": 2, "eval_batches": 1, "trials": 2, "fresh_seeds": 1, "verify": False}
AXIS = {"width": (32, 64), "depth": (2, 4), "batch_size": (4, 8)}


def session(suite: Suite, folder: Path, **options: object) -> Session:
    chosen = {"device": "cpu", "workers": 2, "lanes": 1, **options}
    return Session(suite, Options(folder, **chosen), list(suite.optimizers))


def tiny(folder: Path, **changes: object) -> Suite:
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
        "eval_batches": 2,
        "optimizers": {"transported_scion": {"lr": "2^-4..2^-3", "trials": 2}},
    }
    return parse_suite({**table, **changes}, {})


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_runs_at_its_smallest_size(name: str, tmp_path: Path) -> None:
    proxy, target = AXIS[load_suite(name).axis]
    suite = load_suite(name, {**SMALLEST, "proxy": proxy, "targets": [target]})
    done = session(suite, tmp_path, workers=2, lanes=4)
    events = list(done.run())
    assert isinstance(events[-1], Finished)
    assert events[-1].failed == []
    rows = done.rows()
    assert set(rows.optimizer) == set(suite.optimizers)
    assert set(rows.n) == {proxy, target}
    assert done.plan() == []


def test_a_run_that_is_killed_goes_on_from_its_snapshot_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    suite = tiny(tmp_path)
    whole = session(suite, tmp_path / "whole")
    losses = {e.key: e.loss for e in whole.run() if isinstance(e, RunRecord)}

    cut = session(suite, tmp_path / "cut", snapshot_seconds=0.0)
    events = cut.run()
    for event in events:
        if isinstance(event, engine.Progress) and event.step >= 15:
            events.close()  # ends the worker in the middle of its run
    assert list((tmp_path / "cut" / "tiny" / "snapshots").glob("*.pt"))
    assert cut.known() == 0

    resumed = session(suite, tmp_path / "cut", snapshot_seconds=0.0)
    events = list(resumed.run())
    first: dict[str, int] = {}
    for event in events:
        if isinstance(event, engine.Progress):
            first.setdefault(event.keys[0], event.step)
    assert max(first.values()) > 10, "a unit does not begin at step 0 again"
    assert {e.key: e.loss for e in events if isinstance(e, RunRecord)} == losses
    assert not list((tmp_path / "cut" / "tiny" / "snapshots").glob("*.pt"))


def test_a_run_whose_worker_is_killed_goes_on_from_its_snapshot_next_time(
    tmp_path: Path,
) -> None:
    suite = tiny(tmp_path, steps=600)  # so many that no run is over when the first is seen
    cut = session(suite, tmp_path, snapshot_seconds=0.0)
    for event in cut.run():
        if isinstance(event, engine.Progress) and event.step >= 15:
            for process in cut.pool._processes.values():
                process.kill()
    assert isinstance(event, Finished)
    assert event.failed
    assert all(ended.died for ended in event.failed)

    first: dict[str, int] = {}
    for event in session(suite, tmp_path, snapshot_seconds=0.0).run():
        if isinstance(event, engine.Progress):
            first.setdefault(event.keys[0], event.step)
    assert max(first.values()) > 10, "a unit does not begin at step 0 again"
    assert event == Finished([])
    assert not list((tmp_path / "tiny" / "snapshots").glob("*.pt"))


def test_a_search_alone_leaves_the_report_to_what_was_carried(tmp_path: Path) -> None:
    """The same suite at another proxy, without targets; but other runs are another suite."""
    suite = tiny(tmp_path, targets=[16])

    def kept(changed: Suite) -> tuple[int, list[int]]:
        made = session(changed, tmp_path)
        made.store.write_manifest(made._reported())
        manifest = made.store.read_manifest()
        assert manifest is not None
        return manifest.proxy, manifest.targets

    search = suite.narrowed(proxy=24, targets=[])
    assert kept(search) == (24, [])
    assert kept(suite) == (8, [16])
    assert kept(search) == (8, [16])
    assert kept(suite.narrowed(proxy=24, targets=[32])) == (24, [32])
    assert kept(search.model_copy(update={"steps": 7})) == (24, [])


def test_a_failing_run_is_recorded_once_and_the_others_finish(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from hptransfer.optimizers.adamw import adamw\n\n\n"
        "class Breaking:\n"
        "    def __init__(self, rule):\n"
        "        self.init_weight, self.init_state = rule.init_weight, rule.init_state\n"
        "        self.readout, self.rule = rule.readout, rule\n\n"
        "    def update(self, g, state, w, step):\n"
        "        if step.t == 5:\n"
        "            raise RuntimeError('broken on purpose')\n"
        "        return self.rule.update(g, state, w, step)\n\n\n"
        "def mine(p, *, weight_decay: float = 0.1):\n"
        '    """AdamW that breaks."""\n'
        "    return Breaking(adamw(p, weight_decay=weight_decay))\n"
    )
    text = tiny(tmp_path).data
    suite = tiny(
        tmp_path,
        data=text,
        optimizers={
            "adamw": {"lr": "2^-6..2^-5", "trials": 2},
            "mine": {"use": f"{plugin}:mine", "lr": "2^-6..2^-5", "trials": 2},
        },
    )
    running = session(suite, tmp_path / "results")
    events = list(running.run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert len(finished.failed) == 2
    assert finished.failed[0].error == "RuntimeError: broken on purpose"
    assert "Traceback" in finished.failed[0].traceback
    frame = running.store.frame()
    assert sorted(frame.status) == ["done", "done", "failed", "failed"]
    assert "broken on purpose" in frame[frame.status == "failed"].error.iloc[0]
    assert {spec.optimizer["name"] for spec in running.plan()} == {"mine"}


def test_a_target_above_the_memory_is_refused_with_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hptransfer import execute

    suite = tiny(tmp_path, targets=[4096], verify=False)
    monkeypatch.setattr(execute, "memory_of", lambda device: 300 * 2**20)
    with pytest.raises(
        InputError, match=r"transported_scion at width 4096 needs about [\d.]+ GiB, one example"
    ) as error:
        session(suite, tmp_path).expected()
    assert re.fullmatch(r"width (512|1024) would fit", error.value.hint)


def probe(waiting: Session, device: str = "cpu") -> Probe:
    spec = waiting.plan()[0]
    return Probe(spec, waiting.suite.data, device, Share(2, 1, waiting.how(spec)), 2)


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
        assert waiting.speed(own.spec).step == 7.0
        assert session(tiny(tmp_path), tmp_path).speed(own.spec).step == 7.0
        other = replace(own.spec, batch=3)
        busy = {pipe: Job([own.spec], {}, "cpu", 1, None) for pipe in pool._processes}
        monkeypatch.setattr(pool, "_busy", busy)
        assert 0 < waiting.speed(other).step < 7


def test_the_processes_that_were_found_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hptransfer.estimate.LONG_STEP", 0.0)
    cores(monkeypatch, 2)
    seconds = {2: 4.0, 1: 1.0}

    def measure(pool: Pool, probe: Probe) -> Speed:
        n = probe.share.processes
        return Speed(probe.lanes, seconds.pop(n) if n == 1 else seconds[n], 0.1, n)

    monkeypatch.setattr(Pool, "measure", measure)
    for _ in range(2):  # the second would not find 1 in `seconds`
        waiting = session(tiny(tmp_path), tmp_path, workers=None)
        spec = waiting.plan()[0]
        assert waiting.speed(spec) == Speed(1, 1.0, 0.1, 1)
        assert (waiting.share(spec).processes, waiting.share(spec).threads) == (1, 2)


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
    told = pytest.raises(InputError, match=r"^width 8, timed in 2 workers: --device: cuda:99")
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


def test_a_worker_whose_parent_goes_with_messages_unread_ends_quietly(tmp_path: Path) -> None:
    waiting = session(tiny(tmp_path), tmp_path, workers=1)
    with waiting.pool as pool:
        pool.submit(Job([waiting.plan()[0]], {"name": "none"}, "cpu", 1, None))
        ((pipe, process),) = pool._processes.items()
        assert pipe.poll(60), "an answer: no such data"
        pipe.close()  # the answer unread: what the worker reads next is a reset, not an end
        process.join(60)
        assert process.exitcode == 0


def test_a_worker_whose_gpu_failed_says_so_and_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later call would fail as well; the pool starts another."""
    plugin = tmp_path / "lost.py"
    plugin.write_text(
        "import torch\n\n\n"
        "def lost(p, *, beta: float = 0.9):\n"
        '    """An optimizer on a GPU that fails."""\n'
        "    raise torch.AcceleratorError('CUDA error: made up')\n"
    )
    suite = tiny(tmp_path, optimizers={"lost": {"use": f"{plugin}:lost", "lr": "2^-6..2^-5"}})
    waiting = session(suite, tmp_path, workers=1)
    with waiting.pool as pool:
        pool.submit(Job([waiting.plan()[0]], waiting.suite.data, "cpu", 1, None))
        ((_, process),) = pool._processes.items()
        [ended] = list(pool.messages(timeout=60))
        assert isinstance(ended, Ended)
        assert "CUDA error: made up" in ended.error
        process.join(60)
        assert process.exitcode == 1
        pool.start(1)
        assert [p.is_alive() for p in pool._processes.values()] == [True]


def test_a_job_for_a_worker_that_has_just_died_ends_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = session(tiny(tmp_path), tmp_path, workers=1)
    monkeypatch.setattr(waiting.pool, "_forget_the_dead", lambda: None)  # it looked a moment ago
    with waiting.pool as pool:
        pool.start(1)
        ((_, process),) = pool._processes.items()
        process.kill()
        process.join()
        pool.submit(Job([waiting.plan()[0]], waiting.suite.data, "cpu", 1, None))
        [ended] = list(pool.messages(timeout=10))
    assert isinstance(ended, Ended)
    assert "its process died" in ended.error


@pytest.mark.parametrize(
    ("reached", "more", "threads"), [(0.5, 0, 1), (0.7, 0, 1), (0.9, 0, 2), (0.9, 1, 1)]
)
def test_the_last_unit_takes_the_cores_of_one_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: float, more: int, threads: int
) -> None:
    """Two cores, two workers, one of them at work; `more` runs are expected after these."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    waiting = session(tiny(tmp_path), tmp_path)
    first, second = waiting.plan()[:2]
    later = replace(second, seed=1)
    monkeypatch.setattr(waiting, "speed", lambda _: Speed(1, 1.0, 0.1, 2))
    given: list[Job] = []

    class Other:
        """The pipe of the worker that is busy with the first run."""

    pool = waiting.pool
    busy = Other()
    monkeypatch.setattr(pool, "_busy", {busy: Job([first], {}, "cpu", 1, None)})
    monkeypatch.setattr(pool, "_reached", {busy: reached})
    monkeypatch.setattr(pool, "submit", given.append)
    left = [first, second, later][: 2 + more]
    assert [type(e) for e in waiting._submit(pool, [[second]], left)] == [Started]
    assert [job.threads for job in given] == [threads]


def cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


def test_a_run_may_have_the_share_of_a_core_or_of_several_where_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hptransfer import execute

    cores(monkeypatch, 6)
    room = 2**30

    def counts(**options: object) -> list[tuple[int, int]]:
        waiting = session(tiny(tmp_path), tmp_path, **options)
        return [(s.processes, s.threads) for s in waiting.shares(waiting.plan()[0])]

    monkeypatch.setattr(execute, "memory_of", lambda device: room)
    assert counts(workers=None) == [(6, 1), (3, 2), (1, 6)]
    assert counts(workers=2) == [(2, 3)]
    assert counts(workers=8) == [(8, 1)]
    cost = session(tiny(tmp_path), tmp_path).cost(session(tiny(tmp_path), tmp_path).plan()[0])
    room = int(3.5 / 0.9 * (cost.fixed + cost.activations))
    assert counts(workers=None) == [(3, 2), (1, 6)]
    room = int(1.1 / 0.9 * (cost.fixed + cost.activations // 2))
    assert counts(workers=None) == [(1, 6)]
    with pytest.raises(InputError, match="has room for") as refused:
        counts(workers=2)
    assert "fewer --workers" in refused.value.hint


def test_no_run_recomputes_that_need_not_in_fewer_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 4)
    waiting = session(tiny(tmp_path), tmp_path, workers=None)
    spec = waiting.plan()[0]
    fits = {4: None, 2: Fit(1, True, 7), 1: Fit(1, False, 9)}
    monkeypatch.setattr(waiting, "_room", lambda processes: processes)
    monkeypatch.setattr(waiting, "_fit", lambda spec, processes: fits[processes])
    assert [s.processes for s in waiting.shares(spec)] == [1]
    waiting._shares.clear()
    fits[1] = fits[2]
    assert [s.processes for s in waiting.shares(spec)] == [2, 1]


def test_units_train_at_once_as_long_as_their_shares_are_at_most_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cores: narrow runs take one each, wide ones two, until nothing waits behind them."""
    cores(monkeypatch, 4)
    waiting = session(tiny(tmp_path), tmp_path, workers=None)
    narrow = waiting.plan()[0]
    wide = narrow.at("width", 16)
    speeds = {8: Speed(1, 1.0, 0.1, 4), 16: Speed(1, 9.0, 0.1, 2)}
    monkeypatch.setattr(waiting, "speed", lambda spec: speeds[spec.width])
    pool, given = waiting.pool, []

    def submit(job: Job) -> None:
        given.append((job.unit[0].width, job.threads))
        pipe = object()
        pool._busy[pipe] = job  # type: ignore[index]
        pool._reached[pipe] = 0.0  # type: ignore[index]

    monkeypatch.setattr(pool, "submit", submit)
    units = [[replace(spec, seed=i)] for i, spec in enumerate([narrow, narrow, wide, wide, narrow])]
    todo = list(units)
    assert len(list(waiting._submit(pool, todo, []))) == 3
    assert given == [(8, 1), (8, 1), (16, 2)]
    assert todo == units[3:]
    first = next(iter(pool._busy))
    del pool._busy[first]
    assert list(waiting._submit(pool, todo, [])) == [], "a quarter is free, a half is needed"
    pool._busy.clear()
    assert len(list(waiting._submit(pool, todo, []))) == 2
    assert given[3:] == [(16, 2), (8, 2)], "the last has the cores that nobody waits for"


def test_no_two_units_use_the_same_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores: wide runs take four each, narrow ones one."""
    cores(monkeypatch, 8)
    waiting = session(tiny(tmp_path), tmp_path, workers=None)
    narrow = waiting.plan()[0]
    speeds = {8: Speed(1, 1.0, 0.1, 8), 16: Speed(1, 9.0, 0.1, 2)}
    monkeypatch.setattr(waiting, "speed", lambda spec: speeds[spec.width])
    pool = waiting.pool

    def threads(*widths: int) -> list[int]:
        pool._busy.clear()
        pool._reached.clear()
        todo = [[replace(narrow.at("width", w), seed=i)] for i, w in enumerate(widths)]
        list(waiting._submit(pool, todo, []))
        return [job.threads for job, _ in pool.reached]

    def submit(job: Job) -> None:
        pipe = object()
        pool._busy[pipe] = job  # type: ignore[index]
        pool._reached[pipe] = 0.0  # type: ignore[index]

    monkeypatch.setattr(pool, "submit", submit)
    assert threads(16, 8, 8, 8) == [4, 1, 1, 2]
    assert threads(8, 8, 8, 16) == [1, 1, 1, 5]
    assert threads(*[8] * 9) == [1] * 8
    assert threads(8, 8) == [4, 4]
    assert threads(8, *[16] * 2) == [2, 6], "the second wide one waits"
    assert threads(16) == [8]


def test_a_run_that_fits_alone_is_trained_alone_on_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hptransfer import execute

    cores(monkeypatch, 2)
    changes = {"targets": [64], "verify": False, "fresh_seeds": 2, "steps": 4}
    waiting = session(tiny(tmp_path, **changes), tmp_path, workers=None)
    cost = waiting.cost(waiting.plan()[0].at("width", 64))
    room = int(1.1 / 0.9 * (cost.fixed + cost.activations))
    monkeypatch.setattr(execute, "memory_of", lambda device: room)
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


def test_the_status_counts_down_and_ends_at_zero(tmp_path: Path) -> None:
    events = list(session(tiny(tmp_path, steps=3), tmp_path).run())
    counts = [(e.done, e.left) for e in events if isinstance(e, Status)]
    assert counts[0] == (0, 2)
    assert counts[-1] == (2, 0)
    assert len([e for e in events if isinstance(e, Started)]) == 2
