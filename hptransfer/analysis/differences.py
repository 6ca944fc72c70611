"""How the losses of two optimizers differ where each has its best lr, seed by seed."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from hptransfer.analysis.curve import curve
from hptransfer.analysis.frame import searches
from hptransfer.analysis.holm import Tested, holm
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import finished


@dataclass(frozen=True)
class Difference:
    """Loss of `second` minus loss of `first` at axis value `n`, nats, each at its best lr.

    `censored`: those of the two whose best lr lies at an edge of the tried range, so that their
    best loss may be lower.
    """

    n: int
    first: str
    second: str
    tested: Tested
    censored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Best:
    """The best log2 lr, the losses there by seed, nats, and whether it lies at an edge."""

    log2_lr: float
    losses: dict[int, float]
    at_edge: bool

    @property
    def mean(self) -> float:
        """Mean loss over the seeds, nats."""
        return sum(self.losses.values()) / len(self.losses)


def differences(suite: Question, rows: pd.DataFrame) -> list[Difference]:
    """One per axis value and pair of optimizers that ran there: values rising, pairs in order.

    The best lr is the tried one of the least mean loss among those with the most seeds. Seeds pair:
    they see the same batches. The intervals are t-intervals over the shared seeds with Holm's
    correction over all differences of the suite. `rows`: rows of frame.select.
    """
    best = {
        (label, n): found
        for label, by_n in searches(suite, rows).items()
        for n, part in by_n.items()
        if (found := best_losses(part)) is not None
    }
    pairs = [
        (n, first, second)
        for n in sorted({n for _, n in best})
        for first, second in combinations(suite.templates, 2)
        if (first, n) in best and (second, n) in best
    ]
    samples = [_paired(best[first, n], best[second, n]) for n, first, second in pairs]
    return [
        Difference(
            n, first, second, tested, tuple(x for x in (first, second) if best[x, n].at_edge)
        )
        for (n, first, second), tested in zip(pairs, holm(samples), strict=True)
    ]


def _paired(first: Best, second: Best) -> list[float]:
    shared = sorted(first.losses.keys() & second.losses.keys())
    return [second.losses[seed] - first.losses[seed] for seed in shared]


def best_losses(rows: pd.DataFrame) -> Best | None:
    """Of one optimizer at one axis value; None where no run has a loss.

    The best lr is the tried one of the least mean loss among those with the most seeds.
    """
    rows = finished(rows)
    if not np.isfinite(rows["loss"].to_numpy(float)).any():
        return None
    points = curve(rows)
    seeds = (~np.isnan(points.grid)).sum(axis=1)
    k = int(np.where(seeds == seeds.max(), points.mean, np.inf).argmin())
    numbers = np.unique(rows["seed"].to_numpy(int))
    losses = {
        int(seed): float(loss)
        for seed, loss in zip(numbers, points.grid[k], strict=True)
        if not np.isnan(loss)
    }
    return Best(float(points.x[k]), losses, k in (0, len(points.x) - 1))
