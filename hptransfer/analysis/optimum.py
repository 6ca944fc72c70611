"""The best learning rate of a curve: vertex, standard error, censoring."""

import json
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from hptransfer.analysis.curve import curve, trials
from hptransfer.analysis.frame import searches
from hptransfer.analysis.group_values import group_values
from hptransfer.analysis.statuses import count, finished
from hptransfer.spec import LR_STEP
from hptransfer.suite.resolved import Suite

RESAMPLES = 200  # of the seeds, for the standard error
CLIFF_SE = 0.25  # octaves: half a grid step, for no parabola passes a diverged neighbour

Censoring = Literal["low", "high", "gap"]


@dataclass(frozen=True)
class Optimum:
    """The best learning rate at one axis value; `log2_lr` and `se` in octaves, `loss` in nats.

    `seeds`: number of seeds behind `se`. Below 2, `se` is the grid's alone and knows no seed noise.
    `censored`: the optimum lies at the low or high edge of the tried range, or beside a gap.
    `hp_edges`: tuned hyperparameters whose best value lies at an edge of the tried ones; `optima`
    knows them.
    """

    log2_lr: float
    loss: float
    se: float
    cliff: bool
    censored: Censoring | None
    n_points: int
    n_diverged: int
    seeds: int
    hp: dict[str, float] = field(default_factory=dict)
    hp_edges: dict[str, Literal["low", "high"]] = field(default_factory=dict)


def vertices(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Vertices of the parabolas near the interior grid minimum k, octaves, (B,).

    `x`: octaves, (points,). `y`: nats, (points, B), one curve per column. Each parabola is the
    least-squares fit to the points within one octave of k. Where that opens downwards or its vertex
    leaves the neighbours of k, it is the parabola through k and its neighbours, whose vertex lies
    between them.
    """
    left, right = x[k] - x[k - 1], x[k + 1] - x[k]
    down, up = (y[k - 1] - y[k]) / left, (y[k + 1] - y[k]) / right
    flat = np.zeros_like(down)
    offset = np.divide(down * right - up * left, 2 * (down + up), out=flat, where=down + up > 0)
    z = x - x[k]
    near = np.abs(z) <= 1.0
    if near.sum() > 3:
        a, b, _ = np.linalg.pinv(np.vander(z[near], 3)) @ y[near]
        fitted = np.divide(-b, 2 * a, out=np.full_like(a, np.inf), where=a > 0)
        offset = np.where((-left <= fitted) & (fitted <= right), fitted, offset)
    return x[k] + offset


def _standard_error(x: np.ndarray, grid: np.ndarray, k: int) -> tuple[float, int]:
    """Standard error of the vertex, octaves, and the number of seeds behind it.

    A bootstrap over the seeds that all points near the minimum share. The spread is scaled by
    sqrt(S / (S - 1)), since S resampled seeds vary too little. One seed cannot be resampled: then
    the grid alone limits the optimum, and the standard deviation of a uniform error of one grid
    step, spacing / sqrt(12), stands in (our choice). No optimum counts as better known than 1/8
    octave, to which learning rates are rounded.
    """
    near = np.abs(x - x[k]) <= 1.0
    shared = grid[near][:, ~np.isnan(grid[near]).any(axis=0)]
    seeds = shared.shape[1]
    if seeds < 2:
        return float((x[k + 1] - x[k - 1]) / 2 / np.sqrt(12)), seeds
    picks = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    resampled, points = shared[:, picks].mean(axis=2), x[near]
    lowest = resampled.argmin(axis=0)
    optima = points[lowest]
    for i in range(1, len(points) - 1):
        optima[lowest == i] = vertices(points, resampled[:, lowest == i], i)
    spread = float(np.std(optima) * np.sqrt(seeds / (seeds - 1)))
    return max(spread, LR_STEP / np.sqrt(12)), seeds


def _censoring(x: np.ndarray, k: int) -> Censoring | None:
    """Why the grid minimum k may lie beside the true one, if it may."""
    if k == 0:
        return "low"
    if k == len(x) - 1:
        return "high"
    return "gap" if max(x[k] - x[k - 1], x[k + 1] - x[k]) > 1.0 else None


def optimum(rows: pd.DataFrame) -> Optimum | None:
    """lr*(n) from the search rows of one (optimizer, n); None if no run gave a finite loss.

    The vertex of the parabola near the grid minimum. The grid minimum itself stands at a `cliff` (a
    neighbour diverged or learned nothing) and where it is `censored` (at an edge of the tried
    range, or a neighbour is more than one octave away). With searched hyperparameters the best
    trial stands.
    """
    rows = finished(rows)
    if not np.isfinite(rows["loss"].to_numpy(float)).any():
        return None
    if rows["hp_point"].nunique() > 1:
        return _best_trial(rows)
    hp = json.loads(rows["hp_point"].iloc[0])
    points = curve(rows)
    x, k = points.x, int(np.argmin(points.mean))
    censored = _censoring(x, k)
    cliff = bool(points.roofed[max(k - 1, 0) : k + 2].any())
    log2_lr, se, seeds = float(x[k]), CLIFF_SE if cliff else float("nan"), 0
    if not cliff and censored is None:
        kept = ~points.roofed  # the minimum and its neighbours are among these
        x, mean = x[kept], points.mean[kept]
        lowest = int(np.argmin(mean))
        log2_lr = float(vertices(x, mean[:, None], lowest)[0])
        se, seeds = _standard_error(x, points.grid[kept], lowest)
    loss, n_diverged = float(points.mean[k]), count(rows, "diverged")
    return Optimum(log2_lr, loss, se, cliff, censored, len(points.x), n_diverged, seeds, hp)


def _best_trial(rows: pd.DataFrame) -> Optimum:
    """The trial of least loss. Other values moved with the lr, so there is no curve in lr."""
    tried = trials(rows)
    best = min(tried, key=lambda trial: trial.loss)
    lrs = [trial.log2_lr for trial in tried]
    edges: dict[float, Censoring] = {max(lrs): "high", min(lrs): "low"}
    return Optimum(
        log2_lr=best.log2_lr,
        loss=best.loss,
        se=float("nan"),
        cliff=False,
        censored=edges.get(best.log2_lr),
        n_points=len(tried),
        n_diverged=count(rows, "diverged"),
        seeds=0,
        hp=json.loads(best.hp_point),
    )


def optima(suite: Suite, rows: pd.DataFrame) -> dict[str, dict[int, Optimum | None]]:
    """The optimum of every search of the suite by label and axis value, in the order of `searches`.

    None where no run gave a finite loss.
    """
    found = {
        label: {n: optimum(part) for n, part in by_n.items()}
        for label, by_n in searches(suite, rows).items()
    }
    for each in group_values(suite, rows):
        best = found[each.optimizer].get(suite.proxy)
        if best is not None and each.censored is not None:
            edges = {**best.hp_edges, each.hyperparameter: each.censored}
            found[each.optimizer][suite.proxy] = replace(best, hp_edges=edges)
    return found
