"""The rule of 0.1, which judges the records of schema 1 alone: `transfers` is what is not shown."""

from dataclasses import replace

import numpy as np
import pandas as pd

from hptransfer.analysis import optimum as today
from hptransfer.analysis.carried import Pair, Runs, Transfer, pairs, runs_at, targets
from hptransfer.analysis.curve import curve
from hptransfer.analysis.frame import groups, searches
from hptransfer.analysis.judgement import Judgement, Verdict
from hptransfer.analysis.measured_cost import measured_cost
from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.parabola import Interval, mean_interval
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import finished
from hptransfer.spec import FIRST_SCHEMA
from hptransfer.suite.tables import Thresholds

FRESH_SEED = 1000  # from here on seeds judge; those below it search


def applies(suite: Question) -> bool:
    """Whether the suite is one of records of schema 1."""
    return suite.records_schema == FIRST_SCHEMA


def rule(limits: Thresholds) -> list[tuple[str, str]]:
    """`decide` in words, in the order in which it is applied."""
    return [
        (
            "drifts",
            f"the optimum moved by more than {limits.drift:g} octaves, the regret is above "
            f"{limits.tol:g} nat, and its interval lies above 0",
        ),
        (
            "inconclusive",
            f"the optimum moved that far, and the regret's interval reaches above "
            f"{2 * limits.tol:g} nat",
        ),
        ("transfers", "neither of these was shown"),
    ]


def transfers(suite: Question, rows: pd.DataFrame) -> list[Transfer]:
    """One per (optimizer, target), as `transfer.transfers` has them.

    The optima are those of the runs that searched. Fresh seeds judge them, at the carried lr and
    at the optimum, both rounded to 1/8 octave.
    """
    searched, fresh = rows[rows["seed"] < FRESH_SEED], rows[rows["seed"] >= FRESH_SEED]
    parts = groups(fresh)
    every = pairs(suite, searched, targets(suite, rows), _optima(suite, searched), optimum)
    return [_transfer(suite, pair, parts.get((pair.optimizer, pair.n))) for pair in every]


def _transfer(suite: Question, pair: Pair, fresh: pd.DataFrame | None) -> Transfer:
    def runs(best: Optimum | None) -> Runs:
        if best is None:
            return Runs()
        return runs_at(fresh, suite.clip_lr(pair.optimizer, best.log2_lr), best.hp)

    carried, own, judged = runs(pair.at_proxy), runs(pair.at_target), None
    if pair.at_proxy is not None and pair.at_target is not None:
        differences = (carried.losses - own.losses).dropna().to_numpy(float)
        drift = pair.at_target.log2_lr - pair.at_proxy.log2_lr
        judged = judge(differences, drift, suite.thresholds)
    made = [part for part in (pair.rows, fresh) if part is not None]
    cost = measured_cost(pair.proxy_rows, pd.concat(made) if made else None)
    return pair.concluded(carried, own, judged, cost)


def _optima(suite: Question, rows: pd.DataFrame) -> dict[str, dict[int, Optimum | None]]:
    """`optimum.optima` with each lr* where that rule placed it. `rows`: those that searched."""
    return {
        label: {n: optimum(part) for n, part in by_n.items()}
        for label, by_n in searches(suite, rows).items()
    }


def optimum(rows: pd.DataFrame) -> Optimum | None:
    """The optimum of the mean curve, without an interval of today's."""
    found = today.optimum(rows)
    if found is None or found.vertex is None or found.cliff:
        return found
    points = curve(finished(rows))
    kept = ~points.roofed
    return replace(found, log2_lr=_vertex(points.x[kept], points.mean[kept]), vertex=None)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """lr* of the points within one octave, or of the middle three where it leaves them, log2."""
    k = int(y.argmin())
    z = x - x[k]
    for points in (np.abs(z) <= 1, np.isin(np.arange(len(z)), (k - 1, k, k + 1))):
        a, b, _ = np.polyfit(z[points], y[points], 2)
        if a > 0 and z[k - 1] <= -b / (2 * a) <= z[k + 1]:
            return float(x[k] - b / (2 * a))
    return float(x[k])


def decide(regret: Interval, drift: float, limits: Thresholds) -> Verdict:
    """`drifts`, `inconclusive` or `transfers`. `drift`: octaves."""
    moved = abs(drift) > limits.drift
    if moved and regret.low > 0 and regret.value > limits.tol:
        return "drifts"
    if moved and regret.high > 2 * limits.tol:
        return "inconclusive"
    return "transfers"


def judge(differences: np.ndarray, drift: float, limits: Thresholds) -> Judgement | None:
    """The judgement of the losses at the carried lr less those at lr*, nats, (seeds,).

    None without a seed. What that rule did not know is NaN.
    """
    if not len(differences):
        return None
    regret, nan = mean_interval(differences.tolist()), float("nan")
    return Judgement(
        verdict=decide(regret, drift, limits),
        regret=regret,
        lr_star=Interval(),
        octave_down=nan,
        octave_up=nan,
        n_seeds=len(differences),
        kept=nan,
        seeds_needed=None,
    )
