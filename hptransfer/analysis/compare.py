"""Two sets of records of one suite, paired run by run: how loss, drift and regret differ."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hptransfer.analysis.curve import capped_losses
from hptransfer.analysis.frame import searches
from hptransfer.analysis.losses import means
from hptransfer.analysis.optimum import Optimum, optimum
from hptransfer.analysis.statuses import finished
from hptransfer.documents.comparison import Folder, Quantity, Unpaired
from hptransfer.spec import AXIS_FIELD, SCHEMA, RunSpec, canonical
from hptransfer.suite.recorded import differing_fields
from hptransfer.suite.resolved import Suite

NEAR = 1.0  # octaves from the common best lr, within which losses are compared
POINTS = 3  # that a parabola needs
VERSION = ("model.revision", "data.revision", "optimizer.revision", "schema")


@dataclass(frozen=True, eq=False)
class Side:
    """The records of a suite in one folder: `frame.select` of them."""

    suite: Suite
    rows: pd.DataFrame


@dataclass(frozen=True)
class Measured:
    """B - A of one quantity, one value per seed: nats, or octaves of a drift."""

    optimizer: str
    n: int
    quantity: Quantity
    values: tuple[float, ...]


@dataclass(frozen=True)
class Pairing:
    """What two sides have in common: label in A -> label in B, differences, and the rest."""

    labels: dict[str, str]
    n_paired: int
    measured: list[Measured]
    unpaired: list[Unpaired]


def compare(a: Side, b: Side) -> Pairing:
    """Pair the runs of two sides, and take differences.

    Labels belong together if their runs are equal in all but version: revisions of the parts, and
    the schema. Between two schemas the held-out examples may differ too. Runs of such labels are
    pairs at equal axis value, lr, seed and searched hyperparameters.
    """
    labels = paired_labels(a, b)
    unpaired, measured, n_paired = _strangers(a, b, labels), [], 0
    for label, other in labels.items():
        own, theirs = _losses(a, label), _losses(b, other)
        unpaired += [*_left_over("a", label, own, theirs), *_left_over("b", other, theirs, own)]
        both = pd.concat({"a": own, "b": theirs}, axis=1, join="inner").reset_index()
        n_paired += len(both)
        for n, part in both.groupby("n"):
            measured.append(Measured(label, int(str(n)), "loss", _loss(part)))
        if a.suite.proxy == b.suite.proxy:
            measured += _moved(a, b, label, other)
    return Pairing(labels, n_paired, measured, unpaired)


def paired_labels(a: Side, b: Side) -> dict[str, str]:
    """Label in A -> the label of equal runs in B, that of the same name before others."""
    if a.suite.axis != b.suite.axis:
        return {}
    mixed = a.suite.records_schema != b.suite.records_schema
    there = {label: _identity(b.suite, label, mixed) for label in b.suite.templates}
    found: dict[str, str] = {}
    for label in a.suite.templates:
        same = [x for x, own in there.items() if own == _identity(a.suite, label, mixed)]
        free = [x for x in same if x not in found.values()]
        if label in free or free:
            found[label] = label if label in free else free[0]
    return found


def _identity(suite: Suite, label: str, mixed: bool) -> str:
    """Equal for labels whose runs are equal in all but version."""
    run = replace(suite.template(label), schema=SCHEMA)
    if mixed:  # FIRST_SCHEMA counts held-out batches
        run = replace(run, eval_examples=1)
    searched = (f"hp.{key}" for key in suite.searched(label))
    known = [name for name in VERSION if name == "schema" or run.value(name) is not None]
    return run.identity("log2_lr", "seed", AXIS_FIELD[suite.axis], *known, *searched)


def _strangers(a: Side, b: Side, labels: dict[str, str]) -> list[Unpaired]:
    """The runs of labels without a counterpart."""
    sides: tuple[tuple[Folder, Side, Side, set[str]], ...] = (
        ("a", a, b, set(labels)),
        ("b", b, a, set(labels.values())),
    )
    return [
        Unpaired(name, label, int(str(n)), len(part), _why(own.suite, other.suite, label))
        for name, own, other, known in sides
        for label in own.suite.templates
        if label not in known
        for n, part in _losses(own, label).groupby(level="n")
    ]


def _why(own: Suite, other: Suite, label: str) -> str:
    """Why a label has no counterpart."""
    if own.axis != other.axis:
        return f"the axis there is {other.axis}"
    if label not in other.templates:
        return "no optimizer of this label there"
    here, there = set(own.searched(label)), set(other.searched(label))
    runs = (_plain(suite.template(label), here | there) for suite in (own, other))
    reasons = differing_fields(*runs)
    reasons += [f"hp.{name} searched, not fixed" for name in sorted(here - there)]
    reasons += [f"hp.{name} fixed, not searched" for name in sorted(there - here)]
    return "differs there: " + "; ".join(reasons)


def _plain(run: RunSpec, searched: set[str]) -> RunSpec:
    """A run without its version and its searched hyperparameters."""
    parts = {name: {**getattr(run, name)} for name in ("model", "data", "optimizer")}
    for part in parts.values():
        part.pop("revision", None)
    hp = {name: value for name, value in run.hp.items() if name not in searched}
    return replace(run, schema=SCHEMA, hp=hp, **parts)


def _left_over(
    side: Folder, label: str, own: "pd.Series[float]", theirs: "pd.Series[float]"
) -> Iterator[Unpaired]:
    """Runs of a paired label at points that the other side has not."""
    there = set(theirs.index.get_level_values("n"))
    missing = own[~own.index.isin(theirs.index)]
    for n, part in missing.groupby(level="n"):
        reason = "lr or seed not tried there" if n in there else "axis value not tried there"
        yield Unpaired(side, label, int(str(n)), len(part), reason)


def _losses(side: Side, label: str) -> "pd.Series[float]":
    """Capped losses of a label, nats, by n, hp_point, log2_lr and seed."""
    rows = finished(side.rows[side.rows["optimizer"] == label])
    losses = capped_losses(rows)
    keys = ["n", "hp_point", "log2_lr", "seed"]
    series = pd.Series(losses, index=pd.MultiIndex.from_frame(rows[keys]), dtype=float)
    return series[np.isfinite(losses)]


def _loss(both: pd.DataFrame) -> tuple[float, ...]:
    """Per seed the mean of B - A within an octave of the best lr of both sides' mean curve.

    The curve is that of the searched values with the most seeds: others only served to tune.
    """
    middle = both.assign(middle=(both["a"] + both["b"]) / 2)
    grid = middle.pivot_table("middle", ["log2_lr", "hp_point"], "seed")
    seeds = grid.notna().sum(axis=1).groupby("hp_point").transform("max")
    grid = grid[seeds == seeds.max()]
    best, hp = grid.index[int(np.argmin(means(grid.to_numpy(float))))]
    near = both[(both["hp_point"] == hp) & ((both["log2_lr"] - best).abs() <= NEAR)]
    per_seed = (near["b"] - near["a"]).groupby(near["seed"]).mean()
    return tuple(float(value) for value in per_seed)


def _moved(a: Side, b: Side, label: str, other: str) -> Iterator[Measured]:
    """Differences of drift and regret at every axis value beside the proxy."""
    one, two = _Carried.of(a, label), _Carried.of(b, other)
    for n in sorted(one.axis_values & two.axis_values):
        quantities: tuple[tuple[Quantity, dict[int, float], dict[int, float]], ...] = (
            ("drift", one.drifts(n), two.drifts(n)),
            ("regret", one.regrets(n), two.regrets(n)),
        )
        for quantity, here, there in quantities:
            seeds = sorted(here.keys() & there.keys())
            yield Measured(label, n, quantity, tuple(there[s] - here[s] for s in seeds))


@dataclass(frozen=True, eq=False)
class _Carried:
    """The runs of one label, seed by seed, and the optima of its searches by axis value."""

    suite: Suite
    label: str
    rows: pd.DataFrame
    optima: dict[int, Optimum | None]

    @classmethod
    def of(cls, side: Side, label: str) -> "_Carried":
        own = (side.rows["optimizer"] == label) & ~side.rows["tuning"].astype(bool)
        rows = finished(side.rows[own])
        by_n = searches(side.suite, side.rows).get(label, {})
        return cls(side.suite, label, rows, {n: optimum(part) for n, part in by_n.items()})

    @property
    def axis_values(self) -> set[int]:
        return set(self.optima) - {self.suite.proxy}

    def drifts(self, n: int) -> dict[int, float]:
        """Seed -> octaves by which its own best lr at n lies above that at the proxy."""
        there, here = self._vertices(n), self._vertices(self.suite.proxy)
        return {seed: there[seed] - here[seed] for seed in there.keys() & here.keys()}

    def _vertices(self, n: int) -> dict[int, float]:
        """Seed -> its best log2 lr, where its own curve has an interior minimum."""
        found = {}
        for seed, part in self.rows[self.rows["n"] == n].groupby("seed"):
            best = optimum(part)
            if best is not None and best.censored is None:
                found[int(str(seed))] = best.log2_lr
        return found

    def regrets(self, n: int) -> dict[int, float]:
        """Seed -> nats that it loses at n with the carried lr, against the best lr there."""
        at_proxy, at_target = self.optima.get(self.suite.proxy), self.optima[n]
        if at_proxy is None or at_target is None:
            return {}
        carried, own = (
            self.suite.clip_lr(self.label, best.log2_lr) for best in (at_proxy, at_target)
        )
        rows = self.rows[self.rows["n"] == n]
        rows = rows[rows["hp_point"] == canonical(at_proxy.hp)]
        found = {}
        for seed, part in rows.groupby("seed"):
            x, y = part["log2_lr"].to_numpy(float), capped_losses(part)
            regret = loss_at(x, y, carried) - loss_at(x, y, own)
            if np.isfinite(regret):
                found[int(str(seed))] = float(regret)
        return found


def loss_at(x: np.ndarray, losses: np.ndarray, log2_lr: float) -> float:
    """One seed's loss at an lr, nats: its run there, else the parabola through the runs beside it.

    `x`: log2 lr, octaves, (points,). `losses`: nats, (points,). The parabola is the least-squares
    fit to the runs within an octave; NaN where fewer than three lie there, or all on one side.
    """
    if (x == log2_lr).any():
        return float(losses[x == log2_lr][0])
    z = x - log2_lr
    near = np.abs(z) <= NEAR
    if near.sum() < POINTS or not z[near].min() < 0 < z[near].max():
        return float("nan")
    return float((np.linalg.pinv(np.vander(z[near], 3)) @ losses[near])[-1])
