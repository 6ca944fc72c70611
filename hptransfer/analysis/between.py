"""The loss at a carried lr that nobody ran: read off the parabola, or between its neighbours."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from hptransfer.analysis.curve import Curve
from hptransfer.analysis.judgement import Case, Judgement, Source
from hptransfer.analysis.optimum import near
from hptransfer.analysis.parabola import Fit, Interval, Near, combination, vertex
from hptransfer.suite.grid import Grid

NAN = float("nan")


@dataclass(frozen=True)
class Found:
    """What a curve says of a carried lr.

    `case`: None where the loss there is no number. `source`: how it is known, or why it is not.
    `n_seeds`: seeds that diverged there, of a source that says so.
    """

    case: Case | None
    source: Source
    n_seeds: int = 0


def found(points: Curve, carried: float, grid: Grid) -> Found:
    """The loss at the carried log2 lr, by a run there or else by those beside it.

    Nothing is extrapolated beyond the tried learning rates. A divergence whose loss is not known
    gives no number; where every seed diverged at the lr, or at both of its neighbours, it diverges.
    One seed has no interval that would allow for a parabola that does not fit, so the cases are
    cautious.
    """
    x = points.x
    if carried in x:
        return _there(points, int(np.flatnonzero(x == carried)[0]), grid)
    right = int(np.searchsorted(x, carried))
    if right in (0, len(x)):
        return Found(None, "below" if right == 0 else "above")
    beside = points.grid[right - 1 : right + 1]
    lost = np.isposinf(beside)
    if (lost.any(axis=1) & ~np.isfinite(beside).any(axis=1)).all():
        return Found(None, "between divergences", int(lost.any(axis=0).sum()))
    if lost.any():
        return Found(None, "beside a divergence")
    for losses in (points.grid, points.mean[:, None]):  # no seed ran at all of them: their means
        case = _between(points, losses, carried, right, grid)
        if case is not None:
            return Found(case, case.source)
    return Found(None, "run")


def _there(points: Curve, at: int, grid: Grid) -> Found:
    """By the runs at point `at`."""
    lost = np.isposinf(points.grid[at])
    if lost.any():
        whole = not np.isfinite(points.grid[at]).any()
        return Found(None, "diverged" if whole else "partly diverged", int(lost.sum()))
    case = Case.of(points.x, points.grid, points.roofed, float(points.x[at]), grid)
    return Found(case and replace(case, cautious=True), "run")


def _between(
    points: Curve, losses: np.ndarray, carried: float, right: int, grid: Grid
) -> Case | None:
    """By the neighbours `right` - 1 and `right`; None where no seed ran at both and at the minimum.

    `losses`: nats, (points, seeds).
    """
    able = np.isfinite(losses[right - 1]) & np.isfinite(losses[right])
    known = Near.of(points.x, losses, points.roofed, able, grid)
    if known is None:
        return None
    run, slack = interpolated(points.x, losses[:, known.seeds], carried)
    if known.x[0] <= carried <= known.x[-1]:
        return Case(known, carried, run, "parabola", cautious=True)
    return Case(known, carried, run, "interpolation", slack, cautious=True)


def interpolated(x: np.ndarray, losses: np.ndarray, at: float) -> tuple[np.ndarray, float]:
    """The loss of each seed at `at`, nats, (seeds,), and how far the straight lines lie from it.

    A monotone cubic through the points of the seed. The second value is of the mean over seeds,
    nats. `x`: log2 lr, octaves, rising, (points,). `losses`: nats, (points, seeds), finite on both
    sides of `at`. Source: Fritsch and Carlson 1980, "Monotone piecewise cubic interpolation".
    """
    smooth, straight = np.empty(losses.shape[1]), np.empty(losses.shape[1])
    masks, kinds = np.unique(np.isfinite(losses), axis=1, return_inverse=True)
    for i, mask in enumerate(masks.T):
        own = losses[mask][:, kinds == i]
        smooth[kinds == i] = PchipInterpolator(x[mask], own)(at)
        left = int(np.searchsorted(x[mask], at)) - 1
        share = (at - x[mask][left]) / (x[mask][left + 1] - x[mask][left])
        straight[kinds == i] = (1 - share) * own[left] + share * own[left + 1]
    return smooth, abs(float((smooth - straight).mean()))


def at_carried(case: Case) -> np.ndarray:
    """The losses at the carried lr, nats, (seeds,)."""
    fit = Fit.of(case.near.x, case.near.losses[None], case.near.k, case.near.reach)
    if case.source != "parabola" or fit is None:
        return case.run
    return fit.at(np.array([case.carried - fit.center]))[0]


def diverged(points: Curve, n_seeds: int, grid: Grid) -> Judgement:
    """The judgement of a carried lr that diverges: its regret has no bound."""
    known = near(points, grid)
    return Judgement(
        verdict="drifts",
        regret=Interval(np.inf),
        lr_star=Interval() if known is None else combination([vertex(known)], [1.0]),
        octave_down=NAN,
        octave_up=NAN,
        n_seeds=n_seeds,
        kept=1.0,
        seeds_needed=None,
    )
