"""Means over seeds where not every point has every seed. Numbers in, numbers out."""

import numpy as np


def means(grid: np.ndarray, sound: np.ndarray | None = None) -> np.ndarray:
    """Mean loss of every point as if all had been tried on the same seeds, nats, (points,).

    `grid[i, j]` is the loss of point i on the j-th seed, NaN where it was not tried, inf where it
    diverged. What a seed adds to a loss is read off the `sound` points (all finite ones, if None)
    that have every seed, and taken from the others: a lucky seed alone would otherwise beat the
    mean of three. Without such a point, the plain mean of what there is.
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
