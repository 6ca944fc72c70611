"""The default search: an octave grid that grows while the minimum lies at its edge, then refines.

It is a pure function of the known points: a search that stops, resumes or gets its answers in
another order proposes the same points. With several seeds there is one exception: the search takes
in runs that it did not ask for at its end, and the points that follow may depend on their order.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hptransfer.analysis.losses import capped, learned, means
from hptransfer.analysis.statuses import finished
from hptransfer.spec import canonical
from hptransfer.suite.resolved import Suite

if TYPE_CHECKING:
    import pandas as pd

AROUND = 1  # octaves at each side of a carried lr, in the start grid around it
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
    """Log2 learning rates that the current stage still lacks, rising; [] when finished.

    Stages: the octaves of `start`; one octave more while the best octave lies at an edge; the half
    octaves beside it; half octaves beside the best point until both sides of it are known. If all
    points diverged, the grid grows downwards. No point lies outside `limits`. At most `trials`
    points become known: a stage that is too long keeps its middle.
    `known`: log2_lr -> loss, `inf` if diverged; points off the grid count too.
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
    # Until the first refinement the octaves alone decide. A half octave could move the minimum
    # before its neighbour is proposed, and then the order of the answers would matter.
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

    First comes the bracket on seed 0, then the further seeds within one octave of the best point,
    then both again on the means over the seeds.
    `rows`: the search rows of (label, n). `around`: search the octave at each side of this log2 lr,
    not the start grid.
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

    rows = finished(rows)
    losses, roofs = by_trial(rows, rows["loss"]), by_trial(rows, rows["loss_init"])
    known = {((lr, ""), seed): loss for ((lr, _), seed), loss in losses.items()}
    roof = {((lr, ""), seed): loss for ((lr, _), seed), loss in roofs.items()}
    missing = _replay(stage, {}, known) or stage(known)  # runs that no stage asked for count too
    return [((lr, {}), seed) for (lr, _), seed in missing]


def grid_and_limits(
    suite: Suite, label: str, around: float | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Start grid, and the limits of its growth, octaves."""
    low, high = suite.lr_limits(label)
    first, last = suite.start_grid(label)
    if around is None:
        return (first, last), (min(low, first), max(high, last))
    centre = min(max(round(around), low), high)
    return (max(centre - AROUND, low), min(centre + AROUND, high)), (low, high)


def key(point: Point) -> Key:
    """A point as `by_trial` names it."""
    return point[0], canonical(point[1])


def by_trial(rows: "pd.DataFrame", losses: Iterable[float]) -> dict[Trial, float]:
    """Trial -> its loss, from finished rows and one loss for each."""
    columns = (rows[name] for name in ("log2_lr", "hp_point", "seed"))
    return {((lr, hp), seed): loss for lr, hp, seed, loss in zip(*columns, losses, strict=True)}


def on_first_seed(losses: Mapping[Trial, float]) -> dict[Key, float]:
    """The losses of seed 0."""
    return {key: loss for (key, seed), loss in losses.items() if seed == 0}


def finite_losses(rows: "pd.DataFrame") -> list[float]:
    """Losses, at most the loss at init: a sampler fits a surface, which cannot be infinite."""
    losses = capped(rows["loss"].to_numpy(float), rows["loss_init"].to_numpy(float)).tolist()
    worst = max((loss for loss in losses if math.isfinite(loss)), default=0.0)
    return [worst if loss == math.inf else loss for loss in losses]


def further_seeds(points: list[Point], seeds: int, rows: "pd.DataFrame") -> list[tuple[Point, int]]:
    """Missing (point, seed) pairs with seeds from 1 on, within one octave of the best point.

    They have the best point's hyperparameters. If the means over the seeds have another best
    point, the pairs around that one follow. `rows`: finished ones.
    """
    own = {key(point): point for point in points}
    known, roof = by_trial(rows, rows["loss"]), by_trial(rows, rows["loss_init"])
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
    """Point -> mean loss over its seeds, as analysis.losses takes it.

    A loss above the loss at init (`roof`) counts as that. A point counts as diverged if no seed
    went below it.
    """
    names = sorted({name for name, _ in told})
    seeds = sorted({seed for _, seed in told})
    loss, most = (
        np.array([[table.get((name, seed), math.nan) for seed in seeds] for name in names])
        for table in (told, roof)
    )
    better = learned(loss, most)
    losses = means(capped(loss, most), np.all(better, axis=1))
    losses[~np.any(better, axis=1)] = math.inf
    return dict(zip(names, losses.tolist(), strict=True))
