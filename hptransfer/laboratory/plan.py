"""The cells that a study still lacks: a pure function of the study and its records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hptransfer.laboratory.study import BATCHES, Series, Study
from hptransfer.records.cells import ADMITTED, CAPPED, DIVERGED, MARGIN, Cell, CellRecord

MOVES = 4  # widenings of a grid whose best setting lies at an edge
# Of all cells of a point, per step of its cap: in the diagonal mode, more where spikes are drawn,
# and more per entry of a row by a row in the matrix mode.
STEP_SECONDS, SPIKE_SECONDS, MATRIX_SECONDS = 6e-4, 5e-4, 1.3e-4
NEAR_CAP = 0.8  # of the cap: a mean beyond it may have been cut off

Settings = tuple[float, float, float]  # log2 lr, log2 alpha, log2 batch
Outcome = Literal["measured", "censored", "capped", "diverged"]


@dataclass(frozen=True)
class Point:
    """Calls of a method to one goal, at its best setting.

    `calls`: of the fresh seeds, (seeds,). `share_of_cap`: mean steps over the cap. `settings`: of
    the best setting. `outcome`: measured; censored, the best setting lies at an edge that could not
    be moved on; capped, a fresh seed met its cap or their mean came near that of the tuning seeds;
    diverged, a fresh seed did. `tuned`: mean calls of the tuning seeds, which chose the setting and
    so lie low. `grid`: log2 calls by which a setting between those of the grid may lie below the
    best one.
    """

    eps: float
    settings: Settings
    calls: np.ndarray
    tuned: float
    grid: float
    share_of_cap: float
    outcome: Outcome

    @property
    def mean(self) -> float:
        """Mean calls over the fresh seeds; infinite where one did not reach the goal."""
        return float(self.calls.mean())


@dataclass(frozen=True)
class Progress:
    """What is known of a series: its points so far, and the next cell, None at the end."""

    series: Series
    points: list[Point] = field(default_factory=list)
    missing: Cell | None = None


def progress(study: Study, records: Mapping[str, CellRecord]) -> list[Progress]:
    """The progress of every series."""
    return [_progress(series, records) for series in study.series()]


def _progress(series: Series, records: Mapping[str, CellRecord]) -> Progress:
    points: list[Point] = []
    middle, eps_before = 0.0, 0.0
    for log2_eps in series.part.log2_eps:
        eps = 2.0**log2_eps
        middle = middle + series.octaves(eps_before, eps) if points else series.middle(eps)
        found = _point(series, eps, max(series.least, middle), records)
        if isinstance(found, Cell):
            return Progress(series, points, found)
        points.append(found)
        if found.outcome == "capped" and not math.isfinite(found.mean):
            break  # smaller goals would be capped too
        middle, eps_before = found.settings[2], eps
    return Progress(series, points)


def _point(
    series: Series, eps: float, middle: float, records: Mapping[str, CellRecord]
) -> Point | Cell:
    """The point at a goal, or the cell that it lacks."""
    found = _searched(series, eps, middle, records)
    if isinstance(found, Cell):
        return found
    known, is_inside = found
    best = min(known, key=known.__getitem__)
    if not math.isfinite(known[best]):
        nan = math.nan
        return Point(eps, (nan, nan, nan), np.array([math.inf]), nan, nan, 1.0, "capped")
    fresh = series.cell(eps, best[:1], best[1:2], best[2:], fresh=True)
    record = records.get(fresh.key)
    if record is None:
        return fresh
    share = float(record.steps.mean() / series.cap(eps))
    outcome: Outcome = "measured" if is_inside else "censored"
    if share > NEAR_CAP or (record.status == CAPPED).any():
        outcome = "capped"
    if (record.status == DIVERGED).any():
        outcome = "diverged"
    return Point(eps, best, record.calls[0], known[best], _between(known, best), share, outcome)


def _searched(
    series: Series, eps: float, middle: float, records: Mapping[str, CellRecord]
) -> tuple[dict[Settings, float], bool] | Cell:
    """Mean calls by setting, and whether the best lies inside the grid; or the missing cell.

    The grid grows where its best setting lies at an edge, and to larger batches where none reached
    the goal, at most MOVES times.
    """
    low, high = series.method.log2_lr
    lrs = tuple(np.arange(low, high + 0.25, 0.5).tolist())
    alphas = tuple(math.log2(alpha) for alpha in series.method.alpha)
    first, last = series.method.log2_batch or (middle - BATCHES, middle + BATCHES)
    batches = _octaves(first, last, series.least)
    cell = series.cell(eps, lrs, alphas, batches)
    known: dict[Settings, float] = {}
    for move in range(MOVES + 1):
        record = records.get(cell.key)
        if record is None:
            return cell
        means = admitted(record)
        for settings, mean in zip(cell.settings.tolist(), means.tolist(), strict=True):
            known[tuple(settings)] = mean
        added = _beyond(known, lrs, batches, series.least)
        if added is None:
            return known, True
        if move < MOVES:
            limit = min(known.values())
            cell = series.cell(eps, added[0] or lrs, alphas, added[1] or batches, limit=limit)
            lrs, batches = (
                tuple(sorted({*a, *b})) for a, b in ((lrs, added[0]), (batches, added[1]))
            )
    return known, False


def admitted(record: CellRecord) -> np.ndarray:
    """Mean calls of every setting, infinite for those that take too many steps; (settings,)."""
    means = record.calls.mean(axis=1)
    steps = means / 2.0 ** record.cell.settings[:, 2]
    return np.where(steps <= ADMITTED * record.cell.cap, means, np.inf)


def _octaves(low: float, high: float, least: float) -> tuple[float, ...]:
    """Octaves from low to high, none below the least batch."""
    return tuple(np.arange(max(least, low), high + 0.5).tolist())


def _between(known: Mapping[Settings, float], best: Settings) -> float:
    """How far below the best setting another one between grid points may lie, log2 calls.

    The vertex of the parabola through the best lr and its neighbours, and that of the batch. A
    neighbour that was given up counts as MARGIN times as dear.
    """
    depth = 0.0
    for axis in (0, 2):
        value = best[axis]
        least: dict[float, float] = {}
        for settings, mean in known.items():
            least[settings[axis]] = min(mean, least.get(settings[axis], math.inf))
        beside = [
            math.log2(min(least[at] / least[value], MARGIN))
            for at in (
                max((v for v in least if v < value), default=None),
                min((v for v in least if v > value), default=None),
            )
            if at is not None
        ]
        if len(beside) == 2 and sum(beside) > 0:
            depth += (beside[1] - beside[0]) ** 2 / (8 * sum(beside))
    return depth


def _beyond(
    known: Mapping[Settings, float],
    lrs: tuple[float, ...],
    batches: tuple[float, ...],
    least: float,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Further lrs or batches beyond the edge at which the best setting lies; None inside.

    Larger batches where no setting reached the goal. The least batch is no edge: there is none
    smaller. An edge in alpha is harmless, for batch and 1/alpha are interchangeable.
    """
    best = min(known, key=known.__getitem__)
    if not math.isfinite(known[best]):
        return (), _octaves(batches[-1] + 1, batches[-1] + BATCHES, least)
    lr, _, batch = best
    if batch == batches[-1]:
        return (), (batch + 1, batch + 2)
    if batch == batches[0] and batch > least:
        return (), _octaves(batch - 2, batch - 1, least)
    if lr == lrs[-1]:
        return (lr + 0.5, lr + 1), ()
    if lr == lrs[0]:
        return (lr - 1, lr - 0.5), ()
    return None


def forecast(known: Sequence[Progress], workers: int) -> tuple[int, float]:
    """Number of missing points, and the seconds that they take all workers, roughly.

    The goals of a series follow each other, so a study takes no less than its longest series.
    """
    count, total, longest = 0, 0.0, 0.0
    for each in known:
        if each.missing is None:
            continue
        goals = each.series.part.log2_eps[len(each.points) :]
        seconds = sum(_seconds(each.series, 2.0**goal) for goal in goals)
        count, total, longest = count + len(goals), total + seconds, max(longest, seconds)
    return count, max(total / workers, longest)


def _seconds(series: Series, eps: float) -> float:
    """Seconds of one thread for a point, roughly."""
    per_step = STEP_SECONDS + SPIKE_SECONDS * (series.law == "spike")
    if series.part.aspect:
        per_step += MATRIX_SECONDS * series.directions**2
    return per_step * series.cap(eps)
