"""The gap between the exponents of batched and of transported Scion, from paired redraws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hptransfer.documents.exponents import GapVerdict
from hptransfer.laboratory.exponents import (
    LEAST,
    REDRAWS,
    Array,
    Range,
    grid_range,
    hull,
    slope_weights,
)
from hptransfer.laboratory.plan import Point, Progress

THEORY = 0.5  # at every index: (3p-2)/(p-1) - (5p-3)/(2p-2)


@dataclass(frozen=True)
class Gap:
    """The exponent of batched Scion minus that of transported Scion, with three intervals.

    `seeds`: 95% of redraws of the fresh seeds, the same for both methods, whose noise is the same.
    `left_out`: without one of the goals. `grid`: as far as settings between those of both grids may
    move it. `n_points`: goals that were measured with both methods.
    """

    part: str
    noise: str
    value: float
    seeds: Range
    left_out: Range
    grid: Range
    n_points: int

    @property
    def union(self) -> Range:
        """The hull of the three intervals."""
        return hull((self.seeds, self.left_out, self.grid))

    @property
    def excludes_zero(self) -> bool:
        """Whether the hull excludes 0."""
        low, high = self.union
        return low > 0 or high < 0

    @property
    def holds_theory(self) -> bool:
        """Whether the hull holds one half."""
        low, high = self.union
        return low <= THEORY <= high

    @property
    def verdict(self) -> GapVerdict:
        """Whether the hull tells one half from no gap at all."""
        if self.n_points < LEAST:
            return "incomplete"
        return "resolved" if self.excludes_zero and self.holds_theory else "unresolved"


def gaps(known: Sequence[Progress]) -> list[Gap]:
    """One gap per part, noise and number of directions with both methods and several goals."""
    pairs: dict[tuple[str, str, int], dict[str, Progress]] = {}
    for each in known:
        series = each.series
        if series.method.theory and len(series.part.log2_eps) > 1:
            key = (series.part.name, f"{series.law} {series.index:g}", series.directions)
            pairs.setdefault(key, {})[series.method.theory] = each
    return [
        _gap(part, noise, pair["batched"].points, pair["transported"].points)
        for (part, noise, _), pair in pairs.items()
        if len(pair) == 2
    ]


def _gap(part: str, noise: str, batched: Sequence[Point], transported: Sequence[Point]) -> Gap:
    others = {point.eps: point for point in transported if point.outcome == "measured"}
    both = [
        (point, others[point.eps])
        for point in batched
        if point.outcome == "measured" and point.eps in others
    ]
    if len(both) < LEAST:
        none = (math.nan, math.nan)
        return Gap(part, noise, math.nan, none, none, none, len(both))
    x = np.array([-math.log2(one.eps) for one, _ in both])
    weights = slope_weights(x)
    differences = np.log2([one.mean / other.mean for one, other in both])
    value = float(weights @ differences)
    depths = grid_range(weights, [one.grid for one, _ in both], value)
    against = grid_range(-weights, [other.grid for _, other in both], value)
    return Gap(
        part=part,
        noise=noise,
        value=value,
        seeds=_redrawn(weights, both),
        left_out=_left_out(x, differences),
        grid=(depths[0] + against[0] - value, depths[1] + against[1] - value),
        n_points=len(both),
    )


def _redrawn(weights: Array, both: Sequence[tuple[Point, Point]]) -> Range:
    """95% of the gaps over redraws of the seeds of every goal, the same for both methods."""
    rng = np.random.default_rng(0)
    ratios = []
    for one, other in both:
        drawn = rng.integers(len(one.calls), size=(REDRAWS, len(one.calls)))
        ratios.append(one.calls[drawn].mean(axis=1) / other.calls[drawn].mean(axis=1))
    low, high = np.quantile(weights @ np.log2(np.stack(ratios)), (0.025, 0.975))
    return float(low), float(high)


def _left_out(x: Array, differences: Array) -> Range:
    gaps = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        gaps.append(float(slope_weights(x[rest]) @ differences[rest]))
    return min(gaps), max(gaps)
