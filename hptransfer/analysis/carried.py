"""One optimizer carried to one axis value: its searches, its runs there, and what they show."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from hptransfer.analysis import judgement
from hptransfer.analysis.curve import capped_losses
from hptransfer.analysis.frame import groups
from hptransfer.analysis.judgement import Judgement, Source
from hptransfer.analysis.measured_cost import MeasuredCost
from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.parabola import Interval, combination
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import count, finished
from hptransfer.spec import canonical

NAN = float("nan")
ENOUGH_SEEDS = 3  # with fewer seeds a verdict is called indicative

Verdict = Literal["diverged", "censored", "unverified", "incomplete"] | judgement.Verdict
JUDGED = ("drifts", "insensitive", "transfers", "inconclusive")


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs at one setting: its log2 lr (None: no optimum says which), losses by seed.

    `losses`: nats, capped at the loss at init. `n_diverged`: how many of the runs diverged.
    """

    log2_lr: float | None = None
    losses: "pd.Series[float]" = field(default_factory=lambda: pd.Series(dtype=float))
    n_diverged: int = 0

    @property
    def mean(self) -> float:
        """Mean loss, nats; NaN without runs."""
        return float(self.losses.mean())


@dataclass(frozen=True)
class Transfer:
    """One optimizer, carried from the proxy to one axis value `n`.

    `at_proxy`, `at_target`: the optima that the searches found. `carried`, `own`: the runs at n
    with the lr of the proxy, and with the best one there. `drift`: octaves, with its 95% interval.
    `judgement`: None where the verdict stands before the regret is looked at. `n_seeds`: seeds
    behind the regret, or behind the carried loss where there is no regret. `source`: how the loss
    at the carried lr is known, or why it is not.
    """

    optimizer: str
    proxy: int
    n: int
    verdict: Verdict
    at_proxy: Optimum | None
    at_target: Optimum | None
    carried: Runs
    own: Runs
    drift: Interval
    judgement: Judgement | None
    n_seeds: int
    cost: MeasuredCost
    source: Source = "run"

    @property
    def regret(self) -> Interval:
        """Mean over the seeds of L_n(carried lr) - L_n(lr*), nats."""
        return self.judgement.regret if self.judgement else Interval()

    @property
    def indicative(self) -> bool:
        """Whether the verdict rests on too few seeds."""
        return self.verdict in JUDGED and self.n_seeds < ENOUGH_SEEDS

    @property
    def on_edge(self) -> bool:
        """Whether rounding decides the verdict."""
        return self.verdict in JUDGED and self.judgement is not None and self.judgement.on_edge

    @property
    def relative_regret(self) -> float:
        """Regret over the loss at the own lr; NaN where the regret was not measured."""
        return self.regret.value / self.own.mean if len(self.own.losses) else NAN

    @property
    def noise_floor(self) -> float:
        """Standard error of the loss at the own lr, nats; NaN with fewer than two seeds."""
        count = len(self.own.losses)
        return float(self.own.losses.std(ddof=1) / np.sqrt(count)) if count > 1 else NAN

    @property
    def best_loss(self) -> float:
        """Loss at the own lr, nats: of the runs there, else the minimum of the search."""
        if len(self.own.losses):
            return self.own.mean
        return self.at_target.loss if self.at_target else NAN


def targets(suite: Question, rows: pd.DataFrame) -> list[int]:
    """The suite's targets and waypoints, and every other axis value with runs."""
    return sorted({*suite.axis_values, *map(int, rows["n"].unique())} - {suite.proxy})


@dataclass(frozen=True, eq=False)
class Pair:
    """The searches of one optimizer at the proxy and at axis value `n`, and their optima.

    `proxy_rows`, `rows`: None without runs. `at_target`: the optimum with the searched values of
    the proxy, which are carried unchanged, so that only the lr may move.
    """

    optimizer: str
    proxy: int
    n: int
    proxy_rows: pd.DataFrame | None
    rows: pd.DataFrame | None
    at_proxy: Optimum | None
    at_target: Optimum | None

    def concluded(
        self,
        carried: Runs,
        own: Runs,
        judgement: Judgement | None,
        cost: MeasuredCost,
        source: Source = "run",
    ) -> Transfer:
        """What a rule says of the pair. `judgement`: None where its regret was not measured."""
        n_seeds = len(carried.losses) if self.at_target is None else 0
        n_seeds = judgement.n_seeds if judgement else n_seeds
        verdict = judgement.verdict if judgement else "incomplete"
        return Transfer(
            optimizer=self.optimizer,
            proxy=self.proxy,
            n=self.n,
            verdict=self._unjudged(n_seeds) or verdict,
            at_proxy=self.at_proxy,
            at_target=self.at_target,
            carried=carried,
            own=own,
            drift=self._drift(),
            judgement=judgement,
            n_seeds=n_seeds,
            cost=cost,
            source=source,
        )

    def _unjudged(self, n_seeds: int) -> Verdict | None:
        """The verdict that stands before the regret is looked at; None where the regret decides."""
        if self.at_proxy is None:
            return "diverged" if _all_diverged(self.proxy_rows) else "incomplete"
        if self.at_target is None and _all_diverged(self.rows):
            return "diverged"
        at_edge = self.at_proxy.censored or self.at_proxy.hp_edges
        if at_edge or (self.at_target and self.at_target.censored):
            return "censored"
        if self.at_target is None:
            return "unverified" if n_seeds else "incomplete"
        return None if n_seeds else "incomplete"

    def _drift(self) -> Interval:
        """lr* at the target over lr* at the proxy, octaves; unbounded without seeds at both."""
        if self.at_proxy is None or self.at_target is None:
            return Interval()
        if self.at_proxy.vertex is None or self.at_target.vertex is None:
            return Interval(self.at_target.log2_lr - self.at_proxy.log2_lr)
        return combination([self.at_proxy.vertex, self.at_target.vertex], [-1.0, 1.0])


def pairs(
    suite: Question,
    rows: pd.DataFrame,
    values: Iterable[int],
    optima: Mapping[str, Mapping[int, Optimum | None]],
    optimum: Callable[[pd.DataFrame], Optimum | None],
) -> list[Pair]:
    """One per label of the suite and axis value, in that order.

    `rows`: those that searched. `optima`: those of the searches. `optimum`: that of some rows.
    """
    parts = groups(rows)
    made = []
    for label in suite.templates:
        best = optima.get(label, {})
        at_proxy = best.get(suite.proxy)
        for n in values:
            own, at_target = parts.get((label, n)), best.get(n)
            if own is not None and at_proxy and at_proxy.hp and at_target:
                at_target = optimum(own[own["hp_point"] == canonical(at_proxy.hp)])
            proxy_rows = parts.get((label, suite.proxy))
            made.append(Pair(label, suite.proxy, n, proxy_rows, own, at_proxy, at_target))
    return made


def runs_at(rows: pd.DataFrame | None, log2_lr: float, hp: dict[str, float]) -> Runs:
    """The runs at one setting."""
    if rows is None:
        return Runs(log2_lr)
    here = rows[rows["log2_lr"] == log2_lr]
    rows = finished(here[here["hp_point"] == canonical(hp)])
    losses = pd.Series(capped_losses(rows), index=rows["seed"].to_numpy())
    return Runs(log2_lr, losses, count(rows, "diverged"))


def _all_diverged(search: pd.DataFrame | None) -> bool:
    return search is not None and bool((search["status"] == "diverged").all())
