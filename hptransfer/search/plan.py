"""The runs that a suite still lacks: a pure function of the suite and its records."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import pandas as pd

from hptransfer.analysis.frame import belonging, groups, select
from hptransfer.analysis.group_values import group_values
from hptransfer.analysis.optimum import optimum
from hptransfer.analysis.statuses import finished
from hptransfer.search import proxy, target
from hptransfer.search.budgets import further_budgets
from hptransfer.search.proxy import Propose
from hptransfer.search.ruled import ruled
from hptransfer.search.target import EXPECTED, Looks
from hptransfer.search.trials import Point
from hptransfer.spec import RunSpec, Unit, canonical
from hptransfer.suite.resolved import Suite

# Octaves from the carried lr to a target's optimum, in a forecast. Whole suites took about as many
# runs as this value gives (docs/measurements.md).
BESIDE = 0.75


def plan(
    suite: Suite,
    frame: pd.DataFrame,
    propose: Propose = proxy.propose,
    *,
    surprise: bool = False,
) -> list[RunSpec]:
    """The runs that can be named now and have no record as done or diverged, in order of use.

    Per optimizer: the search at the proxy; then, at every target, the carried lr on the first
    seeds and, if the suite verifies, all that its verdict needs (search.target). An optimum
    that is known runs on the suite's further budgets too, and beside it the learning rates of
    the rules that a comparison judges (search.ruled). The waypoints of all optimizers come
    last, each with one seed.
    `propose`: the search at the proxy, proxy.propose or samplers.propose. `surprise`: as in
    target.Looks.
    """
    rows = finished(select(suite, frame))
    known = set(finished(belonging(suite, frame))["key"])
    parts = groups(rows, tuning=True)
    empty = rows.iloc[:0]
    at_edge = {each.optimizer for each in group_values(suite, rows) if each.censored}
    todo: list[RunSpec] = []
    last: list[RunSpec] = []
    for label in suite.optimizers:
        searched = parts.get((label, suite.proxy), empty)
        missing = propose(suite, label, suite.proxy, searched)
        todo += _specs(suite, label, suite.proxy, missing)
        own = searched[~searched["tuning"].astype(bool)]
        best = None if missing else optimum(own)
        if best is None:
            continue
        carried = suite.clip_lr(label, best.log2_lr), best.hp
        todo += further_budgets(suite, label, suite.proxy, own)
        # More seeds cannot change a verdict that says that the proxy's optimum is not known.
        known_best = best.censored is None and label not in at_edge
        for n in (*suite.targets, *suite.waypoints):
            counts = suite.looks_at(n) if known_best else suite.looks_at(n)[:1]
            at_n = parts.get((label, n), empty)
            runs = _carried_to(suite, label, n, at_n, carried, Looks(counts, surprise))
            (last if n in suite.waypoints else todo).extend(runs)
    named = {spec.key: spec for spec in (*todo, *last)}
    return [spec for key, spec in named.items() if key not in known]


def _carried_to(
    suite: Suite, label: str, n: int, rows: pd.DataFrame, carried: Point, looks: Looks
) -> list[RunSpec]:
    """The runs that axis value `n` asks for, of a label whose lr at the proxy is known.

    `rows`: those of (label, n).
    """
    if not suite.verify:
        return _specs(suite, label, n, [(carried, seed) for seed in range(looks.counts[0])])
    pairs = target.propose(suite, label, rows, carried, looks)
    if pairs:
        return _specs(suite, label, n, pairs)
    searched = rows[rows["hp_point"] == canonical(carried[1])]
    return further_budgets(suite, label, n, searched) + ruled(suite, label, n, searched, carried)


def _specs(suite: Suite, label: str, n: int, pairs: Iterable[tuple[Point, int]]) -> list[RunSpec]:
    template = suite.template(label, n)
    return [template.point(lr, seed, **hp) for (lr, hp), seed in pairs]


def forecast(
    suite: Suite,
    frame: pd.DataFrame,
    propose: Propose = proxy.propose,
    *,
    surprise: bool = False,
) -> list[RunSpec]:
    """Every run still to come, if each unknown curve is a parabola about the middle of its grid.

    The first plan is exact; the runs that depend on its results are a guess of their number. At a
    target the parabola lies beside the carried lr. Where runs are known, the best of them stays the
    best. A verdict on made-up losses counts as decided at its first look, and only at its last one
    with `surprise`, which gives the number of runs at most.
    Raises AssertionError where the plan asks for a run that was answered, which would never end.
    """
    guesses = _Guesses(suite, frame)
    expected: dict[str, RunSpec] = {}
    while todo := plan(suite, frame, propose, surprise=surprise):
        if again := [spec.key for spec in todo if spec.key in expected]:
            raise AssertionError(f"forecast: answered, but asked for again: {', '.join(again)}")
        expected |= {spec.key: spec for spec in todo}
        made_up = pd.DataFrame(guesses.rows(todo))
        frame = made_up if frame.empty else pd.concat([frame, made_up])
    return list(expected.values())


class _Guesses:
    """Losses of runs that were not made yet, nats."""

    def __init__(self, suite: Suite, frame: pd.DataFrame) -> None:
        self.suite = suite
        done = frame[frame["status"] == "done"]
        means = done.groupby(["cell", "log2_lr"])["loss"].mean()
        self.known: dict[str, dict[float, float]] = {}
        for (cell, log2_lr), loss in means.items():  # type: ignore[misc]
            self.known.setdefault(cell, {})[log2_lr] = loss
        self.optima: dict[str, float] = {}
        self.offsets: dict[str, float] = {}
        self.worst = float(done["loss"].max()) if suite.tuned and len(done) else 0.0

    def rows(self, todo: list[RunSpec]) -> list[dict[str, object]]:
        """Rows of these runs as the store gives them, with a loss each."""
        for spec in todo:
            if spec.cell not in self.optima:
                self.optima[spec.cell] = self._best([s for s in todo if s.cell == spec.cell])
        return [_row(spec, self._loss(spec)) for spec in todo]

    def _best(self, first: list[RunSpec]) -> float:
        """Log2 lr of a curve's optimum, from the first runs that are planned for the curve."""
        label, n = self.suite.names(first[:1])[first[0].key]
        self.offsets[first[0].cell] = self._offset(label, first[0])
        if n != self.suite.proxy:
            lrs = [spec.log2_lr for spec in first]
            return (min(lrs) + max(lrs)) / 2 - BESIDE
        return sum(self.suite.start_grid(label)) / 2

    def _offset(self, label: str, spec: RunSpec) -> float:
        """Nats for tuned hyperparameters away from the middle of their range.

        Where runs are known, other values of them give no better loss.
        """
        spans = self.suite.tuned.get(label, {})
        away = (math.log2(spec.hp[x]) - (span.low + span.high) / 2 for x, span in spans.items())
        return self.worst + sum(0.1 * octaves**2 for octaves in away) if spans else 0.0

    def _loss(self, spec: RunSpec) -> float:
        known = self.known.get(spec.cell)
        if known is None:
            parabola = 0.1 * (spec.log2_lr - self.optima[spec.cell]) ** 2
            return 1 + parabola + self.offsets[spec.cell]
        return known.get(spec.log2_lr, max(known.values()) + 0.01)


def _row(spec: RunSpec, loss: float) -> dict[str, object]:
    return {
        "key": spec.key,
        "cell": spec.cell,
        "spec": spec.to_json(),
        "width": spec.width,
        "batch": spec.batch,
        "steps": spec.steps,
        "log2_lr": spec.log2_lr,
        "seed": spec.seed,
        "status": EXPECTED,
        "loss": loss,
        "loss_init": math.inf,
    }


def pack(specs: Iterable[RunSpec], lanes: Callable[[RunSpec], int], workers: int = 1) -> list[Unit]:
    """Runs -> units of at most `lanes(spec)` lanes, in order of first use.

    Runs that may share a unit make units of nearly equal size. Every worker gets equally many, if
    that costs a unit no more than a third of its lanes.
    """
    kinds: dict[str, list[RunSpec]] = {}
    for spec in specs:
        kinds.setdefault(spec.identity(*spec.lane_fields), []).append(spec)
    units = []
    for alike in kinds.values():
        count = -(-len(alike) // max(1, lanes(alike[0])))
        shared = -(-count // workers) * workers
        if shared <= min(1.5 * count, len(alike)):
            count = shared
        ends = [-(-len(alike) * i // count) for i in range(count + 1)]
        units += [Unit(tuple(alike[first:last])) for first, last in pairwise(ends)]
    return units
