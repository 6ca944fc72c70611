"""How many points are enough: lr* by fewer points of a curve, beside that by all of them."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from hptransfer.analysis import former
from hptransfer.analysis.curve import curve
from hptransfer.analysis.frame import searches
from hptransfer.analysis.optimum import near, optimum
from hptransfer.analysis.parabola import Fit, Near
from hptransfer.analysis.question import Question
from hptransfer.suite.grid import Grid

LEAST = 3  # points of a parabola
MOST_POINTS = 16  # near a minimum; a curve with more does not ask how few are enough
MOST_SUBSETS = 500  # of one size; of more, a fixed draw stands for all


@dataclass(frozen=True)
class Subset:
    """lr* by every choice of `n_points` points near the minimum that lies on both sides of it.

    `spread`: standard deviation of lr* over the choices, octaves; 0 for all points. `largest`: how
    far one of them lies from lr* by all points, octaves.
    """

    n_points: int
    n_subsets: int
    spread: float
    largest: float


def subsets(near: Near) -> list[Subset]:
    """One per number of points from 3 to all, rising; [] where no parabola can be fitted."""
    whole = Fit.of(near.x, near.losses[None], near.k, near.reach)
    if whole is None:
        return []
    count, best = len(near.x), whole.center + float(whole.vertex()[0])
    table = []
    for size in range(LEAST, count + 1):
        fitted = [_vertex(near, part) for part in _choices(count, size)]
        found = np.array([lr for lr in fitted if lr is not None])
        if len(found):
            far = float(np.abs(found - best).max())
            table.append(Subset(size, len(found), float(found.std()), far))
    return table


@dataclass(frozen=True)
class Spread:
    """How much lr* depends on which `n_points` learning rates near the minimum were tried.

    Over the curves of one optimizer, `n_curves`, that have more points than that, and over the
    `n_subsets` choices of so many of them. `spread`: root mean square of the curves' standard
    deviations, octaves. `largest`: how far one lr* lies from that by all points, octaves. `seeds`:
    root mean square of the standard errors of lr* over seeds, octaves; NaN without two seeds.
    """

    optimizer: str
    n_points: int
    n_curves: int
    n_subsets: int
    spread: float
    largest: float
    seeds: float

    @property
    def enough(self) -> bool:
        """Whether the seeds leave lr* less certain than the choice of learning rates does."""
        return self.spread < self.seeds


def spreads(suite: Question, rows: pd.DataFrame) -> list[Spread]:
    """One per optimizer and number of points, labels as the suite orders them, numbers rising.

    Curves count that have an optimum between two points, neither censored nor beside a divergence.
    [] for records of schema 1. `rows`: rows of frame.select.
    """
    if former.applies(suite):
        return []
    table = []
    for label, by_n in searches(suite, rows).items():
        grid = suite.grid(label)
        curves = [known for part in by_n.values() if (known := _curve(part, grid))]
        for size in sorted({subset.n_points for _, found in curves for subset in found}):
            used = [(se, row) for se, found in curves for row in found if row.n_points == size]
            table.append(
                Spread(
                    optimizer=label,
                    n_points=size,
                    n_curves=len(used),
                    n_subsets=sum(row.n_subsets for _, row in used),
                    spread=_rms([row.spread for _, row in used]),
                    largest=max(row.largest for _, row in used),
                    seeds=_rms([se for se, _ in used]),
                )
            )
    return table


def _rms(values: list[float]) -> float:
    """Root mean square of the known values; NaN without one."""
    known = np.array([value for value in values if not np.isnan(value)])
    return float(np.sqrt((known**2).mean())) if len(known) else float("nan")


def _curve(rows: pd.DataFrame, grid: Grid) -> tuple[float, list[Subset]] | None:
    """The standard error of lr* over seeds, octaves, and the subsets smaller than the whole."""
    best = optimum(rows, grid)
    if best is None or best.vertex is None or best.cliff:
        return None
    found = near(curve(rows), grid)
    se = best.se if best.seeds > 1 else float("nan")
    if found is None or len(found.x) > MOST_POINTS:
        return None
    return se, subsets(found)[:-1]


def _choices(count: int, size: int) -> list[tuple[int, ...]]:
    every = list(combinations(range(count), size))
    if len(every) <= MOST_SUBSETS:
        return every
    lot = np.random.default_rng(0).choice(len(every), MOST_SUBSETS, replace=False)
    return [every[i] for i in sorted(lot)]


def _vertex(near: Near, part: tuple[int, ...]) -> float | None:
    """lr* by these points, log2; None where their least mean loss has no neighbour on a side."""
    x, losses = near.x[list(part)], near.losses[list(part)]
    fit = Fit.of(x, losses[None], int(losses.mean(axis=1).argmin()), near.reach)
    return None if fit is None else fit.center + float(fit.vertex()[0])
