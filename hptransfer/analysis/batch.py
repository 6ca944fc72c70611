"""Batch sizes, or numbers of steps, compared: tuned losses, carried lrs, tokens to a loss."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from hptransfer.analysis.curve import Curve, capped_losses, curve
from hptransfer.analysis.frame import searches, select
from hptransfer.analysis.optimum import Optimum, near, optima, optimum
from hptransfer.analysis.parabola import Interval, mean_interval
from hptransfer.analysis.reach import Critical, Relative, critical_batch, relative
from hptransfer.analysis.statuses import count, finished
from hptransfer.documents.batches import Rule
from hptransfer.spec import canonical, round_lr, tokens
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.resolved import Suite

NEAR = 1.0  # octaves from the grid minimum within which a seed's curve is a parabola

Budgets = dict[int, "pd.Series[float]"]  # tokens -> losses by seed, nats


@dataclass(frozen=True)
class Regret:
    """What an lr costs against the best one, nats; `n_seeds`: 0 where nobody tried such an lr."""

    log2_lr: float
    cost: Interval
    n_seeds: int


@dataclass(frozen=True, eq=False)
class Tuned:
    """An optimizer at one batch size, or one number of steps, with its lr tuned there.

    `losses`: nats by seed at lr*. `difference`: nats above the optimizer's best value, `is_best`.
    `regrets`: by rule, of the lr carried from the proxy. `relative`: tokens to the loss of the
    suite's baseline at the same value, on the seeds of both; None where that is not known.
    `budgets`: all that ran.
    """

    optimizer: str
    n: int
    steps: int
    tokens: int
    optimum: Optimum | None
    losses: "pd.Series[float]"
    n_diverged: int
    regrets: dict[Rule, Regret]
    budgets: Budgets
    difference: Interval = field(default_factory=Interval)
    is_best: bool = False
    relative: Relative | None = None

    @property
    def loss(self) -> float:
        """Mean loss over the seeds at lr*, nats; NaN without an optimum."""
        return float(self.losses.mean())


def is_judged(suite: SuiteTable) -> bool:
    """Whether a suite has this table: batch sizes at equal tokens, or numbers of steps."""
    return suite.axis == "steps" or (suite.axis == "batch_size" and suite.tokens is not None)


def rules(suite: Suite) -> dict[Rule, float]:
    """Rule -> exponent r of lr(n) = lr(proxy) (n / proxy)^r.

    By a rule of batches the lr rises with n; with the number of steps it falls.
    """
    sign = -1.0 if suite.axis == "steps" else 1.0
    table: dict[Rule, float] = {"unchanged": 0.0, "square root": sign / 2, "linear": sign}
    if suite.lr_rule is not None:
        table["own rule"] = suite.lr_rule
    return table


def by_rule(suite: Suite, carried: float, n: int, exponent: float) -> float:
    """log2 lr that a rule makes at `n` of the lr carried from the proxy, rounded to 1/8 octave."""
    return round_lr(carried + exponent * float(np.log2(n / suite.proxy)))


def seed_losses(rows: pd.DataFrame, best: Optimum, log2_lr: float) -> "pd.Series[float]":
    """Loss of every seed at a learning rate, nats, by seed; seeds that cannot tell are left out.

    `rows`: search rows of one (optimizer, n). Within one octave of the grid minimum it is the
    seed's own parabola, further out a line between two runs of the seed at most one octave apart.
    """
    rows = finished(rows)
    rows = rows[rows["hp_point"] == canonical(best.hp)]
    points, seeds = curve(rows), np.unique(rows["seed"].to_numpy(int))
    found = near(points) if best.vertex is not None and not best.cliff else None
    fitted = np.zeros(len(points.x), bool)
    if found is not None:  # the points through which lr* was fitted
        fitted = np.abs(points.x - found.x[found.k]) <= NEAR
    losses = [_loss_at(points, j, fitted, log2_lr) for j in range(len(seeds))]
    return pd.Series(losses, index=seeds, dtype=float).dropna()


def _loss_at(points: Curve, j: int, fitted: np.ndarray, log2_lr: float) -> float:
    """Loss of seed `j` of a curve at a learning rate, nats; NaN where it was not tried around."""
    y = points.grid[:, j]
    x, loss = points.x[~np.isnan(y)], y[~np.isnan(y)]
    fit = fitted & ~points.roofed & ~np.isnan(y)
    own = points.x[fit]
    if len(own) >= 3 and own[0] <= log2_lr <= own[-1]:
        return float(np.polyval(np.polyfit(own, y[fit], 2), log2_lr))
    right = int(np.searchsorted(x, log2_lr))
    if right < len(x) and x[right] == log2_lr:
        return float(loss[right])
    if right == 0 or right == len(x) or x[right] - x[right - 1] > NEAR:
        return float("nan")
    return float(np.interp(log2_lr, x, loss))


def tuned(suite: Suite, frame: pd.DataFrame) -> list[Tuned]:
    """One per (optimizer, axis value) with search runs, labels as the suite orders them, n rising.

    `frame`: all records, since those on the suite's further budgets are no part of its rows.
    """
    shorter = {divisor: select(suite, frame, divisor) for divisor in suite.budgets}
    table: list[Tuned] = []
    rows = select(suite, frame)
    best = optima(suite, rows)
    for label, by_n in searches(suite, rows).items():
        at_proxy = best[label].get(suite.proxy)
        own = [_tuned(suite, label, n, part, at_proxy, shorter) for n, part in by_n.items()]
        table += _compared(own) if suite.tokens else own
    baseline = {row.n: row for row in table if row.optimizer == suite.baseline}
    return [_against(row, baseline.get(row.n)) for row in table]


def _tuned(
    suite: Suite,
    label: str,
    n: int,
    search: pd.DataFrame,
    at_proxy: Optimum | None,
    shorter: dict[int, pd.DataFrame],
) -> Tuned:
    if at_proxy and at_proxy.hp:  # searched values are carried unchanged, so only the lr may move
        search = search[search["hp_point"] == canonical(at_proxy.hp)]
    best, run = optimum(search), suite.template(label, n)
    if best is not None and at_proxy is not None and n == suite.proxy:
        best = replace(best, hp_edges=at_proxy.hp_edges)
    whole = tokens(run.to_json())
    losses = pd.Series(dtype=float) if best is None else seed_losses(search, best, best.log2_lr)
    budgets: Budgets = {}
    if best is not None:
        lr, hp = suite.clip_lr(label, best.log2_lr), canonical(best.hp)
        budgets = {whole // k: _at(rows, label, n, lr, hp) for k, rows in shorter.items()}
        budgets[whole] = losses
    return Tuned(
        optimizer=label,
        n=n,
        steps=run.steps,
        tokens=whole,
        optimum=best,
        losses=losses,
        n_diverged=count(search, "diverged"),
        regrets=_regrets(suite, label, n, search, at_proxy, best),
        budgets={size: own for size, own in sorted(budgets.items()) if len(own)},
    )


def _at(rows: pd.DataFrame, label: str, n: int, log2_lr: float, hp: str) -> "pd.Series[float]":
    """Losses by seed of the finished runs at one setting, capped at the loss at init."""
    rows = finished(rows)
    here = rows[(rows["optimizer"] == label) & (rows["n"] == n) & (rows["hp_point"] == hp)]
    here = here[here["log2_lr"] == log2_lr].sort_values("seed")
    return pd.Series(capped_losses(here), index=here["seed"].to_numpy(int))


def _regrets(
    suite: Suite,
    label: str,
    n: int,
    search: pd.DataFrame,
    at_proxy: Optimum | None,
    best: Optimum | None,
) -> dict[Rule, Regret]:
    """By rule, the cost at `n` of the lr that the rule makes of the proxy's, seed by seed."""
    if at_proxy is None or best is None or at_proxy.censored or best.censored:
        return {}
    own = seed_losses(search, best, best.log2_lr)
    table: dict[Rule, Regret] = {}
    start = suite.clip_lr(label, at_proxy.log2_lr)
    for rule, exponent in rules(suite).items():
        log2_lr = by_rule(suite, start, n, exponent)
        costs = (seed_losses(search, best, log2_lr) - own).dropna()
        table[rule] = Regret(log2_lr, mean_interval(costs.to_list()), len(costs))
    return table


def _compared(own: list[Tuned]) -> list[Tuned]:
    """The rows of one optimizer with the difference to its best one, paired by seed.

    The best one is chosen by the seeds that all rows with at least two of them share, since a
    mean over other seeds may be lower by their luck; a row of one seed is chosen where none has
    more.
    """
    known = [row for row in own if len(row.losses)]
    known = [row for row in known if _is_inside(row)] or known
    known = [row for row in known if len(row.losses) > 1] or known
    if not known:
        return own
    seeds = sorted(set.intersection(*(set(row.losses.index) for row in known)))
    best = min(known, key=lambda row: (row.losses[seeds or row.losses.index].mean(), row.n))
    return [
        replace(
            row,
            difference=mean_interval((row.losses - best.losses).dropna().to_list()),
            is_best=row is best,
        )
        for row in own
    ]


def means(budgets: Budgets, seeds: set[int]) -> dict[int, float]:
    """Tokens -> mean loss over these seeds, nats; {} where a budget lacks one of them."""
    if not seeds or any(seeds - set(own.index) for own in budgets.values()):
        return {}
    return {size: float(own[sorted(seeds)].mean()) for size, own in budgets.items()}


def _is_inside(row: Tuned) -> bool:
    """Whether the optimum is known and not censored."""
    return row.optimum is not None and row.optimum.censored is None


def _shared(rows: Iterable[Tuned]) -> set[int]:
    """Seeds that every budget of every row has."""
    sets = [set(own.index) for row in rows for own in row.budgets.values()]
    return set.intersection(*sets) if sets else set()


def _against(row: Tuned, baseline: Tuned | None) -> Tuned:
    """A row with the tokens that it takes to the baseline's loss on all tokens."""
    if baseline is None or not (_is_inside(row) and _is_inside(baseline)):
        return row
    seeds = sorted(_shared([row]) & set(baseline.losses.index))
    if not seeds:
        return row
    targets = {seed: float(baseline.losses[seed]) for seed in seeds}
    budgets = {
        size: {seed: float(own[seed]) for seed in seeds} for size, own in row.budgets.items()
    }
    return replace(row, relative=relative(targets, budgets))


@dataclass(frozen=True)
class Criticals:
    """The critical batch of an optimizer: of the means over the seeds, and of each seed alone."""

    of_means: Critical | None
    by_seed: dict[int, Critical | None]


def critical_batches(table: list[Tuned]) -> dict[str, Criticals]:
    """Label -> its critical batch.

    A batch with a censored optimum takes no part, nor does one of a single seed where others have
    more: all are compared on the seeds that they share.
    """
    found = {}
    for label in dict.fromkeys(row.optimizer for row in table):
        own = [row for row in table if row.optimizer == label and _is_inside(row)]
        own = [row for row in own if len(_shared([row])) > 1] or own
        seeds = _shared(own)

        def of(seeds: set[int], own: list[Tuned] = own) -> Critical | None:
            return critical_batch({row.n: means(row.budgets, seeds) for row in own})

        found[label] = Criticals(of(seeds), {seed: of({seed}) for seed in sorted(seeds)})
    return found
