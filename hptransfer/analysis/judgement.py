"""One carried learning rate, judged at one target: verdict, regret, lr*, and how firm they are.

Numbers in, numbers out. docs/verdicts.md explains the rule and says how often it errs.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from hptransfer.analysis.parabola import OWN, SIDE, Fit, Interval, Near, chunks, combination, vertex
from hptransfer.suite.grid import Grid

Verdict = Literal["drifts", "insensitive", "transfers", "inconclusive"]
Source = Literal[
    "run", "parabola", "interpolation", "below", "above", "diverged", "between divergences",
    "partly diverged", "beside a divergence",
]  # fmt: skip
"""How the loss at a carried lr is known, or why it is not."""

REDRAWS = 200  # of the losses, with rounding
FIRM = 0.9  # share of redraws that a verdict off the edge keeps
POWER = 0.8  # with which the needed number of seeds would decide
MOST_SEEDS = 1000  # beyond which a number of seeds is no advice


class Limits(Protocol):
    """Thresholds of the rule, nats. `rounding`: standard deviation of one loss by rounding."""

    @property
    def tol(self) -> float: ...
    @property
    def limit(self) -> float: ...
    @property
    def rounding(self) -> float: ...


@dataclass(frozen=True)
class Judgement:
    """What the losses at one target say of one carried learning rate.

    `regret`: nats, its interval misses the truth at each side in 2% of cases. `lr_star`: log2 lr
    in octaves, 95%. `octave_down`, `octave_up`: upper bounds of the cost of a step of one octave
    from lr*, nats, NaN beside a cliff. `kept`: share of redraws with rounding in which the verdict
    is the same. `seeds_needed`: seeds with which an inconclusive case would be decided in 80% of
    studies, by the spread seen; None for a decided case, and where 1,000 seeds would not do.
    """

    verdict: Verdict
    regret: Interval
    lr_star: Interval
    octave_down: float
    octave_up: float
    n_seeds: int
    kept: float
    seeds_needed: int | None

    @property
    def on_edge(self) -> bool:
        """Whether rounding decides the verdict."""
        return self.kept < FIRM


@dataclass(frozen=True)
class _Costs:
    """Costs against lr* in each redraw, nats.

    `carried`, `down`, `up`: of the carried lr, and of one octave below and above lr*, (redraws,
    seeds). `bias`: what the parabola may err in the mean of `carried`, (redraws,). `cautious`: as
    that of the case.
    """

    carried: np.ndarray
    down: np.ndarray
    up: np.ndarray
    bias: np.ndarray
    cautious: bool


@dataclass(frozen=True)
class Case:
    """The losses that judge a carried lr, of seeds that ran there and near the optimum.

    `carried`: log2 lr, octaves. `run`: the losses there, nats, (seeds,). `source`: how they are
    known; the parabola may stand for them. `slack`: what they may err in the mean, nats.
    `cautious`: the verdict of one seed allows for the error of the parabola.
    """

    near: Near
    carried: float
    run: np.ndarray
    source: Source = "run"
    slack: float = 0.0
    cautious: bool = False

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        losses: np.ndarray,
        roofed: np.ndarray,
        carried: float,
        grid: Grid = OWN,
    ) -> Self | None:
        """The case; None where no seed ran at the carried lr and near the least mean loss.

        Arguments as in `Near.of`.
        """
        row = losses[x == carried]
        near = Near.of(x, losses, roofed, ~np.isnan(row[0]), grid) if len(row) else None
        return None if near is None else cls(near, carried, row[0, near.seeds])

    @property
    def n_seeds(self) -> int:
        """Seeds that count."""
        return len(self.run)

    def costs(self, losses: np.ndarray, run: np.ndarray, carried: np.ndarray) -> _Costs:
        """Costs of redraws of this case.

        `losses`: nats, (redraws, points, seeds). `run`: at the carried lr, nats, (redraws, seeds).
        `carried`: log2 lr, octaves, (redraws,).
        """
        fit = Fit.of(self.near.x, losses, self.near.k, self.near.reach)
        if fit is None:
            unknown = np.full_like(run, np.nan)
            bias = np.full(len(run), self.slack)
            return _Costs(run - losses[:, self.near.k], unknown, unknown, bias, self.cautious)
        best = fit.vertex()
        least, (_, cubic_least) = fit.at(best), fit.cubic_vertex()
        cubic = run.mean(axis=1)
        if self.source == "parabola" or self.carried in self.near.x:
            z = carried - fit.center
            run, cubic = fit.at(z), fit.cubic_at(z[:, None])[:, 0]
        bias = np.abs(cubic - cubic_least - (run - least).mean(axis=1)) + self.slack
        down, up = fit.at(best - 1) - least, fit.at(best + 1) - least
        return _Costs(run - least, down, up, bias, self.cautious)

    def seen(self) -> _Costs:
        """Costs of the losses as they are, one redraw."""
        return self.costs(self.near.losses[None], self.run[None], np.array([self.carried]))


def judge(
    case: Case, limits: Limits, looks: Sequence[int] = (), carried: np.ndarray | None = None
) -> Judgement:
    """The judgement of the carried lr.

    Each seed is fitted by a parabola in log2 lr through its losses within one octave of the least
    mean loss. lr* is the vertex of their mean. The regret of a seed is its loss at the carried lr
    (its parabola there, or its run where that lies outside the fitted points) less its parabola at
    lr*. The interval of the mean is a t-interval over seeds, widened to each side by the
    difference between a parabola and a cubic through the mean curve.

    `drifts`: the lower bound is above tol. `transfers`: the upper bound is below the limit.
    `insensitive`: that, and one octave down and one up cost less than tol at their upper bounds,
    so that any lr nearby would have passed. Else `inconclusive`.

    One seed gives no interval and proves nothing: the bounds are infinite, and the verdict is that
    of the point estimates, which the caller marks as indicative. In a cautious case they count with
    what the parabola may err.

    `looks`: numbers of seeds at which a verdict would have ended the study before; a redraw goes
    through them too. `carried`: log2 lr that each of the REDRAWS carries, octaves; by default that
    of the case. Raises ValueError for another number of them.
    """
    seen, word = case.seen(), verdict(case, limits)
    mean, half = float(seen.carried.mean()), float((_half(seen.carried) + seen.bias)[0])
    again = _again(case, limits, looks, carried)
    return Judgement(
        verdict=word,
        regret=Interval(mean, mean - half, mean + half),
        lr_star=combination([vertex(case.near)], [1.0]),
        octave_down=float(_upper(seen.down)[0]),
        octave_up=float(_upper(seen.up)[0]),
        n_seeds=case.n_seeds,
        kept=float((again == word).mean()),
        seeds_needed=_needed(seen, limits) if word == "inconclusive" else None,
    )


def _again(
    case: Case, limits: Limits, looks: Sequence[int], carried: np.ndarray | None
) -> np.ndarray:
    """The verdict of each redraw with rounding, after as many seeds as it then takes."""
    if carried is None:
        carried = np.full(REDRAWS, case.carried)
    if len(carried) != REDRAWS:
        raise ValueError(f"carried: got {len(carried)} redraws, needs {REDRAWS}")
    rng, shape, found = np.random.default_rng(0), case.near.losses.shape, []
    for redraws in chunks(REDRAWS, case.near.losses.size):
        losses = case.near.losses + limits.rounding * rng.normal(size=(redraws, *shape))
        run = case.run + limits.rounding * rng.normal(size=(redraws, case.n_seeds))
        own, carried = carried[:redraws], carried[redraws:]
        verdicts = np.full(redraws, "inconclusive", dtype=object)
        for count in (*(look for look in looks if look < case.n_seeds), case.n_seeds):
            later = _verdicts(case.costs(losses[:, :, :count], run[:, :count], own), limits)
            verdicts = np.where(verdicts == "inconclusive", later, verdicts)
        found.append(verdicts)
    return np.concatenate(found)


def undecided(case: Case, limits: Limits) -> bool:
    """Whether more seeds may change the verdict: it is inconclusive, or one seed gave it."""
    return case.n_seeds < 2 or verdict(case, limits) == "inconclusive"


def verdict(case: Case, limits: Limits) -> Verdict:
    """The verdict of `judge` alone."""
    return str(_verdicts(case.seen(), limits)[0])  # type: ignore[return-value]


def _half(values: np.ndarray) -> np.ndarray:
    """Half the length of the t-interval of the mean over seeds, (redraws,); inf for one seed."""
    count = values.shape[1]
    if count < 2:
        return np.full(len(values), np.inf)
    return _quantile(count) * values.std(axis=1, ddof=1) / np.sqrt(count)


@functools.cache
def _quantile(count: int) -> float:
    """Student's t that the mean over so many seeds exceeds by chance in SIDE of cases."""
    return float(student.isf(SIDE, count - 1))


def _upper(values: np.ndarray) -> np.ndarray:
    """Upper bound of the mean over seeds, (redraws,)."""
    return values.mean(axis=1) + _half(values)


def _verdicts(costs: _Costs, limits: Limits) -> np.ndarray:
    """The verdict in each redraw, (redraws,)."""
    mean, half = costs.carried.mean(axis=1), _half(costs.carried) + costs.bias
    down, up = _upper(costs.down), _upper(costs.up)
    if costs.carried.shape[1] < 2:
        half = costs.bias if costs.cautious else np.zeros_like(half)
        down, up = costs.down[:, 0], costs.up[:, 0]
    passes = mean + half < limits.limit
    flat = (down < limits.tol) & (up < limits.tol)
    rules = [mean - half > limits.tol, passes & flat, passes]
    return np.select(rules, ["drifts", "insensitive", "transfers"], "inconclusive")


def _needed(costs: _Costs, limits: Limits) -> int | None:
    """Seeds with which the case would be decided with POWER, by the power of a t-test."""
    values = costs.carried[0]
    if len(values) < 2 or not values.std():  # no spread was seen
        return None
    mean, bias = float(values.mean()), float(costs.bias[0])
    margin = max(limits.limit - mean, mean - limits.tol) - bias
    counts = np.arange(2, MOST_SEEDS + 1)
    shift = margin / values.std(ddof=1) * np.sqrt(counts)
    enough = nct.sf(student.isf(SIDE, counts - 1), counts - 1, shift) >= POWER
    return int(counts[enough.argmax()]) if enough.any() else None
