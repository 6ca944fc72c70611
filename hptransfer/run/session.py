"""plan -> pack -> claim -> train -> append, until nothing is missing. Workers on one device.

Other processes may be at work on the same suite: a session trains what none of them has claimed,
and waits for the records of the rest.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pandas as pd
import torch

from hptransfer.analysis.metrics import select
from hptransfer.cost.estimate import Estimate, Speed
from hptransfer.records.store import Store
from hptransfer.run.costs import Costs
from hptransfer.run.sharing import Sharing
from hptransfer.run.workers import Ended, Job, Message, Pool
from hptransfer.search import samplers, studies
from hptransfer.search.plan import forecast, pack, plan
from hptransfer.spec import RunRecord, RunSpec
from hptransfer.suite.claim import Suite, SuiteTable
from hptransfer.train import engine
from hptransfer.train.engine import Progress

SYNC_SECONDS = 30.0  # between additions to the persistent Optuna study


@dataclass(frozen=True)
class Options:
    """Where and how much: nothing here changes a loss by more than rounding."""

    results: Path
    device: str = "auto"
    workers: int | None = None
    lanes: int | None = None
    storage: str | None = None
    snapshot_seconds: float = engine.SNAPSHOT_SECONDS


@dataclass(frozen=True)
class Expected:
    """Runs of one optimizer at one axis value that are still to come, and their cost."""

    label: str
    n: int
    specs: list[RunSpec]
    speed: Speed

    @property
    def seconds(self) -> float:
        """Of all runs, which the processes of their speed share."""
        return len(self.specs) * self.speed.run(self.specs[0]) / self.speed.processes

    def flops(self, cost: Estimate) -> float:
        """Of all runs, `cost` being one lane's."""
        spec = self.specs[0]
        steps = spec.steps * (cost.model_flops + cost.optimizer_flops)
        return len(self.specs) * (steps + spec.eval_batches * cost.model_flops / 3)


@dataclass(frozen=True)
class Started:
    unit: list[RunSpec]


@dataclass(frozen=True)
class Status:
    """Runs recorded in this invocation, runs expected still, and seconds left.

    `others`: the other processes at work on this suite. `awaited`: the runs whose records this one
    waits for while it trains none, each with the process that trains it.
    """

    done: int
    left: int
    seconds: float
    others: list[str] = field(default_factory=list)
    awaited: list[tuple[RunSpec, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """All is recorded but the runs in `failed`, which the next invocation tries again."""

    failed: list[Ended] = field(default_factory=list)


Event = Started | Progress | RunRecord | Status | Ended | Finished


class Session:
    """A resolved suite on a device: its data, its store, and how fast units run here."""

    def __init__(self, suite: SuiteTable, options: Options, only: list[str]) -> None:
        self.device = engine.pick_device(options.device)
        self.options = options
        self.data = engine.load_data(suite.data)
        self.full = suite.resolve(self.data.sha256)
        self.suite = self.full.only(only)
        self.store = Store(options.results, suite.name)
        self.pool = Pool(options.results, suite.name, options.snapshot_seconds)
        told = options.workers, options.lanes
        self.costs = Costs(self.suite, self.data, self.device, self.pool, *told)
        self.workers = self.costs.workers
        self.sharing = Sharing(self.store)

    def plan(self) -> list[RunSpec]:
        return plan(self.suite, self.store.frame(), samplers.propose)

    def rows(self) -> pd.DataFrame:
        """The records of this suite: metrics.select of the frame."""
        return select(self.suite, self.store.frame())

    def known(self) -> int:
        """Runs of this suite that are recorded as done or diverged."""
        return int((self.rows()["status"] != "failed").sum())

    def expected(self, start: bool = False) -> list[Expected]:
        """The forecast with its time. Raises InputError where a run cannot fit this device.

        What is measured is measured in the workers, which it starts. `start`: start them anyway.
        """
        specs = forecast(self.suite, self.store.frame(), samplers.propose)
        names = self.suite.names(specs)
        cells: dict[tuple[str, int], list[RunSpec]] = {}
        for spec in specs:
            cells.setdefault(names[spec.key], []).append(spec)
        for alike in cells.values():
            self.costs.shares(alike[0])
        for alike in cells.values():
            self.costs.speed(alike[0])  # measured while nothing else runs
        if start and cells:
            self.pool.start(max(self.costs.share(alike[0]).processes for alike in cells.values()))
        return [
            Expected(label, n, alike, self.costs.speed(alike[0]))
            for (label, n), alike in cells.items()
        ]

    def run(self) -> Iterator[Event]:
        """Do everything that is missing. Closing the generator keeps all that was recorded."""
        if self.options.storage is not None:
            self.sync()  # a storage that cannot be used is refused before anything is trained
        self.store.write_manifest(self._reported())
        with self.sharing.begin():
            yield from self._run()

    def _reported(self) -> Suite:
        """The suite that the report is to be about: this one.

        But a search alone leaves the targets of the same runs where they were carried before.
        """
        kept = self.store.read_manifest()
        if self.full.targets or kept is None or not kept.targets:
            return self.full
        alike = kept.optimizers.keys() == self.full.optimizers.keys() and all(
            kept.template(label, 1) == self.full.template(label, 1) for label in kept.optimizers
        )
        return kept if alike else self.full

    def _run(self) -> Iterator[Event]:
        failed: dict[str, Ended] = {}
        recorded: set[str] = set()
        forecast_at = _Rarely()
        sync_at = _Rarely(SYNC_SECONDS)
        left: list[RunSpec] = []
        todo: list[list[RunSpec]] = []
        awaited: list[tuple[RunSpec, str]] = []
        with self.pool as pool:
            while True:
                # what is queued stays right until others bring news: plan when it runs low
                if len(todo) < self.workers or self.sharing.news():
                    todo, awaited = self._todo(pool, failed)
                if not (todo or awaited or pool.in_flight):
                    break
                # first, so that no worker waits for the rest
                yield from self._submit(pool, todo, left)
                if forecast_at.due():
                    with forecast_at.timed():
                        left = forecast(self.suite, self.store.frame(), samplers.propose)
                left = [s for s in left if s.key not in recorded and s.key not in failed]
                counts = (len(recorded), max(len(left), 1), self._seconds(left))
                waits = [] if pool.in_flight else awaited
                yield Status(*counts, self.sharing.claims.others(), waits)
                for message in self._until_news(pool, idle=not todo):
                    if isinstance(message, RunRecord):
                        self.store.append(message)
                        recorded.add(message.key)
                        self.sharing.release([message.spec], recorded=True)
                    elif isinstance(message, Ended):
                        self._end(message, failed)
                    yield message
                if sync_at.due():
                    with sync_at.timed():
                        self.sync()
        self.sync()
        yield Status(len(recorded), 0, 0.0)
        yield Finished(self._given_up(failed))

    def _until_news(self, pool: Pool, *, idle: bool) -> Iterator[Message]:
        """Messages up to and including the first that frees a worker.

        Where a worker is `idle` already, up to news from other processes.
        """
        ended = False
        while not ended:
            for message in pool.messages(timeout=1.0):
                ended = ended or isinstance(message, Ended)
                yield message
            ended = ended or (idle and self.sharing.news())

    def sync(self) -> None:
        """Bring the persistent Optuna study up to date with the records."""
        studies.sync(self.suite, self.rows(), self.options.storage, self.store)

    def _todo(
        self, pool: Pool, failed: dict[str, Ended]
    ) -> tuple[list[list[RunSpec]], list[tuple[RunSpec, str]]]:
        """Units that nobody trains yet, and the runs that other processes train, with these."""
        taken = self.sharing.look()
        leave = pool.in_flight | failed.keys() | self.sharing.over()
        missing = [spec for spec in self.plan() if spec.key not in leave]
        specs = [spec for spec in missing if spec.key not in taken]
        workers = self.workers * (1 + len(self.sharing.claims.others()))
        share = max(1, -(-len(specs) // workers))  # leaves a unit for every worker
        units = pack(specs, lambda spec: min(self.costs.lanes(spec), share), workers)
        return units, [(spec, taken[spec.key]) for spec in missing if spec.key in taken]

    def _given_up(self, failed: dict[str, Ended]) -> list[Ended]:
        """The runs that failed here, or in another process while this session was at work."""
        over = self.sharing.over()
        return [
            failed.get(spec.key) or Ended([spec], self.sharing.error(spec.key))
            for spec in self.plan()
            if spec.key in over or spec.key in failed
        ]

    def _submit(
        self, pool: Pool, todo: list[list[RunSpec]], left: list[RunSpec]
    ) -> Iterator[Event]:
        """Give units to free workers; `left`: all runs that are expected still, [] if unknown."""
        while todo and self._has_room(pool, todo[0]):
            unit = self.sharing.claim(todo.pop(0))
            if not unit:
                continue
            last = bool(left) and {s.key for s in left} <= pool.in_flight | {s.key for s in unit}
            threads = self._threads(pool, unit, todo, last)
            resume = self.store.find_snapshot(engine.unit_key(unit))
            how = self.costs.how(unit[0])
            where = (str(self.device), threads, resume, how.micro_batch, how.recompute)
            if self.costs.share(unit[0]).processes < self.workers:
                pool.end_idle()  # whose memory is part of this share
            pool.submit(Job(unit, self.suite.data, *where, self.costs.described(unit[0])))
            yield Started(unit)

    def _has_room(self, pool: Pool, *units: list[RunSpec]) -> bool:
        """Whether the jobs under way leave these units their shares of the device."""
        every = [*(job.unit for job, _ in pool.reached), *units]
        taken = [Fraction(1, self.costs.share(unit[0]).processes) for unit in every]
        return len(taken) == 1 or sum(taken) <= 1

    def _threads(
        self, pool: Pool, unit: list[RunSpec], todo: list[list[RunSpec]], last: bool
    ) -> int:
        """Those of its share, and its part of the cores that neither the jobs under way use nor the
        units that start with it.

        The `last` unit has the cores of those that end in a quarter of its time to itself soon.
        """
        starting = [unit]
        for other in todo:
            if not self._has_room(pool, *starting, other):
                break
            starting.append(other)
        soon = self._seconds_left(unit, 0.0) / 4 if last else 0.0
        used = sum(j.threads for j, r in pool.reached if self._seconds_left(j.unit, r) >= soon)
        used += sum(self.costs.share(other[0]).threads for other in starting)
        spare = max(0, len(os.sched_getaffinity(0)) - used)
        return self.costs.share(unit[0]).threads + spare // len(starting)

    def _seconds_left(self, unit: list[RunSpec], reached: float) -> float:
        """Of a unit of whose steps this part is done."""
        speed, spec = self.costs.speed(unit[0]), unit[0]
        evaluation = spec.eval_batches * speed.evaluation
        return len(unit) * (spec.steps * (1 - reached) * speed.step + evaluation)

    def _end(self, ended: Ended, failed: dict[str, Ended]) -> None:
        if not ended.died:
            self.store.drop_snapshot(engine.unit_key(ended.unit))
        if ended.error:
            frame = self.store.frame()
            done = set(frame["key"][frame["status"] != "failed"])
            for spec in ended.unit:
                if spec.key not in done:
                    failed[spec.key] = ended
                    threads = self.costs.share(spec).threads
                    self.store.append(_failure(spec, ended, self.device, threads))
        self.sharing.release(ended.unit)

    def _seconds(self, specs: list[RunSpec]) -> float:
        speeds = [(self.costs.speed(spec), spec) for spec in specs]
        return sum(speed.run(spec) / speed.processes for speed, spec in speeds)


def _failure(spec: RunSpec, ended: Ended, device: torch.device, threads: int) -> RunRecord:
    nan = float("nan")
    return RunRecord(
        spec=spec,
        status="failed",
        loss=nan,
        loss_init=nan,
        train_loss=nan,
        train_mean=nan,
        curve=[],
        seconds=0.0,
        flops=0.0,
        peak_memory=0,
        env={**engine.environment(device, len(ended.unit), spec.batch), "threads": threads},
        finished=time.time(),
        error=ended.traceback or ended.error,
    )


class _Rarely:
    """Bookkeeping that may take at most 2% of the time, and not more often than `seconds`."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._next = now + max(self._seconds, 50 * (now - began))
