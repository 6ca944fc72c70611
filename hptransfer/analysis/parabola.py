"""Parabolas through the losses near a minimum, seed by seed: lr*, and how well it is known.

Numbers in, numbers out. Many redraws of the same losses can be fitted in one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import t as student

from hptransfer.analysis.losses import means
from hptransfer.suite.grid import REACH, STEP, Grid, HalfOctaves

MESH = 129  # values of the lr at which a cubic is compared
SIDE = 0.02  # share of misses at each side of an interval, so that three looks keep about 95%
MOST_REDRAWN = 20_000_000  # losses that are redrawn at once
OWN = HalfOctaves()


@dataclass(frozen=True)
class Interval:
    """A number with its interval; NaN where it was not measured, unbounded with one seed."""

    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and its 95% t-interval; unbounded for one value, NaN for none."""
    if not values:
        return Interval()
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(mean, -np.inf, np.inf)
    half = float(student.isf(0.025, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Near:
    """The losses near the minimum of a curve: the points and seeds that can be compared.

    `x`: log2 lr, octaves, rising, (points,). `losses`: nats, (points, seeds), all finite. `k`: the
    point of the least mean loss. `seeds`: which of the curve's seeds count, (all seeds,). `reach`:
    from point k to the furthest point of a fit, octaves. `step`: of the grid at k, octaves.
    """

    x: np.ndarray
    losses: np.ndarray
    k: int
    seeds: np.ndarray
    reach: float = REACH
    step: float = STEP

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        losses: np.ndarray,
        roofed: np.ndarray,
        able: np.ndarray | None = None,
        grid: Grid = OWN,
    ) -> Self | None:
        """The points below the roof within reach of the least mean loss; None without seeds.

        In a suite's grid the reach is one octave, and the least mean loss is sought on the half
        octaves, where there are any: between them lie carried learning rates, whose neighbours are
        not known. A seed counts that ran at every tried point of the grid near it. `able`: seeds
        that may count, (seeds,).
        `x`: log2 lr, octaves, rising, (points,). `losses`: nats, capped at the loss at init,
        (points, seeds), NaN where a point lacks a seed. `roofed`: points where some seed diverged
        or learned nothing, (points,).
        """
        if roofed.all():
            return None
        on_grid = ~roofed & grid.main(x)
        on_grid = on_grid if on_grid.any() else ~roofed
        least = x[on_grid][int(means(losses[on_grid]).argmin())]
        k = int(np.flatnonzero(x == least)[0])
        reach = grid.reach(x, k)
        near, have = np.abs(x - least) <= reach, ~np.isnan(losses)
        seeds = np.asarray(have[near & on_grid].all(axis=0))
        seeds = seeds if able is None else seeds & able
        if not seeds.any():
            return None
        near &= ~roofed & have[:, seeds].all(axis=1)
        near &= _low(losses[:, seeds].mean(axis=1), k, grid.height)
        at = int(np.flatnonzero(x[near] == least)[0])
        return cls(x[near], losses[near][:, seeds], at, seeds, reach, grid.step(x, k))


def _low(means: np.ndarray, k: int, height: float) -> np.ndarray:
    """Which points lie at most `height` above point k, or beside it, (points,)."""
    return (means <= means[k] + height) | (np.abs(np.arange(len(means)) - k) <= 1)


@dataclass(frozen=True)
class Vertex:
    """The minimum of the mean curve, log2 lr in octaves.

    `value`: of the parabola. `cubic`: of a cubic; the two differ where a curve is lopsided.
    `per_seed`: the jackknife's pseudo-values of `value`, one per seed, (seeds,).
    """

    value: float
    cubic: float
    per_seed: np.ndarray


@dataclass(frozen=True)
class Fit:
    """Least-squares parabolas of the seeds near one point, for each redraw.

    `center`: log2 lr of the point, octaves. `low`, `high`: the fitted range, octaves from it.
    `seeds`: coefficients of z^2, z and 1 in nats, z octaves from the center, (redraws, 3, seeds).
    `cubic`: those of z^3 to 1 for the mean over seeds, (redraws, 4).
    """

    center: float
    low: float
    high: float
    seeds: np.ndarray
    cubic: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, losses: np.ndarray, k: int, reach: float = REACH) -> Self | None:
        """The fit to points within `reach` octaves of point `k`; None unless k lies between two.

        `x`: log2 lr, octaves, (points,). `losses`: nats, (redraws, points, seeds), all finite.
        """
        z = x - x[k]
        near = np.abs(z) <= reach
        z, y = z[near], losses[:, near]
        if not z.min() < 0 < z.max():
            return None
        seeds = np.linalg.pinv(np.vander(z, 3)) @ y
        cubic = np.pad(seeds.mean(axis=2), ((0, 0), (1, 0)))
        if len(z) > 3:
            cubic = y.mean(axis=2) @ np.linalg.pinv(np.vander(z, 4)).T
        return cls(float(x[k]), float(z[0]), float(z[-1]), seeds, cubic)

    def at(self, z: np.ndarray) -> np.ndarray:
        """The parabola of every seed at `z`, nats, (redraws, seeds). `z`: octaves, (redraws,)."""
        a, b, c = np.moveaxis(self.seeds, 1, 0)
        return (a * z[:, None] + b) * z[:, None] + c

    def cubic_at(self, z: np.ndarray) -> np.ndarray:
        """The cubic of the mean curve at `z`, nats. `z`: octaves, (redraws, any)."""
        p, q, r, s = self.cubic.T[:, :, None]
        return ((p * z + q) * z + r) * z + s

    def vertex(self) -> np.ndarray:
        """Minimum of the parabola of the mean curve in the fitted range, octaves, (redraws,)."""
        return self._lowest(self.seeds.mean(axis=2))

    def _lowest(self, coefficients: np.ndarray) -> np.ndarray:
        """Where the parabolas (..., 3) are lowest in the fitted range, octaves, (...)."""
        a, b = coefficients[..., 0], coefficients[..., 1]
        lower = np.where(a * (self.low + self.high) + b > 0, self.low, self.high)
        inner = np.divide(-b, 2 * a, out=np.zeros_like(a), where=a > 0)
        return np.where(a > 0, np.clip(inner, self.low, self.high), lower)

    def cubic_vertex(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the cubic is lowest in the fitted range, octaves, and its value, nats."""
        mesh = np.linspace(self.low, self.high, MESH)
        values = self.cubic_at(np.broadcast_to(mesh, (len(self.cubic), MESH)))
        return mesh[values.argmin(axis=1)], values.min(axis=1)

    def pseudo_values(self) -> np.ndarray:
        """Jackknife pseudo-values of the vertex, octaves, (redraws, seeds).

        S v - (S - 1) v_s, where v_s is the vertex without seed s. Source: Tukey 1958.
        """
        count = self.seeds.shape[2]
        if count == 1:
            return self.vertex()[:, None]
        without = (self.seeds.sum(axis=2, keepdims=True) - self.seeds) / (count - 1)
        vertices = self._lowest(np.moveaxis(without, 1, 2))
        return count * self.vertex()[:, None] - (count - 1) * vertices


def vertex(near: Near) -> Vertex:
    """lr* of one curve: the grid point where it has no point on both sides."""
    fit = Fit.of(near.x, near.losses[None], near.k, near.reach)
    if fit is None:
        return grid_vertex(near, float(near.x[near.k]))
    places, _ = fit.cubic_vertex()
    return Vertex(
        fit.center + float(fit.vertex()[0]),
        fit.center + float(places[0]),
        fit.center + fit.pseudo_values()[0],
    )


def grid_vertex(near: Near, log2_lr: float) -> Vertex:
    """lr* where no parabola says more than the grid does: `cubic` lies one grid step beside it."""
    return Vertex(log2_lr, log2_lr + near.step, np.full(near.losses.shape[1], log2_lr))


def redrawn(near: Near, *, sd: float, redraws: int) -> np.ndarray:
    """lr* in redraws of the losses with a normal error of `sd` nats, log2 lr, (redraws,)."""
    rng = np.random.default_rng(0)
    found = []
    for count in chunks(redraws, near.losses.size):
        noise = sd * rng.normal(size=(count, *near.losses.shape))
        fit = Fit.of(near.x, near.losses + noise, near.k, near.reach)
        found.append(np.full(count, near.x[near.k]) if fit is None else fit.center + fit.vertex())
    return np.concatenate(found)


def chunks(redraws: int, size: int) -> list[int]:
    """Numbers of redraws of `size` losses that memory holds at once; they add up to `redraws`."""
    most = max(1, MOST_REDRAWN // size)
    return [min(most, redraws - start) for start in range(0, redraws, most)]


def combination(
    vertices: Sequence[Vertex], weights: Sequence[float], *, pooled: bool = False
) -> Interval:
    """The sum of weight times lr* with its 95% interval, octaves.

    A t-interval of the pseudo-values: curves count as independent, the seed is the unit, and the
    degrees of freedom are Welch's and Satterthwaite's. It is widened to each side by the
    difference to the same sum of the cubics, since a parabola is biased on a lopsided curve.
    Unbounded where a curve has one seed. `pooled`: such a curve has the variance over seeds that
    the other curves have, pooled, and the interval is unbounded only where no curve has two seeds.
    """
    w = np.asarray(weights, float)
    value = float(w @ [each.value for each in vertices])
    counts = np.array([len(each.per_seed) for each in vertices])
    single = counts < 2
    if single.all() or (single.any() and not pooled):
        return Interval(value, -np.inf, np.inf)
    counts, known = counts[~single], [each for each in vertices if len(each.per_seed) > 1]
    shares = w[~single] ** 2 / counts + (w[single] ** 2).sum() * (counts - 1) / (counts - 1).sum()
    parts = shares * [each.per_seed.var(ddof=1) for each in known]
    bias = abs(float(w @ [each.cubic for each in vertices]) - value)
    total = float(parts.sum())
    half = 0.0
    if total > 0:
        dof = total**2 / float((parts**2 / (counts - 1)).sum())
        half = float(student.isf(SIDE, dof)) * float(np.sqrt(total))
    return Interval(value, value - half - bias, value + half + bias)
