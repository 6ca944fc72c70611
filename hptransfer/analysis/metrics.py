"""Run records -> optima, drift, sensitivity: pure functions of one DataFrame."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from hptransfer.analysis import paired
from hptransfer.spec import COUNT, LR_STEP, Axis, canonical, fits
from hptransfer.suite.claim import FRESH_SEED, Suite

BOOTSTRAP = 200
CLIFF_SE = 0.25  # octaves, beside a diverged neighbour no parabola can be drawn
RELATIVE_RANGE = 2.0  # octaves to each side of lr*, for the sensitivity that compares across units
FINE = 1 / 16  # octaves, mesh of the integrals over lr
BASIN = 0.01  # nats, the least height at which a basin's width is read

Groups = dict[tuple[str, int, str], pd.DataFrame]


@dataclass(frozen=True)
class Optimum:
    """The best learning rate at one axis value; `log2_lr` and `se` in octaves, `loss` in nats.

    `seeds`: how many `se` is drawn from. Below 2 it is the grid's alone and knows no seed noise.
    """

    log2_lr: float
    loss: float
    se: float
    cliff: bool
    censored: Literal["low", "high", "gap"] | None
    n_points: int
    n_diverged: int
    seeds: int
    hp: dict[str, Any] = field(default_factory=dict)


def axis_value(spec: dict[str, Any], axis: Axis) -> int:
    """The axis value of a run in JSON form."""
    if axis == "depth":
        return int(spec["model"]["n_layer"])
    return int(spec["batch" if axis == "batch_size" else axis])


def _signature(spec: dict[str, Any], axis: Axis, searched: tuple[str, ...]) -> dict[str, Any]:
    """What must be equal for a run to belong to an optimizer of a suite.

    Of a depth and of a searched hyperparameter: that it is one.
    """
    free = {"log2_lr", "seed", "batch" if axis == "batch_size" else axis}
    rest = {key: value for key, value in spec.items() if key not in free}
    rest["hp"] = {k: type(v) is float if k in searched else v for k, v in spec["hp"].items()}
    if axis == "depth":
        layers = spec["model"].get("n_layer")
        rest["model"] = {**spec["model"], "n_layer": fits(layers, COUNT)}
    return rest


def select(suite: Suite, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that belong to the resolved suite, with columns optimizer, n, stage and hp_point.

    A row belongs to a label if its spec equals the label's template in all but lr, seed, the axis
    field and the searched hyperparameters. Work is per distinct cell, not per row.
    """
    searched = {label: tuple(sorted(table.search)) for label, table in suite.optimizers.items()}
    wanted = {
        label: _signature(template, suite.axis, searched[label])
        for label, template in suite.templates.items()
    }
    found: list[tuple[str, str, int, str]] = []
    cells = frame.drop_duplicates("cell")
    for cell, spec in zip(cells["cell"], cells["spec"], strict=True):
        for label, signature in wanted.items():
            if _signature(spec, suite.axis, searched[label]) == signature:
                point = canonical({key: spec["hp"][key] for key in searched[label]})
                found.append((cell, label, axis_value(spec, suite.axis), point))
    known = pd.DataFrame(found, columns=["cell", "optimizer", "n", "hp_point"])
    known = known.astype({"cell": frame["cell"].dtype, "n": "int64"})
    rows = frame.merge(known, on="cell", how="inner")
    rows["stage"] = np.where(rows["seed"] < FRESH_SEED, "search", "fresh")
    return rows


def groups(rows: pd.DataFrame) -> Groups:
    """Selected rows by (optimizer, n, stage)."""
    parts = rows.groupby(["optimizer", "n", "stage"], sort=False)
    return {(str(o), int(n), str(s)): part for (o, n, s), part in parts}  # type: ignore[misc]


def clipped(rows: pd.DataFrame) -> np.ndarray:
    """Losses with everything above the loss at init, a divergence too, counted as that loss."""
    return np.fmin(rows["loss"].to_numpy(float), rows["loss_init"].to_numpy(float))


def _roofed(rows: pd.DataFrame) -> np.ndarray:
    """Diverged, or no better than the model at init."""
    loss = rows["loss"].to_numpy(float)
    return (loss >= rows["loss_init"].to_numpy(float)) | np.isinf(loss)


@dataclass(frozen=True)
class Curve:
    """Loss against log2 lr: `grid[i, j]` is the clipped loss at `x[i]` of the j-th seed, or NaN.

    `mean` is over the seeds as paired.means has it: not every point has every seed.
    """

    x: np.ndarray
    grid: np.ndarray
    mean: np.ndarray
    roofed: np.ndarray  # some seed diverged, or did no better than the model at init


def curve(rows: pd.DataFrame) -> Curve:
    """The curve of one (optimizer, n): failed runs are left out, diverged ones are not."""
    rows = rows[rows["status"] != "failed"]
    x, i = np.unique(rows["log2_lr"].to_numpy(float), return_inverse=True)
    seeds, j = np.unique(rows["seed"].to_numpy(int), return_inverse=True)
    grid = np.full((len(x), len(seeds)), np.nan)
    grid[i, j] = clipped(rows)
    roofed = np.zeros(len(x), bool)
    roofed[i[_roofed(rows)]] = True
    return Curve(x, grid, paired.means(grid, ~roofed), roofed)


def _vertices(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Vertices of the parabolas near the interior grid minimum k, octaves; y is (points, B).

    Least squares over the points within one octave; where that opens downwards or leaves the
    neighbours of k, the parabola through k and its neighbours, whose vertex lies between them.
    """
    left, right = x[k] - x[k - 1], x[k + 1] - x[k]
    down, up = (y[k - 1] - y[k]) / left, (y[k + 1] - y[k]) / right
    flat = np.zeros_like(down)
    offset = np.divide(down * right - up * left, 2 * (down + up), out=flat, where=down + up > 0)
    z = x - x[k]
    near = np.abs(z) <= 1.0
    if near.sum() > 3:
        a, b, _ = np.linalg.pinv(np.vander(z[near], 3)) @ y[near]
        fitted = np.divide(-b, 2 * a, out=np.full_like(a, np.inf), where=a > 0)
        offset = np.where((-left <= fitted) & (fitted <= right), fitted, offset)
    return x[k] + offset


def _standard_error(x: np.ndarray, grid: np.ndarray, k: int) -> tuple[float, int]:
    """Octaves: bootstrap over the seeds that all points near the minimum share, and their number.

    The spread is scaled by sqrt(S / (S - 1)), since S resampled seeds vary too little. With one
    seed there is nothing to resample; then the grid alone limits the optimum, and the standard
    deviation of a uniform error of one grid step, spacing / sqrt(12), stands in (our choice).
    No optimum counts as better known than 1/8 octave, to which learning rates are rounded.
    """
    near = np.abs(x - x[k]) <= 1.0
    shared = grid[near][:, ~np.isnan(grid[near]).any(axis=0)]
    seeds = shared.shape[1]
    if seeds < 2:
        return float((x[k + 1] - x[k - 1]) / 2 / np.sqrt(12)), seeds
    picks = np.random.default_rng(0).integers(seeds, size=(BOOTSTRAP, seeds))
    means, found = shared[:, picks].mean(axis=2), x[near]
    best = means.argmin(axis=0)
    vertices = found[best]
    for at in range(1, len(found) - 1):
        vertices[best == at] = _vertices(found, means[:, best == at], at)
    spread = float(np.std(vertices) * np.sqrt(seeds / (seeds - 1)))
    return max(spread, LR_STEP / np.sqrt(12)), seeds


def optimum(rows: pd.DataFrame) -> Optimum | None:
    """lr*(n) from the search rows of one (optimizer, n); None if no run gave a finite loss.

    Vertex of the parabola through the grid minimum and its neighbours; the grid minimum itself at
    a `cliff` (a neighbour diverged or learned nothing) or when `censored` (at an edge of the tried
    range, or a neighbour more than one octave away). With searched hyperparameters: the best trial.
    """
    rows = rows[rows["status"] != "failed"]
    if not np.isfinite(rows["loss"].to_numpy(float)).any():
        return None
    n_diverged = int((rows["status"] == "diverged").sum())
    if (rows["hp_point"] != "{}").any():
        return _best_trial(rows, n_diverged)
    found = curve(rows)
    x, k = found.x, int(np.argmin(found.mean))
    censored: Literal["low", "high", "gap"] | None = None
    if k == 0:
        censored = "low"
    elif k == len(x) - 1:
        censored = "high"
    elif max(x[k] - x[k - 1], x[k + 1] - x[k]) > 1.0:
        censored = "gap"
    cliff = bool(found.roofed[max(k - 1, 0) : k + 2].any())
    at, se, seeds = float(x[k]), CLIFF_SE if cliff else float("nan"), 0
    if not cliff and censored is None:
        kept = ~found.roofed  # the minimum and its neighbours are among these
        x, k_kept = x[kept], int(np.argmin(found.mean[kept]))
        at = float(_vertices(x, found.mean[kept, None], k_kept)[0])
        se, seeds = _standard_error(x, found.grid[kept], k_kept)
    return Optimum(at, float(found.mean[k]), se, cliff, censored, len(found.x), n_diverged, seeds)


def _best_trial(rows: pd.DataFrame, n_diverged: int) -> Optimum:
    """The trial of least loss; no curve in lr exists when other values moved with it."""
    known = rows.assign(clipped=clipped(rows), roofed=_roofed(rows))
    by_seed = known.groupby(["hp_point", "log2_lr", "seed"])
    grid = by_seed["clipped"].mean().unstack("seed")
    roofed = known.groupby(["hp_point", "log2_lr"])["roofed"].any()
    trials = paired.means(grid.to_numpy(float), ~roofed.loc[grid.index].to_numpy(bool))
    point, log2_lr = grid.index[int(np.argmin(trials))]
    tried = rows["log2_lr"]
    edge = "low" if log2_lr == tried.min() else "high" if log2_lr == tried.max() else None
    return Optimum(
        log2_lr=float(log2_lr),
        loss=float(trials.min()),
        se=float("nan"),
        cliff=False,
        censored=edge,
        n_points=len(trials),
        n_diverged=n_diverged,
        seeds=0,
        hp=json.loads(point),
    )


def exponent(suite: Suite, rows: pd.DataFrame) -> pd.DataFrame:
    """alpha: slope of -log2 lr*(n) against log2 n, one row an optimizer; 0 is ideal.

    Least squares over the optima that are not censored, where at least 3 axis values have one. The
    95% interval is from their standard errors, times sqrt(chi2 / dof) where they scatter more, with
    Student's t of dof = values - 2; normal where seeds gave errors that explain the scatter.
    """
    optima = {key: optimum(part) for key, part in groups(rows).items() if key[2] == "search"}
    table: list[dict[str, Any]] = []
    for label in suite.templates:
        mine = sorted((n, best) for (name, n, _), best in optima.items() if name == label and best)
        used = [(n, best) for n, best in mine if best.censored is None and np.isfinite(best.se)]
        if len(used) < 3:
            continue
        x = np.log2([n for n, _ in used])
        y = -np.array([best.log2_lr for _, best in used])
        se = np.array([best.se for _, best in used])
        z = x - x.mean()
        slope = float(z @ y / (z @ z))
        spread = np.sqrt(z**2 @ se**2) / (z @ z)
        dof = len(used) - 2
        chi2 = float((((y - y.mean() - slope * z) / se) ** 2).sum()) / dof
        known = chi2 <= 1 and all(best.seeds > 1 for _, best in used)
        factor = 1.96 if known else stdtrit(dof, 0.975)
        half = float(factor * spread * np.sqrt(max(1.0, chi2)))
        out = [n for n, best in mine if (n, best) not in used]
        table.append(
            {
                "optimizer": label,
                "exponent": slope,
                "low": slope - half,
                "high": slope + half,
                "n_values": len(used),
                "left_out": ", ".join(map(str, out)),
            }
        )
    columns = ["optimizer", "exponent", "low", "high", "n_values", "left_out"]
    return pd.DataFrame(table, columns=columns)


def lr_sensitivity(found: Curve, low: float, high: float) -> float:
    """E_lr[min(L(lr), l0) - L*], lr log-uniform on 2^low..2^high; NaN where that was not all tried.

    Source: Wortsman et al. 2023, arXiv:2309.14322.
    """
    if len(found.x) < 2 or low < found.x[0] or high > found.x[-1]:
        return float("nan")
    mesh = np.linspace(low, high, round((high - low) / FINE) + 1)
    values = np.interp(mesh, found.x, found.mean)
    area = np.trapezoid(values - found.mean.min(), mesh)
    return float(area / (high - low))


def basin_width(found: Curve, eps: float) -> tuple[float, bool]:
    """log2 length of {lr : L(lr) <= min + eps}, and whether the basin runs out of the range."""
    if len(found.x) < 2:
        return float("nan"), True
    mesh = np.linspace(found.x[0], found.x[-1], round((found.x[-1] - found.x[0]) / FINE) + 1)
    inside = np.interp(mesh, found.x, found.mean) <= found.mean.min() + eps
    length = np.trapezoid(inside.astype(float)) * (mesh[1] - mesh[0])
    return float(length), bool(inside[0] or inside[-1])


def landscape(suite: Suite, rows: pd.DataFrame) -> pd.DataFrame:
    """One row an (optimizer, n) with search runs: lr*, best loss, sensitivity, basin, counts.

    `sensitivity` is over the suite's start range, `sensitivity_relative` within 2 octaves of lr*.
    The basin is read at eps = max(0.01, 2 sigma), sigma the spread of the fresh seeds at lr*.
    """
    parts = groups(rows)
    table: list[dict[str, Any]] = []
    for (label, n, stage), part in parts.items():
        if stage == "search" and label in suite.templates:
            table.append({"optimizer": label, "n": n, **_shape(suite, label, n, part, parts)})
    columns = ["optimizer", "n", *_shape_columns]
    order = {label: i for i, label in enumerate(suite.templates)}
    made = pd.DataFrame(table, columns=columns)
    return made.sort_values(
        ["optimizer", "n"], key=lambda c: c.map(order) if c.name == "optimizer" else c
    ).reset_index(drop=True)


_shape_columns = (
    "log2_lr", "se", "cliff", "censored", "loss", "n_points", "n_search", "n_diverged",
    "n_failed", "hp", "sensitivity", "sensitivity_relative", "basin", "basin_open", "eps",
)  # fmt: skip


def _shape(suite: Suite, label: str, n: int, part: pd.DataFrame, parts: Groups) -> dict[str, Any]:
    nan = float("nan")
    best = optimum(part)
    made: dict[str, Any] = {
        "n_search": len(part),
        "n_diverged": int((part["status"] == "diverged").sum()),
        "n_failed": int((part["status"] == "failed").sum()),
        "n_points": part.loc[part["status"] != "failed", "log2_lr"].nunique(),
    }
    if best is None:
        return made | dict.fromkeys(("log2_lr", "se", "loss"), nan) | {"hp": "{}"}
    made |= {
        "log2_lr": best.log2_lr,
        "se": best.se,
        "cliff": best.cliff,
        "censored": best.censored,
        "loss": best.loss,
        "hp": canonical(best.hp),
    }
    if best.hp:
        return made
    fresh = parts.get((label, n, "fresh"))
    sigma = 0.0
    if fresh is not None:
        near = fresh[(fresh["log2_lr"] - best.log2_lr).abs() <= 1 / 16]
        sigma = float(np.std(clipped(near), ddof=1)) if len(near) > 1 else 0.0
    found, eps = curve(part), max(BASIN, 2 * sigma)
    width, is_open = basin_width(found, eps)
    low, high = suite.start_grid(label)
    return made | {
        "sensitivity": lr_sensitivity(found, low, high),
        "sensitivity_relative": lr_sensitivity(
            found, best.log2_lr - RELATIVE_RANGE, best.log2_lr + RELATIVE_RANGE
        ),
        "basin": width,
        "basin_open": is_open,
        "eps": eps,
    }


def audit(suite: Suite, rows: pd.DataFrame) -> pd.DataFrame:
    """The optimum under evaluation loss, late training loss and mean training loss.

    `differs`: the optima lie further apart than the drift threshold. `changes`: whether the drift
    from the proxy exceeds that threshold depends on the loss used.
    """
    kinds = ("loss", "train_loss", "train_mean")
    optima: dict[tuple[str, int], dict[str, float]] = {}
    for (label, n, stage), part in groups(rows).items():
        if stage != "search":
            continue
        done = part["status"].to_numpy() == "done"
        optima[label, n] = {}
        for kind in kinds:
            values = np.where(done, part[kind].to_numpy(float), np.inf)
            best = optimum(part.assign(loss=values))
            optima[label, n][kind] = best.log2_lr if best else float("nan")
    table: list[dict[str, Any]] = []
    for label in suite.templates:
        for n in sorted(n for name, n in optima if name == label):
            found = optima[label, n]
            values = list(found.values())
            proxy = optima.get((label, suite.proxy), dict.fromkeys(kinds, float("nan")))
            moved = {abs(found[k] - proxy[k]) > suite.thresholds.drift for k in kinds}
            table.append(
                {
                    "optimizer": label,
                    "n": n,
                    **found,
                    "differs": max(values) - min(values) > suite.thresholds.drift,
                    "changes": len(moved) > 1,
                }
            )
    return pd.DataFrame(table, columns=["optimizer", "n", *kinds, "differs", "changes"])
