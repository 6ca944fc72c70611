"""Did the learning rate transfer: drift, paired regret, cost and verdict as numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd

from hptransfer.analysis import former, judgement
from hptransfer.analysis.carried import Pair, Runs, Transfer, pairs, runs_at, targets
from hptransfer.analysis.curve import capped_losses, curve
from hptransfer.analysis.frame import groups
from hptransfer.analysis.judgement import REDRAWS, Case, Judgement
from hptransfer.analysis.measured_cost import measured_cost
from hptransfer.analysis.optimum import near, optima, optimum
from hptransfer.analysis.parabola import redrawn
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import finished
from hptransfer.spec import canonical


def transfers(suite: Question, rows: pd.DataFrame) -> list[Transfer]:
    """One per (optimizer, target): labels as the suite orders them, targets rising.

    Learning rates are rounded to 1/8 octave; a run that diverged counts as the loss at init.
    Records of schema 1 are judged by the rule of 0.1 (analysis.former), which made them.
    """
    if former.applies(suite):
        return former.transfers(suite, rows)
    every = pairs(suite, rows, targets(suite, rows), optima(suite, rows), optimum)
    spent = groups(rows, tuning=True)  # a group's field costs its runs as the lr does
    return [_transfer(suite, pair, spent.get((pair.optimizer, pair.proxy))) for pair in every]


def _transfer(suite: Question, pair: Pair, spent: pd.DataFrame | None) -> Transfer:
    """`spent`: every row of the optimizer at the proxy."""
    if pair.rows is not None and pair.rows["log2_lr"].nunique() == 1:
        pair = replace(pair, at_target=None)  # the carried lr alone
    carried = own = Runs()
    if pair.at_proxy is not None:
        lr = suite.clip_lr(pair.optimizer, pair.at_proxy.log2_lr)
        carried = runs_at(pair.rows, lr, pair.at_proxy.hp)
    if pair.at_target is not None and pair.rows is not None:
        lr = _most_tried(pair.rows, pair.at_target.hp)
        own = runs_at(pair.rows, lr, pair.at_target.hp)
    cost = measured_cost(spent, pair.rows)
    return pair.concluded(carried, own, _judged(suite, pair), cost)


def _judged(suite: Question, pair: Pair) -> Judgement | None:
    """The judgement of the carried lr; None where no seed ran there and near the optimum."""
    if pair.at_proxy is None or pair.at_target is None or pair.rows is None:
        return None
    points = curve(pair.rows[pair.rows["hp_point"] == canonical(pair.at_proxy.hp)])
    carried = suite.clip_lr(pair.optimizer, pair.at_proxy.log2_lr)
    case = Case.of(points.x, points.grid, points.roofed, carried)
    if case is None:
        return None
    return judgement.judge(case, suite.thresholds, suite.looks, _shaken(suite, pair))


def _shaken(suite: Question, pair: Pair) -> np.ndarray | None:
    """The carried log2 lr in redraws of the proxy's losses; None where it stays, (redraws,)."""
    if pair.at_proxy is None or pair.at_proxy.vertex is None or pair.at_proxy.cliff:
        return None
    assert pair.proxy_rows is not None, "an optimum has rows"
    known = near(curve(pair.proxy_rows))
    assert known is not None, "a vertex has losses near it"
    moved = redrawn(known, sd=suite.thresholds.rounding, redraws=REDRAWS)
    return np.array([suite.clip_lr(pair.optimizer, float(lr)) for lr in moved])


def _most_tried(rows: pd.DataFrame, hp: dict[str, float]) -> float:
    """Of the log2 lrs that have the most seeds, the one of the least mean loss."""
    rows = finished(rows[rows["hp_point"] == canonical(hp)])
    means = pd.Series(capped_losses(rows)).groupby(rows["log2_lr"].to_numpy()).agg(["size", "mean"])
    return float(means[means["size"] == means["size"].max()]["mean"].idxmin())
