"""Did the learning rate transfer: drift, paired regret, cost and verdict as numbers."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from hptransfer.analysis import former, judgement
from hptransfer.analysis.curve import capped_losses, curve
from hptransfer.analysis.frame import Groups, groups
from hptransfer.analysis.judgement import REDRAWS, Case, Judgement
from hptransfer.analysis.optimum import Optimum, near, optima, optimum
from hptransfer.analysis.parabola import Interval, combination, redrawn
from hptransfer.analysis.statuses import count, finished
from hptransfer.spec import canonical
from hptransfer.suite.resolved import Suite

NAN = float("nan")
ENOUGH_SEEDS = 3  # with fewer seeds a verdict is called indicative

Verdict = Literal["diverged", "censored", "unverified", "incomplete"] | judgement.Verdict
JUDGED = ("drifts", "insensitive", "transfers", "inconclusive")


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
    with the lr of the proxy, and with the best one there. `drift`: octaves, with its 95% interval.
    `judgement`: None where the verdict stands before the regret is looked at. `n_seeds`: seeds
    behind the regret, or behind the carried loss where there is no regret.
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


def targets(suite: Suite, rows: pd.DataFrame) -> list[int]:
    """The suite's targets and every other axis value with runs."""
    return sorted({*suite.targets, *map(int, rows["n"].unique())} - {suite.proxy})


def transfers(suite: Suite, rows: pd.DataFrame) -> list[Transfer]:
    """One per (optimizer, target): labels as the suite orders them, targets rising.

    Learning rates are rounded to 1/8 octave; a run that diverged counts as the loss at init.
    Records of schema 1 are judged by the rule of 0.1 (analysis.former), which made them.
    """
    older = former.applies(suite)
    searched = former.searched(rows) if older else rows
    parts = groups(searched)
    best = former.optima(suite, searched) if older else optima(suite, rows)
    fresh = groups(former.fresh(rows)) if older else None
    return [
        _transfer(suite, parts, fresh, best.get(label, {}), label, n)
        for label in suite.templates
        for n in targets(suite, rows)
    ]


def _transfer(
    suite: Suite,
    parts: Groups,
    fresh: Groups | None,
    best: dict[int, Optimum | None],
    label: str,
    n: int,
) -> Transfer:
    at_proxy, at_target = best.get(suite.proxy), best.get(n)
    proxy_search, search = parts.get((label, suite.proxy)), parts.get((label, n))
    if at_proxy and at_proxy.hp and at_target and search is not None:
        # Searched values are carried unchanged, so only the lr may move.
        at_target = optimum(search[search["hp_point"] == canonical(at_proxy.hp)])
    if fresh is None and search is not None and search["log2_lr"].nunique() == 1:
        at_target = None  # the carried lr alone
    runs = search if fresh is None else fresh.get((label, n))
    carried = own = Runs()
    if at_proxy is not None:
        carried = _runs(runs, suite.clip_lr(label, at_proxy.log2_lr), at_proxy.hp)
    if at_target is not None:
        lr = suite.clip_lr(label, at_target.log2_lr)
        own = _runs(
            runs, lr if fresh is not None else _most_tried(search, at_target.hp), at_target.hp
        )
    judged = None
    if at_proxy and at_target and search is not None and fresh is not None:
        differences = (carried.losses - own.losses).dropna().to_numpy(float)
        drift = at_target.log2_lr - at_proxy.log2_lr
        judged = former.judge(differences, drift, suite.thresholds)
    elif at_proxy and at_target and search is not None:
        judged = _judged(suite, label, at_proxy, proxy_search, search)
    made = (search,) if fresh is None else (search, runs)
    n_seeds = judged.n_seeds if judged else 0 if at_target else len(carried.losses)
    verdict = _unjudged(proxy_search, search, at_proxy, at_target, n_seeds)
    verdict = verdict or (judged.verdict if judged else "incomplete")
    return Transfer(
        optimizer=label,
        proxy=suite.proxy,
        n=n,
        verdict=verdict,
        at_proxy=at_proxy,
        at_target=at_target,
        carried=carried,
        own=own,
        drift=_drift(at_proxy, at_target),
        judgement=judged,
        n_seeds=n_seeds,
        cost=_cost(proxy_search, [part for part in made if part is not None]),
    )


def _judged(
    suite: Suite,
    label: str,
    at_proxy: Optimum,
    proxy_search: pd.DataFrame | None,
    search: pd.DataFrame,
) -> Judgement | None:
    """The judgement of the carried lr; None where no seed ran there and near the optimum."""
    points = curve(search[search["hp_point"] == canonical(at_proxy.hp)])
    carried = suite.clip_lr(label, at_proxy.log2_lr)
    case = Case.of(points.x, points.grid, points.roofed, carried)
    if case is None:
        return None
    shaken = None
    if proxy_search is not None and at_proxy.vertex is not None and not at_proxy.cliff:
        known = near(curve(proxy_search))
        assert known is not None
        moved = redrawn(known, sd=suite.thresholds.rounding, redraws=REDRAWS)
        shaken = np.array([suite.clip_lr(label, float(lr)) for lr in moved])
    return judgement.judge(case, suite.thresholds, suite.looks, shaken)


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
    """lr* at the target over lr* at the proxy, octaves; unbounded without seeds at both."""
    if at_proxy is None or at_target is None:
        return Interval()
    if at_proxy.vertex is None or at_target.vertex is None:
        return Interval(at_target.log2_lr - at_proxy.log2_lr)
    return combination([at_proxy.vertex, at_target.vertex], [-1.0, 1.0])


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
