"""The best learning rate of a curve: vertex, standard error, censoring."""

import json
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from hptransfer.analysis.curve import Curve, curve, trials
from hptransfer.analysis.frame import searches
from hptransfer.analysis.group_values import group_values
from hptransfer.analysis.parabola import (
    OWN,
    Interval,
    Near,
    Vertex,
    combination,
    grid_vertex,
    vertex,
)
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import count, finished
from hptransfer.spec import LR_STEP
from hptransfer.suite.grid import Grid

Censoring = Literal["low", "high", "gap"]


@dataclass(frozen=True)
class Optimum:
    """The best learning rate at one axis value; `log2_lr` and `se` in octaves, `loss` in nats.

    `seeds`: number of seeds behind `se`. Below 2, `se` is the grid's alone and knows no seed noise.
    `censored`: the optimum lies at the low or high edge of the tried range, or beside a gap.
    `hp_edges`: tuned hyperparameters whose best value lies at an edge of the tried ones; `optima`
    knows them.
    `vertex`: what its interval comes from; None where it is censored, or the best of trials.
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
    vertex: Vertex | None = field(default=None, compare=False)

    @property
    def interval(self) -> Interval:
        """log2 lr with its 95% interval, octaves; unbounded without seeds."""
        if self.vertex is None:
            return Interval(self.log2_lr, -np.inf, np.inf)
        return combination([self.vertex], [1.0])


def _standard_error(x: np.ndarray, k: int, seeds: np.ndarray) -> float:
    """Standard error of a vertex from the pseudo-values of its seeds, octaves.

    One seed has none: then the grid alone limits the optimum, and the standard deviation of a
    uniform error of one grid step, spacing / sqrt(12), stands in (our choice). No optimum counts as
    better known than 1/8 octave, to which learning rates are rounded.
    """
    if len(seeds) < 2:
        return float((x[k + 1] - x[k - 1]) / 2 / np.sqrt(12))
    return max(float(seeds.std(ddof=1) / np.sqrt(len(seeds))), LR_STEP / np.sqrt(12))


def _censoring(x: np.ndarray, k: int, grid: Grid) -> Censoring | None:
    """Why the grid minimum k may lie beside the true one, if it may."""
    if k == 0:
        return "low"
    if k == len(x) - 1:
        return "high"
    gap = grid.is_gap(x[k - 1], x[k]) or grid.is_gap(x[k], x[k + 1])
    return "gap" if gap else None


def optimum(rows: pd.DataFrame, grid: Grid = OWN) -> Optimum | None:
    """lr*(n) from the rows of one (optimizer, n); None if no run gave a finite loss.

    The vertex of the parabolas near the least mean loss (analysis.parabola). The grid minimum
    itself stands at a `cliff` (a neighbour diverged or learned nothing) and where it is `censored`
    (at an edge of the tried range, or beside a gap: in a suite's grid a neighbour more than one
    octave away). With searched hyperparameters the best trial stands.
    """
    rows = finished(rows)
    if not np.isfinite(rows["loss"].to_numpy(float)).any():
        return None
    if rows["hp_point"].nunique() > 1:
        return _best_trial(rows)
    hp = json.loads(rows["hp_point"].iloc[0])
    points = curve(rows)
    x, k = points.x, int(np.argmin(points.mean))
    censored = _censoring(x, k, grid)
    cliff = bool(points.roofed[max(k - 1, 0) : k + 2].any())
    known = None if censored else near(points, grid)
    # No parabola passes a diverged neighbour: half a step of the grid stands in.
    best, se, seeds = None, grid.step(x, k) / 2 if cliff else float("nan"), 0
    if known is not None:
        best = grid_vertex(known, float(x[k])) if cliff else vertex(known)
    if best is not None and not cliff:
        seeds = len(best.per_seed)
        se = _standard_error(x, k, best.per_seed)
    return Optimum(
        log2_lr=float(x[k]) if best is None else best.value,
        loss=float(points.mean[k]),
        se=se,
        cliff=cliff,
        censored=censored,
        n_points=len(x),
        n_diverged=count(rows, "diverged"),
        seeds=seeds,
        hp=hp,
        vertex=best,
    )


def near(points: Curve, grid: Grid = OWN) -> Near | None:
    """The losses near the minimum of a curve; where no seed ran at all of them, their means."""
    found = Near.of(points.x, points.grid, points.roofed, grid=grid)
    return found or Near.of(points.x, points.mean[:, None], points.roofed, grid=grid)


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


def optima(suite: Question, rows: pd.DataFrame) -> dict[str, dict[int, Optimum | None]]:
    """The optimum of every search of the suite by label and axis value, in the order of `searches`.

    None where no run gave a finite loss.
    """
    found = {
        label: {n: optimum(part, suite.grid(label)) for n, part in by_n.items()}
        for label, by_n in searches(suite, rows).items()
    }
    for each in group_values(suite, rows):
        best = found[each.optimizer].get(suite.proxy)
        if best is not None and each.censored is not None:
            edges = {**best.hp_edges, each.hyperparameter: each.censored}
            found[each.optimizer][suite.proxy] = replace(best, hp_edges=edges)
    return found
