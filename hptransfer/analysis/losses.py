"""Losses as they are counted: the rule for one above the loss at init, and means over seeds.

Numbers in, numbers out: the search and the analysis of rows both count by them.
"""

import numpy as np


def learned(loss: np.ndarray, loss_init: np.ndarray) -> np.ndarray:
    """Whether each run ended below its loss at init. A divergence (inf) and a NaN did not.

    Where the loss at init is unknown (NaN), every finite loss counts as below it.
    """
    return loss < np.where(np.isnan(loss_init), np.inf, loss_init)


def capped(loss: np.ndarray, loss_init: np.ndarray) -> np.ndarray:
    """Losses, nats; a loss above the one at init, a divergence too, counts as the loss at init.

    NaN (a run that was not made or failed) stays NaN, and inf stays inf where the loss at init is
    unknown.
    """
    return np.minimum(loss, np.where(np.isnan(loss_init), np.inf, loss_init))


def means(grid: np.ndarray, sound: np.ndarray | None = None) -> np.ndarray:
    """Mean loss of every point as if all points had been tried on the same seeds, nats, (points,).

    `grid[i, j]` is the loss of point i on the j-th seed: NaN where it was not tried, inf where it
    diverged. The effect of a seed on the loss is estimated at the `sound` points (None: all finite
    ones) that have every seed, and subtracted from all points. A plain mean would let one lucky
    seed beat the mean of three. Without a sound point that has every seed the plain mean stands.
    """
    whole = np.isfinite(grid).all(axis=1)
    if sound is not None:
        whole &= sound
    if not len(grid):
        return np.empty(0)
    if not whole.any():
        return np.nanmean(grid, axis=1)
    effect = grid[whole].mean(axis=0) - grid[whole].mean()
    return np.nanmean(grid - effect, axis=1)
