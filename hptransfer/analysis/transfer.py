"""Did the learning rate transfer: drift, paired regret, cost and verdict as numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd

from hptransfer.analysis import former, judgement
from hptransfer.analysis.between import Found, at_carried, diverged, found
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
    judged, known = _judged(suite, pair)
    if known.case is not None and known.source != "run":
        carried = replace(carried, losses=pd.Series(at_carried(known.case)))
    return pair.concluded(carried, own, judged, cost, known.source)


def _judged(suite: Question, pair: Pair) -> tuple[Judgement | None, Found]:
    """The judgement of the carried lr, and how its loss is known.

    None where no seed ran there and near the optimum. A question that reads between the runs takes
    the losses beside the carried lr where nobody ran there.
    """
    if pair.at_proxy is None or pair.at_target is None or pair.rows is None:
        return None, Found(None, "run")
    points = curve(pair.rows[pair.rows["hp_point"] == canonical(pair.at_proxy.hp)])
    carried, grid = suite.clip_lr(pair.optimizer, pair.at_proxy.log2_lr), suite.grid(pair.optimizer)
    if suite.reads_between:
        known = found(points, carried, grid)
    else:
        known = Found(Case.of(points.x, points.grid, points.roofed, carried, grid), "run")
    if known.source in ("diverged", "between divergences"):
        return diverged(points, known.n_seeds, grid), known
    if known.case is None:
        return None, known
    shaken = _shaken(suite, pair)
    return judgement.judge(known.case, suite.thresholds, suite.looks, shaken), known


def _shaken(suite: Question, pair: Pair) -> np.ndarray | None:
    """The carried log2 lr in redraws of the proxy's losses; None where it stays, (redraws,)."""
    if pair.at_proxy is None or pair.at_proxy.vertex is None or pair.at_proxy.cliff:
        return None
    assert pair.proxy_rows is not None, "an optimum has rows"
    known = near(curve(pair.proxy_rows), suite.grid(pair.optimizer))
    assert known is not None, "a vertex has losses near it"
    moved = redrawn(known, sd=suite.thresholds.rounding, redraws=REDRAWS)
    return np.array([suite.clip_lr(pair.optimizer, float(lr)) for lr in moved])


def _most_tried(rows: pd.DataFrame, hp: dict[str, float]) -> float:
    """Of the log2 lrs that have the most seeds, the one of the least mean loss."""
    rows = finished(rows[rows["hp_point"] == canonical(hp)])
    means = pd.Series(capped_losses(rows)).groupby(rows["log2_lr"].to_numpy()).agg(["size", "mean"])
    return float(means[means["size"] == means["size"].max()]["mean"].idxmin())
