"""The runs that a suite still lacks: a pure function of the suite and its records."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import pandas as pd

from hptransfer.analysis.frame import select
from hptransfer.analysis.optimum import optimum
from hptransfer.analysis.statuses import finished
from hptransfer.search import bracket
from hptransfer.search.bracket import Point, Propose
from hptransfer.search.budgets import further_budgets
from hptransfer.spec import RunSpec, Unit, canonical
from hptransfer.suite.resolved import Suite, fresh_seeds

# Octaves from the carried lr to a target's optimum, in a forecast. Whole suites took about as many
# runs as this value gives (docs/measurements.md).
BESIDE = 0.75


def plan(suite: Suite, frame: pd.DataFrame, propose: Propose = bracket.propose) -> list[RunSpec]:
    """The runs that can be named now and have no record as done or diverged, in order of use.

    Per optimizer: the search at the proxy; then, at every target, fresh seeds at the carried lr
    and, if the suite verifies, a bracket around it and fresh seeds at its optimum. An optimum that
    is known runs on the suite's further budgets too.
    `propose`: the search, bracket.propose or samplers.propose.
    """
    rows = finished(select(suite, frame))
    known = set(finished(frame)["key"])
    parts = dict(list(rows.groupby(["optimizer", "n", "stage"], sort=False)))
    empty = rows.iloc[:0]
    todo: list[RunSpec] = []
    for label in suite.optimizers:
        searched = parts.get((label, suite.proxy, "search"), empty)
        missing = propose(suite, label, suite.proxy, searched)
        todo += _specs(suite, label, suite.proxy, missing)
        at_proxy = None if missing else optimum(searched)
        if at_proxy is None:
            continue
        carried, hp = suite.clip_lr(label, at_proxy.log2_lr), at_proxy.hp
        todo += further_budgets(suite, label, suite.proxy, carried, hp)
        for n in suite.targets:
            wanted = {carried}
            if suite.verify:
                at_n = parts.get((label, n, "search"), empty)
                at_n = at_n[at_n["hp_point"] == canonical(hp)]
                pairs = bracket.propose(suite, label, n, at_n, around=carried)
                todo += _specs(suite, label, n, [((lr, hp), s) for (lr, _), s in pairs])
                best = None if pairs else optimum(at_n)
                if best is not None:
                    own = suite.clip_lr(label, best.log2_lr)
                    wanted.add(own)
                    todo += further_budgets(suite, label, n, own, hp)
            fresh = [((lr, hp), s) for lr in wanted for s in fresh_seeds(suite.fresh_seeds)]
            todo += _specs(suite, label, n, fresh)
    return [spec for key, spec in {spec.key: spec for spec in todo}.items() if key not in known]


def _specs(suite: Suite, label: str, n: int, pairs: Iterable[tuple[Point, int]]) -> list[RunSpec]:
    template = suite.template(label, n)
    return [template.point(lr, seed, **hp) for (lr, hp), seed in pairs]


def forecast(
    suite: Suite, frame: pd.DataFrame, propose: Propose = bracket.propose
) -> list[RunSpec]:
    """Every run still to come, if each unknown curve is a parabola about the middle of its grid.

    The first plan is exact; the runs that depend on its results are a guess of their number. At a
    target the parabola lies beside the carried lr, so that both need fresh seeds.
    Raises AssertionError where the plan asks for a run that was answered, which would never end.
    """
    expected: dict[str, RunSpec] = {}
    optima: dict[str, float] = {}
    while todo := plan(suite, frame, propose):
        if again := [spec.key for spec in todo if spec.key in expected]:
            raise AssertionError(f"forecast: answered, but asked for again: {', '.join(again)}")
        expected |= {spec.key: spec for spec in todo}
        for spec in todo:
            if spec.cell not in optima:
                optima[spec.cell] = _guess(suite, [s for s in todo if s.cell == spec.cell])
        made_up = [_made_up(spec, optima[spec.cell]) for spec in todo]
        frame = pd.DataFrame(made_up) if frame.empty else pd.concat([frame, pd.DataFrame(made_up)])
    return list(expected.values())


def _guess(suite: Suite, first: list[RunSpec]) -> float:
    """Log2 lr of a curve's optimum, guessed from the first runs that are planned for the curve."""
    label, n = suite.names(first[:1])[first[0].key]
    if n != suite.proxy:
        lrs = [spec.log2_lr for spec in first]
        return (min(lrs) + max(lrs)) / 2 - BESIDE
    return sum(suite.start_grid(label)) / 2


def _made_up(spec: RunSpec, best: float) -> dict[str, object]:
    return {
        "key": spec.key,
        "cell": spec.cell,
        "spec": spec.to_json(),
        "width": spec.width,
        "batch": spec.batch,
        "steps": spec.steps,
        "log2_lr": spec.log2_lr,
        "seed": spec.seed,
        "status": "done",
        "loss": 1 + 0.1 * (spec.log2_lr - best) ** 2,
        "loss_init": 100.0,
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
