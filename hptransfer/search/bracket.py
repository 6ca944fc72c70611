"""The default search: a coarse octave grid, grown where the minimum lies at its edge, refined.

A pure function of the points that are known, so a search that is stopped, resumed or answered in
another order proposes the same points. (With several seeds, runs that it did not ask for are taken
in at its end, and what they lead to may depend on the order.)
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hptransfer.analysis import paired
from hptransfer.spec import canonical
from hptransfer.suite.claim import Suite

if TYPE_CHECKING:
    import pandas as pd

AROUND = 1  # octaves at each side of a carried lr, from where the bracket grows by itself
Point = tuple[float, dict[str, float]]  # log2_lr, searched hyperparameters
Key = tuple[float, str]  # a Point whose hyperparameters are JSON
Trial = tuple[Key, int]  # and its seed
Propose = Callable[..., list[tuple[Point, int]]]  # of the arguments of `propose`


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
    one octave of the best, then both again as the means over the seeds ask for it.
    """
    del n  # the rows are of one axis value already
    start, limits = grid_and_limits(suite, label, around)
    trials = suite.setting(label, "trials")

    def stage(told: Mapping[Trial, float]) -> list[Trial]:
        first = {lr: loss for ((lr, _), seed), loss in told.items() if seed == 0}
        if missing := bracket(first, start, limits, trials):
            return [((lr, ""), 0) for lr in missing]
        if near := _near_the_best(told, roof, suite.seeds):
            return near
        if suite.seeds == 1:
            return []
        averaged = {lr: loss for (lr, _), loss in _means(told, roof).items()}
        return [((lr, ""), 0) for lr in bracket(averaged, start, limits, trials)]

    losses, roofs = finished(rows, rows["loss"]), finished(rows, rows["loss_init"])
    known = {((lr, ""), seed): loss for ((lr, _), seed), loss in losses.items()}
    roof = {((lr, ""), seed): loss for ((lr, _), seed), loss in roofs.items()}
    missing = _replay(stage, {}, known) or stage(known)  # what else was tried counts too
    return [((lr, {}), seed) for (lr, _), seed in missing]


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


def key(point: Point) -> Key:
    """A point as it is found in `finished`."""
    return point[0], canonical(point[1])


def finished(rows: "pd.DataFrame", losses: Iterable[float]) -> dict[Trial, float]:
    """Losses of what was tried; failed runs are unknown."""
    columns = (rows[name] for name in ("log2_lr", "hp_point", "status", "seed"))
    return {
        ((lr, hp), seed): loss
        for lr, hp, status, seed, loss in zip(*columns, losses, strict=True)
        if status != "failed"
    }


def on_first_seed(losses: Mapping[Trial, float]) -> dict[Key, float]:
    """The losses of seed 0."""
    return {key: loss for (key, seed), loss in losses.items() if seed == 0}


def clipped(rows: "pd.DataFrame") -> list[float]:
    """Losses clipped at the loss at init: samplers fit a surface, and infinity has none."""
    columns = zip(rows["status"], rows["loss"], rows["loss_init"], strict=True)
    losses = [
        min(math.inf if how == "diverged" else loss, math.inf if math.isnan(init) else init)
        for how, loss, init in columns
    ]
    worst = max((loss for loss in losses if math.isfinite(loss)), default=0.0)
    return [worst if loss == math.inf else loss for loss in losses]


def further_seeds(points: list[Point], seeds: int, rows: "pd.DataFrame") -> list[tuple[Point, int]]:
    """Seeds 1..S-1 that are missing within one octave of the best point, its other values fixed.

    Where another point is the best of the means over the seeds, those about that one too.
    """
    own = {key(point): point for point in points}
    known, roof = finished(rows, rows["loss"]), finished(rows, rows["loss_init"])
    told = {(name, 0): known[name, 0] for name in own}
    missing = _replay(lambda told: _near_the_best(told, roof, seeds), told, known)
    return [(own[name], seed) for name, seed in missing]


def _replay(
    stage: Callable[[Mapping[Trial, float]], list[Trial]],
    told: Mapping[Trial, float],
    known: Mapping[Trial, float],
) -> list[Trial]:
    """What is missing of the first stage that is not known whole; [] after the last.

    A stage is decided by those before it, so the order of the answers within one cannot matter, nor
    what was tried for another reason. Raises AssertionError for a stage that was told all it wants.
    """
    told = dict(told)
    while wanted := stage(told):
        if told.keys() >= set(wanted):
            raise AssertionError(f"bracket: told, but asked for again: {wanted}")
        if missing := [trial for trial in wanted if trial not in known]:
            return missing
        told |= {trial: known[trial] for trial in wanted}
    return []


def _near_the_best(
    told: Mapping[Trial, float], roof: Mapping[Trial, float], seeds: int
) -> list[Trial]:
    if seeds == 1 or not told:
        return []
    losses = _means(told, roof)
    best, hp = min(losses, key=lambda name: (losses[name], name))
    if losses[best, hp] == math.inf:
        return []
    near = sorted(lr for lr, other in losses if other == hp and abs(lr - best) <= 1)
    wanted = [((lr, hp), seed) for seed in range(1, seeds) for lr in near]
    return [trial for trial in wanted if trial not in told]


def _means(told: Mapping[Trial, float], roof: Mapping[Trial, float]) -> dict[Key, float]:
    """Over the seeds of each, as metrics.curve has it: losses above those at init count as these.

    A point where no seed did better is infinite, as a diverged one.
    """
    names = sorted({name for name, _ in told})
    seeds = sorted({seed for _, seed in told})
    loss, most = (
        np.array([[table.get((name, seed), math.nan) for seed in seeds] for name in names])
        for table in (told, roof)
    )
    better = np.less(loss, most)
    found = paired.means(np.fmin(loss, most), np.all(better, axis=1))
    found[~np.any(better, axis=1)] = math.inf
    return dict(zip(names, found.tolist(), strict=True))
