"""A sweep as the analysis asks it: its labels, its axis, its proxy, and the grid of each label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hptransfer.errors import InputError, suggest
from hptransfer.foreign.rows import Reading
from hptransfer.spec import LR_STEP, SCHEMA
from hptransfer.suite.claim import Expectation
from hptransfer.suite.grid import Tried
from hptransfer.suite.tables import Thresholds, Tuned

WALL = 10  # times tol; losses above that are no part of a basin whose cost is judged by tol


@dataclass(frozen=True, eq=False)
class Label:
    """What a label tried: its grid, and every log2 lr, octaves, rising.

    `common`: the range that every axis value tried whole; the whole range where there is none.
    """

    grid: Tried
    rates: np.ndarray
    common: tuple[float, float]


@dataclass(frozen=True)
class Sweep:
    """Runs that were made elsewhere, as one question (analysis.question).

    `seeds_at`: axis value -> the most seeds of a label there. `unit`: that of a loss.
    """

    name: str
    axis: str
    proxy: int
    targets: tuple[int, ...]
    labels: Mapping[str, Label]
    seeds_at: Mapping[int, int]
    unit: str = "nat"
    thresholds: Thresholds = field(default_factory=Thresholds)
    expect: Mapping[str, Expectation] = field(default_factory=dict)
    negative_control: str | None = None

    @property
    def kind(self) -> str:
        return "sweep"

    @property
    def claim(self) -> str:
        """The question in words."""
        to = ", ".join(map(str, self.targets))
        axis = self.axis.replace("_", " ")
        return f"Does the learning rate tuned at {axis} {self.proxy} hold at {to}?"

    @property
    def templates(self) -> Mapping[str, Label]:
        return self.labels

    @property
    def optimizers(self) -> Mapping[str, Label]:
        return self.labels

    @property
    def axis_values(self) -> list[int]:
        return sorted({self.proxy, *self.targets})

    @property
    def tuned(self) -> Mapping[str, Mapping[str, Tuned]]:
        return {}

    @property
    def ngrams(self) -> Mapping[int, float]:
        return {}

    @property
    def looks(self) -> Sequence[int]:
        """None: nobody looked at a verdict while the runs were made."""
        return ()

    @property
    def records_schema(self) -> int:
        return SCHEMA

    @property
    def reads_between(self) -> bool:
        return True

    def looks_at(self, n: int) -> Sequence[int]:
        return (self.seeds_at.get(n, 1),)

    def start_grid(self, label: str) -> tuple[float, float]:
        return self.labels[label].common

    def grid(self, label: str) -> Tried:
        return self.labels[label].grid

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The tried lr within 1/16 octave of the optimum, for its runs are known; else that itself.

        A suite rounds to 1/8 octave, so it moves the optimum by as much.
        """
        rates = self.labels[label].rates
        nearest = float(rates[np.abs(rates - log2_lr).argmin()])
        return nearest if abs(nearest - log2_lr) <= LR_STEP / 2 else log2_lr

    def lr_text(self, log2_lr: float) -> str:
        """A learning rate in words: `0.0052 = 2^-7.59`."""
        return f"{2.0**log2_lr:.3g} = 2^{round(log2_lr, 2):g}"

    def lower_lr(self, label: str) -> str:
        """Below the least one that was tried, as the end of a sentence."""
        return f"below {2.0 ** self.labels[label].rates[0]:.3g}"


def sweep(
    reading: Reading,
    *,
    proxy: int | None = None,
    targets: Sequence[int] = (),
    thresholds: Thresholds | None = None,
    expect: Mapping[str, Expectation] | None = None,
    control: str | None = None,
) -> Sweep:
    """The sweep of a reading. Default of `proxy`: the least axis value; of `targets`: the others.

    Raises InputError for an axis value or a label that it does not have.
    """
    rows, limits = reading.rows, thresholds or Thresholds()
    at, to = _axis(reading, proxy, targets)
    labels = [str(label) for label in pd.unique(rows["optimizer"])]
    for label in (*(expect or {}), *([control] if control else [])):
        if label not in labels:
            raise InputError(
                f"no label {label!r}",
                suggest(label, labels) or f"labels: {', '.join(labels)}",
                option="control" if label == control else "expect",
            )
    done = rows[rows["status"] != "failed"]
    seeds = done.groupby(["optimizer", "n"], sort=False, observed=True)["seed"].nunique()
    most = seeds.groupby("n").max()
    return Sweep(
        name=reading.name,
        axis=reading.axis,
        proxy=at,
        targets=to,
        labels={label: _label(rows[rows["optimizer"] == label], limits) for label in labels},
        seeds_at={int(n): int(count) for n, count in most.items()},  # type: ignore[arg-type]
        unit=reading.unit,
        thresholds=limits,
        expect=dict(expect or {}),
        negative_control=control,
    )


def _axis(
    reading: Reading, proxy: int | None, targets: Sequence[int]
) -> tuple[int, tuple[int, ...]]:
    """The proxy and the targets. Raises InputError for one without a run, and for one in both."""
    values = sorted(map(int, reading.rows["n"].unique()))
    if len(values) < 2:
        raise InputError(
            f"{reading.name}: the runs left have one value of {reading.axis} ({values[0]}), so "
            "nothing is carried",
            "add runs at a second one, or hold fewer columns",
        )
    at = values[0] if proxy is None else proxy
    for n, option in ((at, "proxy"), *((n, "to") for n in targets)):
        if n not in values:
            raise InputError(
                f"{reading.axis} {n} has no run",
                f"it has {', '.join(map(str, values))}",
                option=option,
            )
    to = tuple(sorted(set(targets))) or tuple(n for n in values if n != at)
    if at in to:
        raise InputError(f"{at} is the proxy itself", f"name another {reading.axis}", option="to")
    return at, to


def _label(rows: pd.DataFrame, limits: Thresholds) -> Label:
    """What the rows of a label tried."""
    curves = [np.unique(part["log2_lr"].to_numpy(float)) for _, part in rows.groupby("n")]
    rates = np.unique(np.concatenate(curves))
    low, high = max(x[0] for x in curves), min(x[-1] for x in curves)
    if low >= high:
        low, high = rates[0], rates[-1]
    return Label(Tried.of(curves, WALL * limits.tol), rates, (float(low), float(high)))
