"""Did the learning rate transfer: drift, paired regret, cost and verdict as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from hptransfer.analysis.curve import capped_losses
from hptransfer.analysis.frame import Groups, groups
from hptransfer.analysis.optimum import Optimum, optima, optimum
from hptransfer.analysis.statuses import count, finished
from hptransfer.spec import canonical
from hptransfer.suite.resolved import Suite
from hptransfer.suite.tables import Thresholds

NAN = float("nan")
ENOUGH_SEEDS = 3  # with fewer seeds a verdict is called indicative
NORMAL_95 = 1.96

Verdict = Literal[
    "diverged", "censored", "unverified", "incomplete", "drifts", "inconclusive", "transfers"
]
JUDGED = ("drifts", "inconclusive", "transfers")


@dataclass(frozen=True)
class Interval:
    """A number with its 95% interval; NaN where it was not measured."""

    value: float = NAN
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class MeasuredCost:
    """Runs at the target and the price of tuning; NaN where no run tells.

    `peak_memory`: bytes, of a whole unit. `tuning_*`: spent at the proxy. `direct_*`: as many
    trials at the target, at the mean price of a finished run there. `saving_*`: their ratio.
    """

    seconds_per_step: float = NAN
    peak_memory: float = NAN
    lanes_max: int | None = None
    tokens_per_second: float = NAN
    flops_per_second: float = NAN
    n_diverged: int = 0
    n_failed: int = 0
    tuning_flops: float = NAN
    tuning_seconds: float = NAN
    direct_flops: float = NAN
    direct_seconds: float = NAN

    @property
    def saving_flops(self) -> float:
        return self.direct_flops / self.tuning_flops if self.tuning_flops else NAN

    @property
    def saving_seconds(self) -> float:
        return self.direct_seconds / self.tuning_seconds if self.tuning_seconds else NAN


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
    with the lr of the proxy, and with the best one there. `drift`: octaves. `regret`: nats, the
    mean over the seeds of L_n(carried lr) - L_n(own lr), paired by seed. `n_seeds`: seeds behind
    the regret, or behind the carried loss where there is no regret. `indicative`: too few of them.
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
    regret: Interval
    n_seeds: int
    cost: MeasuredCost

    @property
    def indicative(self) -> bool:
        return self.verdict in JUDGED and self.n_seeds < ENOUGH_SEEDS

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


def targets(suite: Suite, rows: pd.DataFrame) -> list[int]:
    """The suite's targets and every other axis value with runs."""
    return sorted({*suite.targets, *map(int, rows["n"].unique())} - {suite.proxy})


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and its 95% t-interval; unbounded for one value, NaN for none."""
    if not values:
        return Interval()
    mean, dof = float(np.mean(values)), len(values) - 1
    if dof == 0:
        return Interval(mean, -np.inf, np.inf)
    half = float(stdtrit(dof, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def decide(regret: Interval, drift: float, limits: Thresholds) -> Verdict:
    """`drifts`, `inconclusive` or `transfers`, once both optima and the regret are measured."""
    moved = abs(drift) > limits.drift
    if moved and regret.low > 0 and regret.value > limits.tol:
        return "drifts"
    if moved and regret.high > 2 * limits.tol:
        return "inconclusive"
    return "transfers"


def transfers(suite: Suite, rows: pd.DataFrame) -> list[Transfer]:
    """One per (optimizer, target): labels as the suite orders them, targets rising.

    Learning rates are rounded to 1/8 octave; a run that diverged counts as the loss at init.
    """
    parts, best = groups(rows), optima(suite, rows)
    return [
        _transfer(suite, parts, best.get(label, {}), label, n)
        for label in suite.templates
        for n in targets(suite, rows)
    ]


def _transfer(
    suite: Suite, parts: Groups, best: dict[int, Optimum | None], label: str, n: int
) -> Transfer:
    at_proxy, at_target = best.get(suite.proxy), best.get(n)
    proxy_search, search = parts.get((label, suite.proxy)), parts.get((label, n))
    if at_proxy and at_proxy.hp and at_target and search is not None:
        # Searched values are carried unchanged, so only the lr may move.
        at_target = optimum(search[search["hp_point"] == canonical(at_proxy.hp)])
    if search is not None and search["log2_lr"].nunique() == 1:
        at_target = None  # the carried lr alone
    carried = own = Runs()
    if at_proxy is not None:
        carried = _runs(search, suite.clip_lr(label, at_proxy.log2_lr), at_proxy.hp)
    if at_target is not None:
        own = _runs(search, _most_tried(search, at_target.hp), at_target.hp)
    n_seeds, regret = len(carried.losses), Interval()
    if at_proxy and at_target:
        difference = (carried.losses - own.losses).dropna()
        n_seeds, regret = len(difference), mean_interval(difference.to_list())
        if own.log2_lr == carried.log2_lr and at_proxy.hp == at_target.hp and n_seeds:
            regret = Interval(0.0, 0.0, 0.0)
    drift = _drift(at_proxy, at_target)
    return Transfer(
        optimizer=label,
        proxy=suite.proxy,
        n=n,
        verdict=_unjudged(proxy_search, search, at_proxy, at_target, n_seeds)
        or decide(regret, drift.value, suite.thresholds),
        at_proxy=at_proxy,
        at_target=at_target,
        carried=carried,
        own=own,
        drift=drift,
        regret=regret,
        n_seeds=n_seeds,
        cost=_cost(proxy_search, [] if search is None else [search]),
    )


def _most_tried(rows: pd.DataFrame | None, hp: dict[str, float]) -> float:
    """Of the log2 lrs that have the most seeds, the one of the least mean loss."""
    assert rows is not None
    rows = finished(rows[rows["hp_point"] == canonical(hp)])
    means = pd.Series(capped_losses(rows)).groupby(rows["log2_lr"].to_numpy()).agg(["size", "mean"])
    return float(means[means["size"] == means["size"].max()]["mean"].idxmin())


def _runs(rows: pd.DataFrame | None, log2_lr: float, hp: dict[str, float]) -> Runs:
    """The runs at one setting."""
    if rows is None:
        return Runs(log2_lr)
    here = rows[rows["log2_lr"] == log2_lr]
    rows = finished(here[here["hp_point"] == canonical(hp)])
    losses = pd.Series(capped_losses(rows), index=rows["seed"].to_numpy())
    return Runs(log2_lr, losses, count(rows, "diverged"))


def _drift(at_proxy: Optimum | None, at_target: Optimum | None) -> Interval:
    """lr* at the target over lr* at the proxy, octaves; no interval without seeds at both."""
    if at_proxy is None or at_target is None:
        return Interval()
    drift = at_target.log2_lr - at_proxy.log2_lr
    if min(at_proxy.seeds, at_target.seeds) < 2:
        return Interval(drift)
    half = NORMAL_95 * float(np.hypot(at_proxy.se, at_target.se))
    return Interval(drift, drift - half, drift + half)


def _all_diverged(search: pd.DataFrame | None) -> bool:
    return search is not None and bool((search["status"] == "diverged").all())


def _unjudged(
    proxy_search: pd.DataFrame | None,
    search: pd.DataFrame | None,
    at_proxy: Optimum | None,
    at_target: Optimum | None,
    n_seeds: int,
) -> Verdict | None:
    """The verdict that stands before the regret is looked at; None where the regret decides."""
    if at_proxy is None:
        return "diverged" if _all_diverged(proxy_search) else "incomplete"
    if at_target is None and _all_diverged(search):
        return "diverged"
    if at_proxy.censored or at_proxy.hp_edges or (at_target and at_target.censored):
        return "censored"
    if at_target is None:
        return "unverified" if n_seeds else "incomplete"
    return None if n_seeds else "incomplete"


def _cost(proxy_search: pd.DataFrame | None, at_target: list[pd.DataFrame]) -> MeasuredCost:
    """Tuning at the proxy against as many trials at the target."""
    trials = NAN if proxy_search is None else len(proxy_search)
    cost = _at_target(pd.concat(at_target), trials) if at_target else MeasuredCost()
    if proxy_search is None:
        return cost
    flops, seconds = (float(proxy_search[name].sum()) for name in ("flops", "seconds"))
    return replace(cost, tuning_flops=flops, tuning_seconds=seconds)


def _at_target(rows: pd.DataFrame, trials: float) -> MeasuredCost:
    """The runs at the target, and the price of so many `trials` there."""
    cost = MeasuredCost(n_diverged=count(rows, "diverged"), n_failed=count(rows, "failed"))
    done = rows[rows["status"] == "done"]
    if not len(done):
        return cost
    seconds = float(done["seconds"].sum()) or NAN  # 0: unknown
    return replace(
        cost,
        seconds_per_step=float((done["seconds"] / done["steps"]).mean()),
        peak_memory=float(done["peak_memory"].max()) or NAN,  # 0: unknown
        lanes_max=int(done["lanes"].max()),
        tokens_per_second=float(done["tokens"].sum()) / seconds,
        flops_per_second=float(done["flops"].sum()) / seconds,
        direct_flops=float(done["flops"].mean()) * trials,
        direct_seconds=float(done["seconds"].mean()) * trials,
    )
