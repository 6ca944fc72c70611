"""Surfaces fitted to recorded curves: shape, differences of the seeds, and what is left.

A curve has the shape of simulated.Surface about its optimum, and every seed has a height and a
slope of its own. The points within two octaves of the least mean loss are fitted by least squares.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import OptimizeResult, least_squares

from hptransfer.analysis.curve import Curve, curve
from hptransfer.analysis.statuses import finished
from hptransfer.records.store import Store
from hptransfer.spec import FIRST_SCHEMA, SCHEMA
from simulated import Surface

REACH = 2.0  # octaves from the least mean loss to the furthest point of a fit
SPAN = 0.5  # octaves between a seed's outermost points: closer ones do not show its slope
LEAST_SPARE = 2  # runs beyond the number of coefficients
MOST_SKEW = 3.0  # per octave, to each side
SHAPE = 4  # coefficients: height and place of the optimum, curvature, skew


@dataclass(frozen=True)
class Fitted:
    """A fitted curve. `height`, `slope`: variances over seeds, unbiased, so that one may be < 0.

    NaN with one seed. `curvature`, `skew`, `remainder`: as in Surface. `seeds`, `runs`: those of
    the fit.
    """

    curvature: float
    skew: float
    height: float
    slope: float
    remainder: float
    seeds: int
    runs: int

    @property
    def octaves(self) -> tuple[float, float]:
        """Costs of one octave down and of one up, nats."""
        shape = Surface(self.curvature, 0, 0, 0, self.skew)
        return float(shape.cost(-1.0)), float(shape.cost(1.0))

    @property
    def octave(self) -> float:
        """Their mean, nats."""
        return sum(self.octaves) / 2


@dataclass(frozen=True)
class Recorded:
    """The fit of the runs of one cell: all that differ in lr and seed alone."""

    suite: str
    schema: int
    optimizer: str
    width: int
    fitted: Fitted


def fit(points: Curve) -> Fitted | None:
    """None where the optimum lies at an edge or beside a gap, or too few runs are near it."""
    means = np.where(points.roofed, np.inf, points.mean)
    k = int(means.argmin())
    if k in (0, len(means) - 1) or np.diff(points.x[k - 1 : k + 2]).max() > 1:
        return None
    near = ~points.roofed & (np.abs(points.x - points.x[k]) <= REACH)
    x, grid = points.x[near], points.grid[near]
    spans = [np.ptp(x[ran]) if (ran := ~np.isnan(losses)).any() else 0.0 for losses in grid.T]
    grid = grid[:, np.array(spans) >= SPAN]
    i, j = np.nonzero(~np.isnan(grid))
    others = grid.shape[1] - 1
    spare = len(i) - SHAPE - 2 * others
    if others < 0 or spare < LEAST_SPARE:
        return None
    found = _least_squares(x[i], j, grid[i, j], others)
    of_one = 2 * found.cost / spare
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * of_one
    heights, slopes = slice(SHAPE, SHAPE + others), slice(SHAPE + others, None)

    def variance(part: slice) -> float:
        """That of the seeds, without that of its estimate."""
        if not others:
            return float("nan")
        own = found.x[part]
        return float(own @ own - np.trace(covariance[part, part])) / others

    return Fitted(
        curvature=float(np.exp(found.x[2])),
        skew=float(found.x[3]),
        height=variance(heights),
        slope=variance(slopes),
        remainder=float(np.sqrt(of_one)),
        seeds=others + 1,
        runs=len(i),
    )


def _least_squares(
    x: np.ndarray, seed: np.ndarray, losses: np.ndarray, others: int
) -> OptimizeResult:
    """Height, place, log curvature, skew, then heights and slopes of the seeds, which sum to 0.

    Those of S seeds are S - 1 coefficients of orthonormal contrasts. `x`: log2 lr, `seed`: from 0
    on, `losses`: nats, (runs,).
    """
    size = others + 1
    contrasts = np.linalg.qr(np.column_stack([np.ones(size), np.eye(size)[:, 1:]]))[0][:, 1:]
    own = contrasts[seed]

    def left(p: np.ndarray) -> np.ndarray:
        z = x - p[1]
        shape = p[0] + Surface(np.exp(p[2]), 0, 0, 0, p[3]).cost(z)
        return shape + own @ p[SHAPE : SHAPE + others] + z * (own @ p[SHAPE + others :]) - losses

    free = np.full(2 * others, np.inf)
    low = np.concatenate([[-np.inf, x.min(), -12, -MOST_SKEW], -free])
    high = np.concatenate([[np.inf, x.max(), 2, MOST_SKEW], free])
    starts = [
        np.concatenate([[losses.min(), np.median(x), np.log(0.03), skew], np.zeros(2 * others)])
        for skew in (-0.5, 0.5)
    ]
    fits = [least_squares(left, p, x_scale="jac", bounds=(low, high)) for p in starts]
    return min(fits, key=lambda one: one.cost)


def recorded(root: Path) -> Iterator[Recorded]:
    """The fits to all records below a folder, by suite, optimizer and width."""
    for folder in sorted({path.parent for path in root.rglob("records-*.jsonl")}):
        for schema in (SCHEMA, FIRST_SCHEMA):
            frame = finished(Store(folder.parent, folder.name, schema).frame())
            found = []
            for _, rows in frame.groupby("cell"):
                points = curve(rows)
                fitted = None if points.roofed.all() else fit(points)
                if fitted is not None:
                    spec = rows["spec"].iloc[0]
                    name = spec["optimizer"]["name"]
                    found.append(Recorded(folder.name, schema, name, spec["width"], fitted))
            yield from sorted(found, key=lambda one: (one.optimizer, one.width))


STEEPNESS = ("flattest", "gentle", "steep", "steepest")


def surfaces(fits: Sequence[Fitted], tol: float) -> dict[str, Surface]:
    """A surface per group of curves: fourths by the cost of an octave, halves by the remainder.

    Before them stands that of the curves on which an octave to each side costs less than `tol`,
    nats, if there are any. Every number is the median of its group, the curvature so that the cost
    of an octave is.
    """
    below = [one for one in fits if max(one.octaves) < tol]
    made = {"below tol": _middle(below)} if below else {}
    by_cost = sorted(fits, key=lambda one: one.octave)
    for name, part in zip(STEEPNESS, _parts(by_cost, len(STEEPNESS)), strict=True):
        by_noise = sorted(part, key=lambda one: one.remainder)
        for noise, group in zip(("quiet", "noisy"), _parts(by_noise, 2), strict=True):
            made[f"{name} {noise}"] = _middle(group)
    return made


def _parts(fits: Sequence[Fitted], count: int) -> list[Sequence[Fitted]]:
    ends = [round(len(fits) * i / count) for i in range(count + 1)]
    return [fits[low:high] for low, high in pairwise(ends)]


def _middle(group: Sequence[Fitted]) -> Surface:
    def median(of: Callable[[Fitted], float]) -> float:
        return float(np.nanmedian([of(one) for one in group]))

    skew = median(lambda one: one.skew)
    unit = Fitted(1.0, skew, 0, 0, 0, 0, 0).octave
    return Surface(
        curvature=median(lambda one: one.octave) / unit,
        height=max(median(lambda one: one.height), 0) ** 0.5,
        slope=max(median(lambda one: one.slope), 0) ** 0.5,
        remainder=median(lambda one: one.remainder),
        skew=skew,
    )
