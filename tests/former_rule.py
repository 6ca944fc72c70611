"""The rule of schema 0.1 in made-up studies: one search seed, three fresh seeds, what is not shown.

It stands here to be compared with the rule of today.
"""

import numpy as np
from scipy.stats import ttest_1samp

from hptransfer.analysis.judgement import Limits
from simulated import HIGH, INIT, LOW, PER_OCTAVE, SEEDS, START, Losses, Study, X, index, search

FRESH = slice(5, 8)  # seeds that no search uses
DRIFT = 0.5  # octaves


def verdict(study: Study, target: int, limits: Limits) -> tuple[str, int]:
    """The verdict at a target, and the runs there."""
    losses = study.targets[target].losses
    carried, _ = _searched(study.losses, START)
    middle = min(max(round(carried), LOW), HIGH)
    own, runs = _searched(losses, (max(middle - 1, LOW), min(middle + 1, HIGH)))
    at_carried, at_own = (
        np.minimum(losses.table[index(round(lr * PER_OCTAVE) / PER_OCTAVE), FRESH], INIT)
        for lr in (carried, own)
    )
    return decide(at_carried - at_own, own - carried, limits), runs + 6


def decide(differences: np.ndarray, drift: float, limits: Limits) -> str:
    """`transfers` is what is left where no drift was shown."""
    if not differences.any() or abs(drift) <= DRIFT:
        return "transfers"
    bounds = ttest_1samp(differences, 0).confidence_interval(0.95)
    if bounds.low > 0 and differences.mean() > limits.tol:
        return "drifts"
    return "inconclusive" if bounds.high > 2 * limits.tol else "transfers"


def _searched(losses: Losses, start: tuple[float, float]) -> tuple[float, int]:
    """lr* from seed 0 alone, log2 lr, and the number of runs."""
    told = np.full((len(X), SEEDS), np.nan)
    search(losses, told, start, seeds=0)
    sound = np.isfinite(told[:, 0])
    x, y = X[sound], told[sound, 0]
    runs = int((~np.isnan(told)).sum())
    k = int(y.argmin())
    if k in (0, len(x) - 1):
        return float(x[k]), runs
    return float(x[k] + _vertex(x - x[k], y, k)), runs


def _vertex(z: np.ndarray, y: np.ndarray, k: int) -> float:
    """The vertex by the points within one octave, else by the three in the middle, octaves."""
    near = np.abs(z) <= 1
    for points in (near, np.isin(np.arange(len(z)), (k - 1, k, k + 1))):
        a, b, _ = np.polyfit(z[points], y[points], 2)
        vertex = -b / (2 * a) if a > 0 else np.inf
        if z[k - 1] <= vertex <= z[k + 1]:
            return float(vertex)
    return 0.0
