"""Worker processes: each trains one unit at a time and reports through its own pipe."""

import contextlib
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hptransfer import ahead, engine, registry
from hptransfer.estimate import Fit, Speed, measure
from hptransfer.registry import InputError
from hptransfer.spec import RunRecord, RunSpec
from hptransfer.store import Store


@dataclass(frozen=True)
class Job:
    """A unit to train, where, and the snapshot to go on from."""

    unit: list[RunSpec]
    data: dict[str, Any]
    device: str
    threads: int
    resume: Path | None
    micro_batch: int | None = None
    recompute: bool = False


@dataclass(frozen=True)
class Probe:
    """A step for every worker to time at the same time as the others."""

    spec: RunSpec
    data: dict[str, Any]
    device: str
    threads: int
    lanes: int
    how: Fit

    @property
    def unit(self) -> list[RunSpec]:
        return [self.spec]


@dataclass(frozen=True)
class Ended:
    """A unit is over: empty `error` if every record came; `traceback` for a bug."""

    unit: list[RunSpec]
    error: str = ""
    hint: str = ""
    traceback: str = ""


PROBED_SECONDS = 0.3  # of a worker's steps, so that all of them overlap
_MEMORY = "mostly too little memory: fewer --workers or a smaller width"
Message = engine.Progress | RunRecord | Ended


def _work(
    pipe: Connection,
    plugins: dict[tuple[str, str, str], str],
    results: Path,
    suite: str,
    snapshot_seconds: float,
) -> None:
    """Child process: jobs in, messages out, until the parent closes the pipe or dies."""
    registry.admit(plugins)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    store = Store(results, suite)
    loaded: dict[str, Any] = {}
    while True:
        try:
            job: Job | Probe = pipe.recv()
        except EOFError:
            return
        try:
            if isinstance(job, Probe):
                pipe.send(_timed(job, loaded))
                continue
            for message in _train(job, loaded, store, snapshot_seconds):
                pipe.send(message)
            ended = Ended(job.unit)
        except BrokenPipeError:
            return
        except InputError as error:
            ended = Ended(job.unit, str(error), error.hint)
        except Exception as error:  # a bug or a plug-in's: recorded as failed, others go on
            ended = Ended(job.unit, f"{type(error).__name__}: {error}", "", traceback.format_exc())
        pipe.send(ended)


def _train(
    job: Job, loaded: dict[str, Any], store: Store, snapshot_seconds: float
) -> Iterator[engine.Progress | RunRecord]:
    engine.configure(job.threads)
    for message in engine.train(
        job.unit,
        _data(job.unit[0], job.data, loaded),
        engine.pick_device(job.device),
        resume=job.resume,
        micro_batch=job.micro_batch,
        recompute=job.recompute,
        snapshot_seconds=snapshot_seconds,
    ):
        if isinstance(message, engine.Snapshot):
            store.save_snapshot(message.key, message.write)
        else:
            yield message


def _timed(probe: Probe, loaded: dict[str, Any]) -> Speed:
    engine.configure(probe.threads)
    data = _data(probe.spec, probe.data, loaded)
    device = engine.pick_device(probe.device)
    return measure(probe.spec, data, device, probe.lanes, probe.how, seconds=PROBED_SECONDS)


def _data(spec: RunSpec, fields: dict[str, Any], loaded: dict[str, Any]) -> engine.Data:
    """The data of a run, kept until another set is asked for."""
    name = spec.data["sha256"]
    if name not in loaded:
        loaded.clear()
        loaded[name] = engine.load_data(fields)
    return loaded[name]


class Pool:
    """A few worker processes; `submit` to a free one, `messages` from all."""

    def __init__(self, size: int, results: Path, suite: str, snapshot_seconds: float) -> None:
        self._context = ahead.context()
        self._arguments = (results, suite, snapshot_seconds)
        self._processes: dict[Connection, Any] = {}
        self._busy: dict[Connection, Job] = {}
        self._reached: dict[Connection, float] = {}  # share of the steps, as last reported
        self.size = size

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, process in self._processes.items():
            pipe.close()
            process.terminate()
        for process in self._processes.values():
            process.join()

    def start(self) -> None:
        """Start every worker now: they import torch while the caller does something else."""
        while len(self._processes) < self.size:
            self._start()

    def measure(self, probe: Probe) -> Speed:
        """The mean of what all workers, idle until now, measure at once.

        Raises InputError where one cannot, or dies of it.
        """
        self.start()
        for pipe in self._processes:
            with contextlib.suppress(BrokenPipeError):  # dead: so says recv
                pipe.send(probe)
        found: list[Speed] = []
        for pipe in self._processes:
            try:
                answer: Speed | Ended = pipe.recv()
            except (EOFError, ConnectionResetError):
                answer = Ended(probe.unit, "its process died", _MEMORY)
            if isinstance(answer, Ended):
                text = f"width {probe.spec.width}, timed in {self.size} workers: {answer.error}"
                raise InputError(text, answer.hint or _MEMORY)
            found.append(answer)
        mean = [sum(each) / len(found) for each in zip(*map(_seconds, found), strict=True)]
        return Speed(probe.lanes, *mean)

    @property
    def free(self) -> int:
        return self.size - len(self._busy)

    @property
    def in_flight(self) -> set[str]:
        return {spec.key for job in self._busy.values() for spec in job.unit}

    @property
    def ending(self) -> int:
        """Jobs with less than a quarter of their steps to go."""
        return sum(self._reached[pipe] > 0.75 for pipe in self._busy)

    def submit(self, job: Job) -> None:
        pipe = self._idle() or self._start()
        pipe.send(job)
        self._busy[pipe] = job
        self._reached[pipe] = 0.0

    def _idle(self) -> Connection | None:
        """A worker without a job; those that died meanwhile are forgotten."""
        for pipe, process in list(self._processes.items()):
            if pipe not in self._busy:
                if process.is_alive():
                    return pipe
                del self._processes[pipe]
        return None

    def _start(self) -> Connection:
        ahead.start()
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
                )
                continue
            if isinstance(message, engine.Progress):
                self._reached[pipe] = message.step / message.steps
            if isinstance(message, Ended):
                del self._busy[pipe]
            yield message


def _seconds(speed: Speed) -> tuple[float, float]:
    return speed.step, speed.evaluation
