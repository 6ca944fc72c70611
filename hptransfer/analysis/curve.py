"""Loss against log2 lr: the curve of a search, and its trials."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hptransfer.analysis.losses import capped, learned, means
from hptransfer.analysis.statuses import finished


def capped_losses(rows: pd.DataFrame) -> np.ndarray:
    """`capped` of the rows, nats, (rows,)."""
    return capped(rows["loss"].to_numpy(float), rows["loss_init"].to_numpy(float))


def learned_rows(rows: pd.DataFrame) -> np.ndarray:
    """`learned` of the rows, bool, (rows,)."""
    return learned(rows["loss"].to_numpy(float), rows["loss_init"].to_numpy(float))


@dataclass(frozen=True)
class Curve:
    """Loss against log2 lr at one axis value.

    `x`: log2 lr, octaves, rising, (points,). `grid`: capped losses, nats, (points, seeds), NaN
    where a point lacks a seed. `mean`: means over the seeds, nats, (points,), as `means` has them.
    `roofed`: whether some seed diverged or ended no lower than at init, (points,).
    """

    x: np.ndarray
    grid: np.ndarray
    mean: np.ndarray
    roofed: np.ndarray


def curve(rows: pd.DataFrame) -> Curve:
    """The curve of the search rows of one (optimizer, n); failed runs are left out."""
    rows = finished(rows)
    x, i = np.unique(rows["log2_lr"].to_numpy(float), return_inverse=True)
    seeds, j = np.unique(rows["seed"].to_numpy(int), return_inverse=True)
    grid = np.full((len(x), len(seeds)), np.nan)
    grid[i, j] = capped_losses(rows)
    roofed = np.zeros(len(x), bool)
    roofed[i[~learned_rows(rows)]] = True
    return Curve(x, grid, means(grid, ~roofed), roofed)


@dataclass(frozen=True)
class TrialMean:
    """One setting of a search: log2 lr in octaves, searched values as JSON, mean loss in nats."""

    log2_lr: float
    hp_point: str
    loss: float


def trials(rows: pd.DataFrame) -> list[TrialMean]:
    """Every setting of a search with the mean of its capped losses over the seeds."""
    rows = finished(rows)
    marked = rows.assign(capped=capped_losses(rows), learned=learned_rows(rows))
    grid = marked.groupby(["hp_point", "log2_lr", "seed"])["capped"].mean().unstack("seed")
    sound = marked.groupby(["hp_point", "log2_lr"])["learned"].all().loc[grid.index]
    losses = means(grid.to_numpy(float), sound.to_numpy(bool))
    return [
        TrialMean(float(log2_lr), str(hp_point), float(loss))
        for (hp_point, log2_lr), loss in zip(grid.index, losses, strict=True)
    ]


def best_by_lr(rows: pd.DataFrame) -> dict[float, float]:
    """log2 lr -> mean loss over the seeds, nats, rising in lr; of several trials the least."""
    best: dict[float, float] = {}
    for trial in trials(rows):
        best[trial.log2_lr] = min(trial.loss, best.get(trial.log2_lr, np.inf))
    return dict(sorted(best.items()))
