"""Worker processes: each trains one unit at a time and reports through its own pipe."""

import contextlib
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import mean
from typing import Any, NoReturn

import torch

from hptransfer import registry
from hptransfer.cost.estimate import Share, Speed, measure
from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.run import fork_server
from hptransfer.spec import RunRecord, RunSpec
from hptransfer.train import engine
from hptransfer.train.build import Described


@dataclass(frozen=True)
class Job:
    """A unit to train, where, the snapshot to go on from, and what is known of its runs."""

    unit: list[RunSpec]
    data: dict[str, Any]
    device: str
    threads: int
    resume: Path | None
    micro_batch: int | None = None
    recompute: bool = False
    described: Described | None = None


@dataclass(frozen=True)
class Probe:
    """A step for all processes of a share to time at once.

    The worker answers None once it is warm, waits for a word, and answers the Speed.
    """

    spec: RunSpec
    data: dict[str, Any]
    device: str
    share: Share
    lanes: int

    @property
    def unit(self) -> list[RunSpec]:
        return [self.spec]


@dataclass(frozen=True)
class Ended:
    """A unit is over: empty `error` if every record came; `traceback` for a bug.

    `died`: its process did, as when memory runs out; its last snapshot is good.
    """

    unit: list[RunSpec]
    error: str = ""
    hint: str = ""
    traceback: str = ""
    died: bool = False


PROBED_SECONDS = 0.3  # of steps, and of evaluations
_MEMORY = "mostly too little memory: fewer --workers or a smaller width"
Message = engine.Progress | engine.Restarted | RunRecord | Ended


def _work(
    pipe: Connection,
    plugins: dict[tuple[str, str, str], str],
    results: Path,
    suite: str,
    snapshot_seconds: float,
) -> None:
    """Child process: jobs or probes in, messages or speeds out, until the parent closes the pipe or
    dies."""
    registry.admit(plugins)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    store = Store(results, suite)
    # A parent that goes with messages unread resets the connection: no end, no broken pipe.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(pipe, store, snapshot_seconds)


def _serve(pipe: Connection, store: Store, snapshot_seconds: float) -> NoReturn:
    """Raises EOFError, BrokenPipeError or ConnectionResetError once the parent is gone."""
    loaded: dict[str, Any] = {}
    while True:
        job: Job | Probe = pipe.recv()
        try:
            if isinstance(job, Probe):
                pipe.send(_timed(job, loaded, pipe))
                continue
            for message in _train(job, loaded, store, snapshot_seconds):
                pipe.send(message)
            ended = Ended(job.unit)
        except InputError as error:
            ended = Ended(job.unit, str(error), error.hint)
        except torch.AcceleratorError as error:  # every later call on the GPU would fail too
            pipe.send(Ended(job.unit, f"{error}", "", traceback.format_exc()))
            sys.exit(1)
        except Exception as error:  # a bug or a plug-in's: recorded as failed, others go on
            ended = Ended(job.unit, f"{type(error).__name__}: {error}", "", traceback.format_exc())
        pipe.send(ended)


def _train(
    job: Job, loaded: dict[str, Any], store: Store, snapshot_seconds: float
) -> Iterator[engine.Progress | engine.Restarted | RunRecord]:
    engine.configure(job.threads)
    for message in engine.train(
        job.unit,
        _data(job.unit[0], job.data, loaded),
        engine.pick_device(job.device),
        resume=job.resume,
        micro_batch=job.micro_batch,
        recompute=job.recompute,
        described=job.described,
        snapshot_seconds=snapshot_seconds,
    ):
        if isinstance(message, engine.Snapshot):
            store.save_snapshot(message.key, message.write)
        else:
            yield message


def _timed(probe: Probe, loaded: dict[str, Any], pipe: Connection) -> Speed:
    engine.configure(probe.share.threads)
    data = _data(probe.spec, probe.data, loaded)
    device = engine.pick_device(probe.device)

    def ready() -> None:
        pipe.send(None)
        pipe.recv()

    where = (probe.spec, data, device, probe.lanes, probe.share.fit)
    return measure(*where, seconds=PROBED_SECONDS, ready=ready)


def _data(spec: RunSpec, fields: dict[str, Any], loaded: dict[str, Any]) -> engine.Data:
    """The data of a run, kept until another set is asked for."""
    name = spec.data["sha256"]
    if name not in loaded:
        loaded.clear()
        loaded[name] = engine.load_data(fields)
    return loaded[name]


class Pool:
    """A few worker processes; `submit` to a free one, `messages` from all."""

    def __init__(self, results: Path, suite: str, snapshot_seconds: float) -> None:
        self._context = fork_server.context()
        self._arguments = (results, suite, snapshot_seconds)
        self._processes: dict[Connection, Any] = {}
        self._busy: dict[Connection, Job] = {}
        self._reached: dict[Connection, float] = {}  # part of the steps, as last reported

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
        """Start this many workers now: they import torch while the caller does something else."""
        self._forget_the_dead()
        while len(self._processes) < count:
            self._start()

    def measure(self, probe: Probe) -> Speed:
        """The mean of what the workers of a share, all idle until now, measure at once.

        Raises InputError where one cannot, or dies of it.
        """
        assert not self._busy
        processes = probe.share.processes
        self.start(processes)
        ready = self._asked(list(self._processes)[:processes], probe)
        found = self._asked([pipe for pipe, answer in ready.items() if answer is None], "go")
        for answer in {**ready, **found}.values():
            if isinstance(answer, Ended):
                text = f"width {probe.spec.width}, timed in {processes} workers: {answer.error}"
                raise InputError(text, answer.hint)
        steps, evaluations = zip(*((s.step, s.evaluation) for s in found.values()), strict=True)
        return Speed(probe.lanes, mean(steps), mean(evaluations), processes)

    def _asked(self, pipes: list[Connection], question: Any) -> dict[Connection, Any]:
        """The next answer of each."""
        for pipe in pipes:
            with contextlib.suppress(BrokenPipeError):  # dead, and so says recv
                pipe.send(question)
        answers: dict[Connection, Any] = {}
        for pipe in pipes:
            try:
                answers[pipe] = pipe.recv()
            except (EOFError, ConnectionResetError):
                answers[pipe] = Ended([], "its process died", _MEMORY)
        return answers

    @property
    def in_flight(self) -> set[str]:
        return {spec.key for job in self._busy.values() for spec in job.unit}

    @property
    def reached(self) -> list[tuple[Job, float]]:
        """The jobs under way and the part of their steps that is done."""
        return [(job, self._reached[pipe]) for pipe, job in self._busy.items()]

    def end_idle(self) -> None:
        """End the workers without a job, which keep the memory that they freed."""
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
        self._reached[pipe] = 0.0

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
        """What has arrived within `timeout` seconds. A worker that died ends its unit."""
        for pipe in wait(list(self._busy), timeout):
            assert isinstance(pipe, Connection)
            try:
                message: Message = pipe.recv()
            except (EOFError, ConnectionResetError):
                job = self._busy.pop(pipe)
                process = self._processes.pop(pipe)
                process.join()
                yield Ended(
                    job.unit,
                    f"its process died (exit code {process.exitcode})",
                    f"exit code -9 is {_MEMORY}",
                    died=True,
                )
                continue
            if isinstance(message, engine.Progress):
                self._reached[pipe] = message.step / message.steps
            if isinstance(message, Ended):
                del self._busy[pipe]
            yield message
