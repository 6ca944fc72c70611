"""Exponents of the calls, in 1/eps and in the number of directions, beside the theory's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hptransfer.documents.exponents import FitVerdict
from hptransfer.laboratory.plan import Point, Progress

REDRAWS = 2000  # of the fresh seeds
LEAST = 3  # points of a fit
WIDEST = 0.5  # of the union of the intervals, for a verdict

Range = tuple[float, float]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Slope of log calls, with three intervals.

    `seeds`: 95% of redraws of the fresh seeds. `left_out`: least and largest slope where one point
    is left out. `grid`: as far as settings between those of the grid may move it. `theory`,
    `verdict`: None where the theory states no exponent. `n_points`: that were fitted; capped,
    censored and diverged ones never are.
    """

    slope: float
    seeds: Range
    left_out: Range
    grid: Range
    theory: float | None
    n_points: int
    verdict: FitVerdict | None

    @property
    def union(self) -> Range:
        """The hull of the three intervals."""
        return hull((self.seeds, self.left_out, self.grid))


def hull(ranges: Sequence[Range]) -> Range:
    """The least range that holds these."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def worst_case(index: float, theory: Literal["batched", "transported"]) -> float:
    """Exponent of 1/eps: (3p-2)/(p-1) batched, (5p-3)/(2p-2) transported.

    Source: Zhang & Lin 2026, arXiv:2605.18528 (abstract).
    """
    p = index
    return (3 * p - 2) / (p - 1) if theory == "batched" else (5 * p - 3) / (2 * p - 2)


Name = tuple[str, str, str]  # part, method, noise in words


def fits(known: Sequence[Progress]) -> list[tuple[Name, Fit]]:
    """How the calls grow with 1/eps: one per series with several goals."""
    return [(_name(each), _in_goal(each)) for each in known if len(each.series.part.log2_eps) > 1]


def growths(known: Sequence[Progress]) -> list[tuple[Name, Fit]]:
    """How the calls grow with min(m, n): one per set of series that differ in it alone."""
    alike: dict[Name, list[Progress]] = {}
    for each in known:
        if len(each.series.part.directions) > 1:
            alike.setdefault(_name(each), []).append(each)
    return [(name, _in_directions(own)) for name, own in alike.items()]


def _name(progress: Progress) -> Name:
    series = progress.series
    return series.part.name, series.label, f"{series.law} {series.index:g}"


def _in_goal(progress: Progress) -> Fit:
    theory = progress.series.method.theory
    exponent = None if theory is None else worst_case(progress.series.index, theory)
    x = [-math.log2(point.eps) for point in progress.points]
    return fit(x, progress.points, exponent, whole=progress.missing is None)


def _in_directions(alike: Sequence[Progress]) -> Fit:
    """At the smallest goal. Theory: 1, Zhang & Lin 2026 and Hübler et al. 2026 (abstracts)."""
    smallest = 2.0 ** alike[0].series.part.log2_eps[-1]
    known = [
        (math.log2(each.series.directions), point)
        for each in alike
        for point in each.points
        if point.eps == smallest
    ]
    theory = 1.0 if alike[0].series.method.theory else None
    whole = all(each.missing is None for each in alike)
    return fit([x for x, _ in known], [point for _, point in known], theory, whole=whole)


def fit(x: Sequence[float], points: Sequence[Point], theory: float | None, *, whole: bool) -> Fit:
    """The slope of log2 calls against x, octaves, by the measured points."""
    used = [i for i, point in enumerate(points) if point.outcome == "measured"]
    nan = math.nan
    if len(used) < LEAST:
        verdict: FitVerdict = "incomplete"
        for point in points:
            if whole and point.outcome != "measured":
                verdict = point.outcome
        return Fit(nan, (nan, nan), (nan, nan), (nan, nan), theory, len(used), verdict)
    at = np.array([x[i] for i in used])
    calls = [points[i].calls for i in used]
    weights = slope_weights(at)
    slope = float(weights @ np.log2([each.mean() for each in calls]))
    result = Fit(
        slope=slope,
        seeds=_redrawn(weights, calls),
        left_out=_left_out(at, calls),
        grid=grid_range(weights, [points[i].grid for i in used], slope),
        theory=theory,
        n_points=len(used),
        verdict=None,
    )
    return replace(result, verdict=_verdict(result))


def _verdict(fit: Fit) -> FitVerdict | None:
    if fit.theory is None:
        return None
    low, high = fit.union
    if high - low >= WIDEST:
        return "undecided"
    return "agrees" if low <= fit.theory <= high else "disagrees"


def slope_weights(x: Array) -> Array:
    """w with w @ y the least-squares slope of y on x."""
    centred = x - x.mean()
    return centred / (centred @ centred)


def grid_range(weights: Array, depths: Sequence[float], slope: float) -> Range:
    """The slopes where each log2 calls may lie lower by its depth."""
    low = slope - float(np.clip(weights, 0, None) @ np.array(depths))
    return low, slope + float(np.clip(-weights, 0, None) @ np.array(depths))


def _redrawn(weights: Array, calls: Sequence[Array]) -> Range:
    """95% of the slopes over redraws of the seeds of every point."""
    rng = np.random.default_rng(0)
    means = np.stack(
        [each[rng.integers(len(each), size=(REDRAWS, len(each)))].mean(axis=1) for each in calls]
    )
    low, high = np.quantile(weights @ np.log2(means), (0.025, 0.975))
    return float(low), float(high)


def _left_out(x: Array, calls: Sequence[Array]) -> Range:
    y = np.log2([each.mean() for each in calls])
    slopes = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        slopes.append(float(slope_weights(x[rest]) @ y[rest]))
    return min(slopes), max(slopes)


def gain(one: Point, other: Point) -> tuple[float, Range]:
    """Calls of one method over those of another at a goal, with 95% over redraws of the seeds."""
    rng = np.random.default_rng(0)
    means = [
        p.calls[rng.integers(len(p.calls), size=(REDRAWS, len(p.calls)))].mean(axis=1)
        for p in (one, other)
    ]
    low, high = np.quantile(means[0] / means[1], (0.025, 0.975))
    return one.mean / other.mean, (float(low), float(high))
