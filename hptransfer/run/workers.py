"""Worker processes: each trains one unit at a time and reports through its own pipe."""

import contextlib
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NoReturn

import torch

from hptransfer import registry
from hptransfer.cost.placement import Placement
from hptransfer.cost.speed import Speed, time_steps
from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.run import fork_server
from hptransfer.spec import Param, RunRecord, RunSpec, Unit
from hptransfer.train import engine
from hptransfer.train.prepare import StepFlops, prepare
from hptransfer.train.snapshots import UnusableError


@dataclass(frozen=True)
class Job:
    """A unit to train: its data and place, and the snapshot that it resumes.

    `params`, `flops`: of its first run, as far as they are known.
    """

    unit: Unit
    data: dict[str, Any]
    device: str
    placement: Placement
    resume: Path | None = None
    params: tuple[Param, ...] | None = None
    flops: StepFlops | None = None


@dataclass(frozen=True)
class Timing:
    """Steps that all processes of a placement time at once.

    The worker answers None once it is warm, waits for "go", and answers the Speed. `params`: of the
    run, where they are known.
    """

    spec: RunSpec
    data: dict[str, Any]
    device: str
    placement: Placement
    lanes: int
    params: tuple[Param, ...] | None = None

    @property
    def unit(self) -> Unit:
        return Unit((self.spec,))


@dataclass(frozen=True)
class Ended:
    """A unit is over. `error` is empty if every record came; `traceback` is that of a bug.

    `died`: its process died, as where memory runs out; its last snapshot is good. `placement`:
    where it trained, None if that was another session.
    """

    unit: Unit
    error: str = ""
    hint: str = ""
    traceback: str = ""
    died: bool = False
    placement: Placement | None = None


TIMED_SECONDS = 0.3  # for which steps are timed, and evaluations
_MEMORY = "mostly too little memory: fewer workers or a smaller width"
Message = engine.Progress | engine.Restarted | engine.Unsaved | RunRecord | Ended


def _work(
    pipe: Connection,
    plugins: dict[tuple[str, str, str], str],
    results: Path,
    suite: str,
    snapshot_seconds: float,
) -> None:
    """Child process: it takes jobs and timings and answers messages and speeds.

    It ends when the parent closes the pipe or dies.
    """
    registry.admit(plugins)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends workers
    store = Store(results, suite)
    # A parent that leaves messages unread resets the connection: recv raises no EOFError then.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(pipe, store, snapshot_seconds)


def _serve(pipe: Connection, store: Store, snapshot_seconds: float) -> NoReturn:
    """Raises EOFError, BrokenPipeError or ConnectionResetError once the parent is gone."""
    loaded: dict[str, engine.Data] = {}
    while True:
        job: Job | Timing = pipe.recv()
        place = job.placement
        try:
            if isinstance(job, Timing):
                pipe.send(_timed(job, loaded, pipe))
                continue
            for message in _train(job, loaded, store, snapshot_seconds):
                pipe.send(message)
            ended = Ended(job.unit, placement=place)
        except InputError as error:
            ended = Ended(job.unit, str(error), error.hint, placement=place)
        except torch.AcceleratorError as error:  # every later call on the GPU would fail too
            text = traceback.format_exc()
            pipe.send(Ended(job.unit, f"{error}", "", text, placement=place))
            sys.exit(1)
        except Exception as error:  # a bug or a plug-in's: recorded as failed, others go on
            line, text = f"{type(error).__name__}: {error}", traceback.format_exc()
            ended = Ended(job.unit, line, "", text, placement=place)
        pipe.send(ended)


def _train(
    job: Job, loaded: dict[str, engine.Data], store: Store, snapshot_seconds: float
) -> Iterator[engine.Progress | engine.Restarted | engine.Unsaved | RunRecord]:
    engine.configure(job.placement.threads)
    spec, data = job.unit.spec, _data(job.unit.spec, job.data, loaded)
    unsaved = False
    for message in engine.train(
        job.unit,
        data,
        engine.pick_device(job.device),
        resume=job.resume,
        micro_batch=job.placement.micro_batch,
        recompute=job.placement.recompute,
        prepared=prepare(spec, data, params=job.params, flops=job.flops),
        snapshot_seconds=snapshot_seconds,
    ):
        if not isinstance(message, engine.Snapshot):
            yield message
        elif not unsaved:
            try:
                store.save_snapshot(message.key, message.write)
            except UnusableError as error:
                unsaved = True
                yield engine.Unsaved(spec, f"its snapshot {error}")


def _timed(timing: Timing, loaded: dict[str, engine.Data], pipe: Connection) -> Speed:
    engine.configure(timing.placement.threads)
    data = _data(timing.spec, timing.data, loaded)
    device = engine.pick_device(timing.device)

    def ready() -> None:
        pipe.send(None)
        pipe.recv()

    prepared = prepare(timing.spec, data, params=timing.params)
    where = (device, timing.lanes, timing.placement)
    return time_steps(prepared, *where, seconds=TIMED_SECONDS, ready=ready)


def _data(spec: RunSpec, fields: dict[str, Any], loaded: dict[str, engine.Data]) -> engine.Data:
    """The data of a run, kept until a run asks for other data."""
    name = spec.data["sha256"]
    if name not in loaded:
        loaded.clear()
        loaded[name] = engine.load_data(fields)
    return loaded[name]


class Pool:
    """Worker processes: `submit` gives a job to a free one, `messages` come from all."""

    def __init__(self, results: Path, suite: str, snapshot_seconds: float) -> None:
        self._context = fork_server.context()
        self._arguments = (results, suite, snapshot_seconds)
        self._processes: dict[Connection, BaseProcess] = {}
        self._busy: dict[Connection, Job] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, process in self._processes.items():
            pipe.close()
            process.terminate()
        for process in self._processes.values():
            process.join()
        self._processes.clear()
        self._busy.clear()

    def start(self, count: int) -> None:
        """Have this many workers: they import torch while the caller does something else."""
        self._forget_the_dead()
        while len(self._processes) < count:
            self._start()

    def time(self, timing: Timing) -> Speed:
        """The mean of what the workers of a placement, all idle until now, time at once.

        Raises InputError where a worker cannot, or dies of it.
        """
        assert not self._busy
        processes = timing.placement.processes
        self.start(processes)
        ready = self._asked(list(self._processes)[:processes], timing, timing)
        warm = [pipe for pipe, answer in ready.items() if answer is None]
        timed = self._asked(warm, "go", timing)
        for answer in {**ready, **timed}.values():
            if isinstance(answer, Ended):
                text = f"width {timing.spec.width}, timed in {processes} workers: {answer.error}"
                raise InputError(text, answer.hint)
        speeds = [answer for answer in timed.values() if isinstance(answer, Speed)]
        step, evaluation = mean(s.step for s in speeds), mean(s.evaluation for s in speeds)
        return Speed(timing.lanes, step, evaluation, processes)

    def _asked(
        self, pipes: list[Connection], question: Timing | Literal["go"], timing: Timing
    ) -> dict[Connection, Speed | Ended | None]:
        """The next answer of each worker, Ended where it died."""
        for pipe in pipes:
            with contextlib.suppress(BrokenPipeError):  # dead, and so says recv
                pipe.send(question)
        answers: dict[Connection, Speed | Ended | None] = {}
        for pipe in pipes:
            try:
                answers[pipe] = pipe.recv()
            except (EOFError, ConnectionResetError):
                answers[pipe] = self._died(pipe, timing)
        return answers

    def _died(self, pipe: Connection, job: Job | Timing) -> Ended:
        """What to tell of a worker that is gone."""
        process = self._processes.pop(pipe)
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        return Ended(
            job.unit,
            f"its process died (exit code {process.exitcode})",
            f"exit code -9 is {_MEMORY}" if killed else "what it wrote to stderr says why",
            died=True,
            placement=job.placement,
        )

    @property
    def in_flight(self) -> set[str]:
        return {spec.key for job in self._busy.values() for spec in job.unit.runs}

    @property
    def jobs(self) -> list[Job]:
        """The jobs that workers train now."""
        return list(self._busy.values())

    def end_idle(self) -> None:
        """End the workers without a job: they keep the memory that they freed."""
        for pipe in [pipe for pipe in self._processes if pipe not in self._busy]:
            process = self._processes.pop(pipe)
            pipe.close()
            process.terminate()
            process.join()

    def submit(self, job: Job) -> None:
        pipe = self._idle() or self._start()
        with contextlib.suppress(BrokenPipeError):  # dead, and so says `messages`
            pipe.send(job)
        self._busy[pipe] = job

    def _idle(self) -> Connection | None:
        """A worker without a job."""
        self._forget_the_dead()
        return next((pipe for pipe in self._processes if pipe not in self._busy), None)

    def _forget_the_dead(self) -> None:
        for pipe, process in list(self._processes.items()):
            if pipe not in self._busy and not process.is_alive():
                del self._processes[pipe]

    def _start(self) -> Connection:
        fork_server.start()
        ours, theirs = self._context.Pipe()
        arguments = (theirs, registry.plugins(), *self._arguments)
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def messages(self, timeout: float) -> Iterator[Message]:
        """Messages that arrive within `timeout` seconds. A worker that died ends its unit."""
        for pipe in wait(list(self._busy), timeout):
            assert isinstance(pipe, Connection)
            try:
                message: Message = pipe.recv()
            except (EOFError, ConnectionResetError):
                yield self._died(pipe, self._busy.pop(pipe))
                continue
            if isinstance(message, Ended):
                del self._busy[pipe]
            yield message
