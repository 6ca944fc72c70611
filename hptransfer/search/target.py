"""The runs at a target: a bracket about the carried lr, then seeds while undecided."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hptransfer.analysis import judgement
from hptransfer.analysis.curve import Curve
from hptransfer.analysis.judgement import Case
from hptransfer.analysis.losses import capped, learned, means
from hptransfer.analysis.statuses import finished
from hptransfer.search import bracket
from hptransfer.search.trials import Point, Trial, Trials
from hptransfer.spec import canonical
from hptransfer.suite.resolved import Suite
from hptransfer.suite.tables import Thresholds

EXPECTED = "expected"  # status of a run whose loss a forecast made up


@dataclass(frozen=True)
class Looks:
    """When the seeds at a target end.

    `counts`: numbers of seeds at which the verdict is looked at, rising. `surprise`: whether it
    counts as undecided where losses are made up, which cannot decide it.
    """

    counts: tuple[int, ...]
    surprise: bool = False


def propose(
    suite: Suite, label: str, rows: pd.DataFrame, carried: Point, looks: Looks
) -> list[tuple[Point, int]]:
    """(point, seed) pairs that the verdict at a target still lacks; [] when it is decided.

    First come the bracket about the carried lr on seed 0 and the carried lr itself on the seeds
    below the first look. Then the five half octaves about the best mean, and the carried lr, on the
    seeds below each look, until the verdict is decided.
    `rows`: those of (label, n). `carried`: log2 lr and the other hyperparameters, which stay.
    """
    lr, hp = carried
    rows = finished(rows)
    rows = rows[rows["hp_point"] == canonical(hp)]
    target = _Target(
        bracket.Search(
            *bracket.around(suite, label, lr), suite.setting(label, "trials"), canonical(hp)
        ),
        lr,
        Trials.of(rows),
        frozenset(Trials.of(rows[rows["status"] == EXPECTED]).known),
        suite.thresholds,
    )
    missing = target.trials.missing(target.stages(looks))
    if not missing and target.trials.untold():
        missing = target.trials.missing(target.stages(looks))
    return [((lr, hp), seed) for (lr, _), seed in missing]


@dataclass(frozen=True)
class _Target:
    search: bracket.Search
    carried: float
    trials: Trials
    made_up: frozenset[Trial]
    thresholds: Thresholds

    def stages(self, looks: Looks) -> Iterator[list[Trial]]:
        hp = self.search.hp
        for seeds in looks.counts:
            at_carried = [((self.carried, hp), seed) for seed in range(seeds)]
            if seeds == looks.counts[0]:
                grid = [((lr, hp), 0) for lr in bracket.bracket({}, *self._grid())]
                at_carried += [trial for trial in grid if trial not in at_carried]
            if first := [trial for trial in at_carried if trial not in self.trials.told]:
                yield first
            yield from self.search.stages(self.trials, seeds)
            if not self._undecided(looks.surprise):
                return

    def _grid(self) -> tuple[bracket.Octaves, bracket.Octaves, int]:
        return self.search.start, self.search.limits, self.search.most

    def _undecided(self, surprise: bool) -> bool:
        told = self.trials.at(self.search.hp)
        if self.made_up & told.keys():
            return surprise
        names, loss, roof = self.trials.grid(told)
        roofed = np.asarray((~learned(loss, roof) & ~np.isnan(loss)).any(axis=1))
        grid = capped(loss, roof)
        points = Curve(np.array([lr for lr, _ in names]), grid, means(grid, ~roofed), roofed)
        return undecided(points, self.carried, self.thresholds)


def undecided(points: Curve, carried: float, thresholds: Thresholds) -> bool:
    """Whether more seeds could change the verdict at a target.

    They cannot where no run learned or the minimum lies at an edge. Else it is undecided while it
    is inconclusive. `carried`: log2 lr.
    """
    k = int(np.argmin(points.mean))
    if not np.isfinite(points.mean).all() or k in (0, len(points.x) - 1):
        return False
    case = Case.of(points.x, points.grid, points.roofed, carried)
    return case is None or judgement.undecided(case, thresholds)
