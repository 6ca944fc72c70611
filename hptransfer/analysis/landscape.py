"""The shape of the curves: exponent of lr*, sensitivity to the lr, basin, other losses' optima."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from hptransfer.analysis.curve import Curve, curve
from hptransfer.analysis.frame import searches
from hptransfer.analysis.optimum import Optimum, optima, optimum
from hptransfer.analysis.parabola import Interval, combination
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import count, finished

RELATIVE_RANGE = 2.0  # octaves to each side of lr*, for the sensitivity that compares across units
MESH = 1 / 16  # octaves, of the integrals over lr
BASIN = 0.01  # nats, the least height at which a basin's width is read
NAN = float("nan")


@dataclass(frozen=True)
class Exponent:
    """alpha of lr*(n) ~ n^-alpha with its 95% interval; `left_out`: axis values not used."""

    optimizer: str
    alpha: Interval
    n_values: int
    left_out: tuple[int, ...]


def exponents(suite: Question, rows: pd.DataFrame) -> list[Exponent]:
    """alpha: slope of -log2 lr*(n) against log2 n, one per optimizer; 0 is ideal.

    Least squares over the optima that are not censored, of optimizers with at least 3 of them. The
    seed is the unit of the 95% interval (parabola.combination): it is unbounded with one seed.
    Where the optima scatter about the line by more than their standard errors (chi2 above its
    degrees of freedom), the interval holds that of the regression too.
    """
    table = []
    for label, by_n in optima(suite, rows).items():
        known = {n: best for n, best in by_n.items() if best is not None}
        used = {n: o for n, o in known.items() if o.vertex is not None}
        if len(used) >= 3:
            left_out = tuple(n for n in known if n not in used)
            table.append(Exponent(label, _slope(used), len(used), left_out))
    return table


@dataclass(frozen=True)
class Law:
    """lr*(n) = c (n / proxy)^-alpha of one optimizer: its exponent, and log2 lr of the line.

    `at`: axis value -> log2 lr of the line there with its 95% interval, octaves; at the proxy it is
    log2 c.
    """

    exponent: Exponent
    at: dict[int, Interval]

    @property
    def power(self) -> Interval:
        """-alpha, the exponent of n itself."""
        alpha = self.exponent.alpha
        return Interval(-alpha.value, -alpha.high, -alpha.low)


def laws(suite: Question, rows: pd.DataFrame) -> dict[str, Law]:
    """Label -> the law through its optima, of optimizers that have an exponent."""
    table = {}
    by_label = optima(suite, rows)
    for exponent in exponents(suite, rows):
        by_n = by_label[exponent.optimizer]
        used = {n: best for n, best in by_n.items() if best is not None and best.vertex is not None}
        at = {n: _height(used, n) for n in sorted({suite.proxy, *by_n})}
        table[exponent.optimizer] = Law(exponent, at)
    return table


def _slope(used: dict[int, Optimum]) -> Interval:
    """Slope of -log2 lr* against log2 n and its 95% interval."""
    x = np.log2(list(used))
    z = x - x.mean()
    return _on_the_line(used, -z / (z @ z))


def _height(used: dict[int, Optimum], n: int) -> Interval:
    """log2 lr of the line at an axis value and its 95% interval, octaves."""
    x = np.log2(list(used))
    z = x - x.mean()
    return _on_the_line(used, 1 / len(x) + (np.log2(n) - x.mean()) * z / (z @ z))


def _on_the_line(used: dict[int, Optimum], weights: np.ndarray) -> Interval:
    """Sum of weight times log2 lr*, a number of the least-squares line, with its 95% interval."""
    x = np.log2(list(used))
    y = np.array([best.log2_lr for best in used.values()])
    z, dof = x - x.mean(), len(used) - 2
    vertices = [best.vertex for best in used.values() if best.vertex is not None]
    own = combination(vertices, weights.tolist(), pooled=True)
    se = np.array([best.se for best in used.values()])
    residuals = y - y.mean() - (z @ y) / (z @ z) * z
    if ((residuals / se) ** 2).sum() <= dof:
        return own
    half = float(stdtrit(dof, 0.975) * np.sqrt(residuals @ residuals / dof * (weights @ weights)))
    return Interval(own.value, min(own.low, own.value - half), max(own.high, own.value + half))


def lr_sensitivity(points: Curve, low: float, high: float) -> float:
    """Mean of min(L(lr), L at init) - L* for lr log-uniform on 2^low..2^high, nats.

    NaN where that range was not tried whole. Source: Wortsman et al. 2023, arXiv:2309.14322.
    """
    if len(points.x) < 2 or low < points.x[0] or high > points.x[-1]:
        return NAN
    mesh = np.linspace(low, high, round((high - low) / MESH) + 1)
    values = np.interp(mesh, points.x, points.mean)
    area = np.trapezoid(values - points.mean.min(), mesh)
    return float(area / (high - low))


def basin_width(points: Curve, eps: float) -> tuple[float, bool]:
    """Length of {lr : L(lr) <= min + eps} in octaves, and whether it runs out of the tried range.

    `eps`: nats.
    """
    x = points.x
    if len(x) < 2:
        return NAN, True
    mesh = np.linspace(x[0], x[-1], round((x[-1] - x[0]) / MESH) + 1)
    inside = np.interp(mesh, x, points.mean) <= points.mean.min() + eps
    length = np.trapezoid(inside.astype(float)) * (mesh[1] - mesh[0])
    return float(length), bool(inside[0] or inside[-1])


@dataclass(frozen=True)
class Basin:
    """The curve near its minimum; sensitivities and `eps` in nats, `width` in octaves.

    `sensitivity`: over the suite's start range. `relative`: within 2 octaves of lr*. `width`: of
    the lrs with a loss of at most min + `eps`; `is_open`: they reach an edge of the tried range.
    """

    sensitivity: float
    relative: float
    width: float
    is_open: bool
    eps: float


@dataclass(frozen=True)
class Landscape:
    """One search: its optimum, its shape (None where other values moved with the lr), its runs."""

    optimizer: str
    n: int
    optimum: Optimum | None
    basin: Basin | None
    n_points: int
    n_search: int
    n_diverged: int
    n_failed: int


def landscapes(suite: Question, rows: pd.DataFrame) -> list[Landscape]:
    """One per (optimizer, n) with search runs, labels as the suite orders them, n rising."""
    return [
        _landscape(suite, label, n, part)
        for label, by_n in searches(suite, rows).items()
        for n, part in by_n.items()
    ]


def _landscape(suite: Question, label: str, n: int, search: pd.DataFrame) -> Landscape:
    best, is_curve = optimum(search, suite.grid(label)), finished(search)["hp_point"].nunique() == 1
    return Landscape(
        optimizer=label,
        n=n,
        optimum=best,
        basin=None if best is None or not is_curve else _basin(suite, label, best, search),
        n_points=finished(search)["log2_lr"].nunique(),
        n_search=len(search),
        n_diverged=count(search, "diverged"),
        n_failed=count(search, "failed"),
    )


def _basin(suite: Question, label: str, best: Optimum, search: pd.DataFrame) -> Basin:
    """eps = max(0.01, 2 sigma), sigma the standard deviation of the seeds at the best lr, nats."""
    points = curve(search)
    seeds = points.grid[int(np.argmin(points.mean))]
    seeds = seeds[~np.isnan(seeds)]
    sigma = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
    eps = max(BASIN, 2 * sigma)
    width, is_open = basin_width(points, eps)
    low, high = best.log2_lr - RELATIVE_RANGE, best.log2_lr + RELATIVE_RANGE
    return Basin(
        sensitivity=lr_sensitivity(points, *suite.start_grid(label)),
        relative=lr_sensitivity(points, low, high),
        width=width,
        is_open=is_open,
        eps=eps,
    )


@dataclass(frozen=True)
class Audit:
    """The optimum by evaluation loss, late training loss and mean training loss, log2 lr.

    `differs`: the three lie further apart than the drift threshold. `changes`: the loss decides
    whether the drift from the proxy exceeds that threshold.
    """

    optimizer: str
    n: int
    loss: float
    train_loss: float
    train_mean: float
    differs: bool
    changes: bool


AUDITED = ("loss", "train_loss", "train_mean")


def audits(suite: Question, rows: pd.DataFrame) -> list[Audit]:
    """One per (optimizer, n) with search runs, labels as the suite orders them, n rising."""
    table = []
    limit = suite.thresholds.drift
    for label, by_n in searches(suite, rows).items():
        lrs = {n: _by_each_loss(part) for n, part in by_n.items()}
        proxy = lrs.get(suite.proxy, dict.fromkeys(AUDITED, NAN))
        for n, own in lrs.items():
            values = list(own.values())
            exceeds = {abs(own[name] - proxy[name]) > limit for name in AUDITED}
            differs = max(values) - min(values) > limit
            table.append(Audit(label, n, **own, differs=differs, changes=len(exceeds) > 1))
    return table


def _by_each_loss(search: pd.DataFrame) -> dict[str, float]:
    """Column of a loss -> log2 lr of the optimum by that loss; NaN without one."""
    done = search["status"].to_numpy() == "done"
    lrs = {}
    for name in AUDITED:
        best = optimum(search.assign(loss=np.where(done, search[name].to_numpy(float), np.inf)))
        lrs[name] = best.log2_lr if best else NAN
    return lrs
