"""How many points are enough: lr* by fewer points of a curve, beside that by all of them.

Numbers in, numbers out.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hptransfer.analysis.parabola import Fit, Near

LEAST = 3  # points of a parabola
MOST_SUBSETS = 500  # of one size; of more, a fixed draw stands for all


@dataclass(frozen=True)
class Subset:
    """lr* by every choice of `n_points` points near the minimum that lies on both sides of it.

    `spread`: standard deviation of lr* over the choices, octaves; 0 for all points. `largest`: how
    far one of them lies from lr* by all points, octaves.
    """

    n_points: int
    n_subsets: int
    spread: float
    largest: float


def subsets(near: Near) -> list[Subset]:
    """One per number of points from 3 to all, rising; [] where no parabola can be fitted."""
    whole = Fit.of(near.x, near.losses[None], near.k)
    if whole is None:
        return []
    count, best = len(near.x), whole.center + float(whole.vertex()[0])
    table = []
    for size in range(LEAST, count + 1):
        fitted = [_vertex(near, part) for part in _choices(count, size)]
        found = np.array([lr for lr in fitted if lr is not None])
        if len(found):
            far = float(np.abs(found - best).max())
            table.append(Subset(size, len(found), float(found.std()), far))
    return table


def _choices(count: int, size: int) -> list[tuple[int, ...]]:
    every = list(combinations(range(count), size))
    if len(every) <= MOST_SUBSETS:
        return every
    lot = np.random.default_rng(0).choice(len(every), MOST_SUBSETS, replace=False)
    return [every[i] for i in sorted(lot)]


def _vertex(near: Near, part: tuple[int, ...]) -> float | None:
    """lr* by these points, log2; None where their least mean loss has no neighbour on a side."""
    x, losses = near.x[list(part)], near.losses[list(part)]
    fit = Fit.of(x, losses[None], int(losses.mean(axis=1).argmin()))
    return None if fit is None else fit.center + float(fit.vertex()[0])
