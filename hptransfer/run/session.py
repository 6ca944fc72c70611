"""plan -> pack -> claim -> train -> append, until nothing is missing. Workers on one device.

Other processes may be at work on the same suite: a session trains the runs that none of them has
claimed, and waits for the records of the rest.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hptransfer.analysis.frame import belonging, select
from hptransfer.analysis.statuses import finished
from hptransfer.cost.cost_model import CostModel
from hptransfer.cost.count import Cost
from hptransfer.cost.placement import Placement
from hptransfer.cost.speed import Speed
from hptransfer.datasets import Tokens
from hptransfer.datasets.ngrams import ngram_losses
from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.run import scheduler
from hptransfer.run.events import Event, Finished, Started, Status, Unwritten
from hptransfer.run.failure import failure
from hptransfer.run.rarely import Rarely
from hptransfer.run.sharing import Sharing
from hptransfer.run.workers import Ended, Job, Message, Pool, Timing
from hptransfer.search import samplers, studies
from hptransfer.search.plan import forecast, pack, plan
from hptransfer.search.proxy import Propose
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train import engine

SYNC_SECONDS = 30.0  # between additions to the persistent Optuna study


@dataclass(frozen=True)
class Options:
    """Where a session runs and with how much: no option changes a loss by more than rounding."""

    results: Path
    device: str = "auto"
    workers: int | None = None
    lanes: int | None = None
    storage: str | None = None
    snapshot_seconds: float = engine.SNAPSHOT_SECONDS


@dataclass(frozen=True)
class Forecast:
    """Runs of one optimizer at one axis value that are still to come, and how fast they go."""

    label: str
    n: int
    specs: list[RunSpec]
    speed: Speed

    @property
    def seconds(self) -> float:
        """Seconds of all runs, which all processes of the placement share."""
        return len(self.specs) * self.speed.run(self.specs[0]) / self.speed.processes

    def flops(self, cost: Cost) -> float:
        """FLOPs of all runs; `cost` is that of one run."""
        spec = self.specs[0]
        return len(self.specs) * cost.flops.of_run(spec.steps, spec.evaluations)


class Session:
    """A resolved suite on a device: its data, its store, its workers and its cost model.

    `search`: the search at the proxy in place of the suite's sampler.
    """

    def __init__(
        self, suite: SuiteTable, options: Options, only: list[str], search: Propose | None = None
    ) -> None:
        self._propose = search or samplers.propose
        self._aside = (lambda: search) if search else samplers.aside
        self.device = engine.pick_device(options.device)
        self.options = options
        self.data = engine.load_data(suite.data)
        self.full = resolve(suite, self.data)
        self.suite = self.full.only(only)
        self.store = Store(options.results, suite.name)
        self.pool = Pool(options.results, suite.name, options.snapshot_seconds)
        self.costs = CostModel(
            self.suite,
            self.data,
            self.device,
            together=self._time,
            training=lambda: bool(self.pool.jobs),
            workers=options.workers,
            lanes=options.lanes,
        )
        self.workers = self.costs.workers
        self.sharing = Sharing(self.store)

    def _time(self, spec: RunSpec, placement: Placement, lanes: int) -> Speed:
        """The speed while all processes train: they share caches, memory and the CPU's clock."""
        where = (self.suite.data, str(self.device), placement)
        return self.pool.time(Timing(spec, *where, lanes, self.costs.prepared(spec).params))

    def plan(self) -> list[RunSpec]:
        """The missing runs that can be named now."""
        return plan(self.suite, self.store.frame(), self._propose)

    def rows(self) -> pd.DataFrame:
        """The records of this suite: `frame.select` of the frame."""
        return select(self.suite, self.store.frame())

    def known(self) -> int:
        """Runs of this suite that are recorded as done or diverged."""
        return len(finished(belonging(self.suite, self.store.frame())))

    def expected(self, start: bool = False) -> list[Forecast]:
        """The forecast with its time. Raises InputError where a run does not fit this device.

        Steps are timed in the workers, which starts them. `start`: start them in any case.
        """
        specs = forecast(self.suite, self.store.frame(), self._aside())
        names = self.suite.names(specs)
        cells: dict[tuple[str, int], list[RunSpec]] = {}
        for spec in specs:
            cells.setdefault(names[spec.key], []).append(spec)
        for alike in cells.values():
            self.costs.placements(alike[0])  # refuses before anything is timed
        for alike in cells.values():
            self.costs.speed(alike[0])  # timed while nothing else runs
        if start and cells:
            placements = [self.costs.placement(alike[0]) for alike in cells.values()]
            self.pool.start(max(placement.processes for placement in placements))
        return [
            Forecast(label, n, alike, self.costs.speed(alike[0]))
            for (label, n), alike in cells.items()
        ]

    def most(self) -> int:
        """Number of runs still to come where every verdict stays undecided to the last seed."""
        return len(forecast(self.suite, self.store.frame(), self._aside(), surprise=True))

    def run(self) -> Generator[Event, None, None]:
        """Train every missing run. Closing the generator keeps what is recorded."""
        if self.options.storage is not None:
            self.sync()  # refuses a storage that cannot be used before anything trains
        self.store.write_manifest(self._with_ngrams(self._reported()))
        with self.sharing.begin():
            yield from self._run()

    def _with_ngrams(self, suite: Suite) -> Suite:
        """The suite with the losses of n-gram tables, where its data is text."""
        if not isinstance(self.data, Tokens) or suite.ngrams:
            return suite
        kept = self.store.read_manifest()
        if kept is not None and kept.ngrams and _sha256(kept) == _sha256(suite):
            return suite.model_copy(update={"ngrams": kept.ngrams})
        return suite.model_copy(update={"ngrams": ngram_losses(self.data)})

    def _reported(self) -> Suite:
        """The suite of the report: this one.

        A search without targets keeps the earlier suite, if only its targets and proxy differ: the
        report then still shows what was carried to them.
        """
        kept = self.store.read_manifest()
        if self.full.targets or kept is None or not kept.targets:
            return self.full
        alike = kept.templates.keys() == self.full.templates.keys() and all(
            kept.template(label, 1) == self.full.template(label, 1) for label in kept.templates
        )
        return kept if alike else self.full

    def _run(self) -> Iterator[Event]:
        failed: dict[str, Ended] = {}
        recorded: set[str] = set()
        forecast_at = Rarely()
        sync_at = Rarely(SYNC_SECONDS)
        left: list[RunSpec] = []
        todo: list[Unit] = []
        awaited: list[tuple[RunSpec, str]] = []
        with self.pool as pool:
            while True:
                # the queue stays right until others bring news: plan anew when it is short
                if len(todo) < self.workers or self.sharing.news():
                    todo, awaited = self._todo(pool, failed, recorded)
                if not (todo or awaited or pool.in_flight):
                    break
                # comes first: the rest takes time, and workers would wait for it
                yield from self._submit(pool, todo)
                if forecast_at.due():
                    with forecast_at.timed():
                        left = forecast(self.suite, self.store.frame(), self._aside())
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
                        self._end(message, failed, recorded)
                    yield message
                if sync_at.due():
                    with sync_at.timed():
                        yield from self._synced()
        yield from self._synced(last=True)
        yield Status(len(recorded), 0, 0.0)
        yield Finished(self._given_up(failed))

    def _until_news(self, pool: Pool, *, idle: bool) -> Iterator[Message]:
        """Messages up to and including the first that frees a worker.

        Where a worker is `idle` already, up to news from other processes.
        """
        ended = False
        while not ended:
            if not (pool.in_flight or idle):
                raise AssertionError("run: units are left, but none is under way")
            for message in pool.messages(timeout=1.0):
                ended = ended or isinstance(message, Ended)
                yield message
            ended = ended or (idle and self.sharing.news())

    def sync(self) -> None:
        """Bring the persistent Optuna study up to date with the records."""
        studies.sync(self.suite, self.rows(), self.options.storage, self.store)

    def _synced(self, *, last: bool = False) -> Iterator[Event]:
        """`sync` where training must not end with it: a database may be locked for a while."""
        try:
            self.sync()
        except InputError as error:
            yield Unwritten(str(error), last)

    def _todo(
        self, pool: Pool, failed: dict[str, Ended], recorded: set[str]
    ) -> tuple[list[Unit], list[tuple[RunSpec, str]]]:
        """Units that nobody trains yet, and runs with the other processes that train them.

        Raises InputError where the record of a run is gone that this session wrote.
        """
        taken = self.sharing.look()
        leave = pool.in_flight | failed.keys() | self.sharing.over()
        missing = [spec for spec in self.plan() if spec.key not in leave]
        if lost := [spec.key for spec in missing if spec.key in recorded]:
            raise InputError(
                f"{self.store.folder}: the record of run {lost[0]} was written and is gone",
                "leave the records alone while this runs; the same command goes on from here",
            )
        specs = [spec for spec in missing if spec.key not in taken]
        workers = self.workers * (1 + len(self.sharing.claims.others()))
        share = max(1, -(-len(specs) // workers))  # so few lanes that every worker has a unit
        units = pack(specs, lambda spec: min(self.costs.lanes(spec), share), workers)
        return units, [(spec, taken[spec.key]) for spec in missing if spec.key in taken]

    def _given_up(self, failed: dict[str, Ended]) -> list[Ended]:
        """The runs that failed here, or in another process while this session was at work."""
        over = self.sharing.over()
        return [
            failed.get(spec.key) or Ended(Unit((spec,)), self.sharing.error(spec.key))
            for spec in self.plan()
            if spec.key in over or spec.key in failed
        ]

    def _submit(self, pool: Pool, todo: list[Unit]) -> Iterator[Event]:
        """Give units to free workers, in the order of `todo`."""
        while todo:
            waiting = [self.costs.placement(unit.spec) for unit in todo[: self.workers]]
            running = [job.placement for job in pool.jobs]
            started = scheduler.start(waiting, running, self.costs.cores)
            if not started:
                break
            unit = self.sharing.claim(todo.pop(0))
            if unit is None:
                continue
            if started[0].processes < self.workers:
                pool.end_idle()  # the placement counts on the memory that they hold
            resume = self.store.find_snapshot(unit.key)
            where = (self.suite.data, str(self.device), started[0], resume)
            prepared = self.costs.prepared(unit.spec)
            pool.submit(Job(unit, *where, prepared.params, prepared.flops))
            yield Started(unit)

    def _end(self, ended: Ended, failed: dict[str, Ended], recorded: set[str]) -> None:
        """Record the runs that failed, in `failed` too, and release the unit.

        Raises AssertionError where a worker that reports no error left a record out.
        """
        if not ended.died:
            self.store.drop_snapshot(ended.unit.key)
        if ended.error:
            done = set(finished(self.store.frame())["key"])
            for spec in ended.unit.runs:
                if spec.key not in done:
                    failed[spec.key] = ended
                    self.store.append(failure(spec, ended, self.device))
        elif missing := {spec.key for spec in ended.unit.runs} - recorded:
            raise AssertionError(f"run: ended without a record: {', '.join(sorted(missing))}")
        self.sharing.release(ended.unit.runs)

    def _seconds(self, specs: list[RunSpec]) -> float:
        """Seconds of these runs, where all processes train."""
        speeds = [(self.costs.speed(spec), spec) for spec in specs]
        return sum(speed.run(spec) / speed.processes for speed, spec in speeds)


def _sha256(suite: Suite) -> str:
    """The fingerprint of a suite's data."""
    return next(iter(suite.templates.values())).data["sha256"]
