"""The default search: a coarse octave grid, grown where the minimum lies at its edge, refined.

A pure function of the points that are known, so a search that is stopped, resumed or answered in
another order proposes the same points.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hptransfer.spec import canonical
from hptransfer.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

AROUND = 1  # octaves at each side of a carried lr, from where the bracket grows by itself
Point = tuple[float, dict[str, float]]  # log2_lr, searched hyperparameters


def bracket(
    known: Mapping[float, float],
    start: tuple[float, float],
    limits: tuple[float, float],
    trials: int | None = None,
) -> list[float]:
    """Learning rates still missing in the current stage, octaves, rising; [] when finished.

    Stages: the octaves of `start`; one octave more while the best octave lies at an edge; the half
    octaves beside it; half octaves beside the best point until both sides of it are known.
    `known`: log2_lr -> loss, `inf` for diverged; points off the grid count as points. All diverged:
    the grid grows downwards. No point lies outside `limits`, nor is one proposed once `trials` are
    known; a stage that is too long keeps its middle.
    """
    missing = _stage(known, start, limits)
    if trials is None or len(known) + len(missing) <= trials:
        return missing
    middle = sum(start) / 2
    central = sorted(missing, key=lambda lr: (abs(lr - middle), lr))
    return sorted(central[: max(trials - len(known), 0)])


def _stage(
    known: Mapping[float, float], start: tuple[float, float], limits: tuple[float, float]
) -> list[float]:
    first, last = float(start[0]), float(start[1])
    grid = [first + octave for octave in range(math.floor(last - first) + 1)]
    if missing := [lr for lr in grid if lr not in known]:
        return missing
    # The octaves alone decide up to the first refinement. If half octaves took part, the first of
    # two neighbours to be answered could move the minimum before the other was asked for.
    octaves = {lr: loss for lr, loss in known.items() if (lr - first) % 1 == 0}
    best = _argmin(octaves)
    if min(known.values()) == math.inf:
        down = min(octaves) - 1
        return [down] if down >= limits[0] else []
    sound = octaves[best] < math.inf
    for sides in ((best - 1, best + 1), (best - 0.5, best + 0.5)) if sound else ():
        if missing := [lr for lr in sides if limits[0] <= lr <= limits[1] and lr not in known]:
            return missing
    best = _argmin(known)
    return [lr for lr in _half_octaves(best, known) if limits[0] <= lr <= limits[1]]


def _argmin(losses: Mapping[float, float]) -> float:
    return min(losses, key=lambda lr: (losses[lr], lr))


def _half_octaves(best: float, known: Iterable[float]) -> list[float]:
    """The half octaves beside `best`, where no point within half an octave is known."""
    known = list(known)
    sides = []
    if not any(best - 0.5 <= lr < best for lr in known):
        sides.append(math.ceil(2 * (best - 0.5)) / 2)
    if not any(best < lr <= best + 0.5 for lr in known):
        sides.append(math.floor(2 * (best + 0.5)) / 2)
    return sides


def propose(
    suite: Suite, label: str, n: int, rows: "pd.DataFrame", around: float | None = None
) -> list[tuple[Point, int]]:
    """(point, seed) pairs that the search at axis value `n` still lacks; [] when finished.

    `rows`: the search rows of (label, n). `around`: search the octave at each side of this
    log2 lr instead of the start grid. First the bracket on seed 0, then the further seeds within
    one octave of the best.
    """
    del n  # the rows are of one axis value already
    start, limits = grid_and_limits(suite, label, around)
    losses = {lr: loss for (lr, _), loss in finished(rows, rows["loss"], seed=0).items()}
    if missing := bracket(losses, start, limits, suite.setting(label, "trials")):
        return [((lr, {}), 0) for lr in missing]
    points = [((lr, {}), loss) for lr, loss in losses.items()]
    return further_seeds(points, suite.seeds, rows)


def grid_and_limits(
    suite: Suite, label: str, around: float | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Start grid and how far it may grow, octaves."""
    low, high = suite.lr_limits(label)
    first, last = suite.start_grid(label)
    if around is None:
        return (first, last), (min(low, first), max(high, last))
    centre = min(max(round(around), low), high)
    return (max(centre - AROUND, low), min(centre + AROUND, high)), (low, high)


def key(point: Point) -> tuple[float, str]:
    """A point as it is found in `finished`."""
    return point[0], canonical(point[1])


def finished(
    rows: "pd.DataFrame", losses: Iterable[float], *, seed: int
) -> dict[tuple[float, str], float]:
    """(log2 lr, searched values as JSON) -> loss; failed runs are unknown."""
    columns = (rows[name] for name in ("log2_lr", "hp_point", "status", "seed"))
    return {
        (lr, hp): loss
        for lr, hp, status, own, loss in zip(*columns, losses, strict=True)
        if own == seed and status != "failed"
    }


def clipped(rows: "pd.DataFrame") -> list[float]:
    """Losses clipped at the loss at init: samplers fit a surface, and infinity has none."""
    columns = zip(rows["status"], rows["loss"], rows["loss_init"], strict=True)
    losses = [
        min(math.inf if how == "diverged" else loss, math.inf if math.isnan(init) else init)
        for how, loss, init in columns
    ]
    worst = max((loss for loss in losses if math.isfinite(loss)), default=0.0)
    return [worst if loss == math.inf else loss for loss in losses]


def further_seeds(
    points: list[tuple[Point, float]], seeds: int, rows: "pd.DataFrame"
) -> list[tuple[Point, int]]:
    """Seeds 1..S-1 that are missing within one octave of the best point, its other values fixed."""
    if seeds == 1 or not points:
        return []
    (best_lr, best_hp), best = min(points, key=lambda item: (item[1], item[0][0]))
    if best == math.inf:
        return []
    near = sorted(lr for (lr, hp), _ in points if hp == best_hp and abs(lr - best_lr) <= 1)
    have = {seed: finished(rows, rows["loss"], seed=seed) for seed in range(1, seeds)}
    return [
        ((lr, best_hp), seed)
        for seed in range(1, seeds)
        for lr in dict.fromkeys(near)
        if key((lr, best_hp)) not in have[seed]
    ]
