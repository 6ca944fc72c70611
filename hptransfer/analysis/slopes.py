"""The coordinate check, judged: slopes against width, verdicts and the table.

A frame has one row per layer, run and time: optimizer, log2_lr, width, seed, layer, when (init,
gate, late), step, rms of the layer's output, and rms of its change since the start.
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hptransfer.analysis.sentences import power_of_two, signed
from hptransfer.errors import InputError

LIMIT = 0.1  # on |slope| of every layer's change at the gate
OCTAVES = 4.0  # span of widths that a verdict needs
ENOUGH_SEEDS = 3  # with fewer a verdict is called indicative
TIMES = ("init", "gate", "late")
NAN = float("nan")


@dataclass(frozen=True)
class Slope:
    """Exponent of the width in a layer's size, by least squares over all seeds.

    `spread`: standard deviation of the exponents of the single seeds, NaN for one seed. `value` is
    inf where a run diverged, NaN where a size is 0.
    """

    value: float
    spread: float = NAN


@dataclass(frozen=True)
class LayerSlopes:
    """Slopes of one layer under one optimizer.

    `init`: of its output's RMS at the start. `gate`, `late`: of the RMS of its change after the
    steps of the gate, and after all. `diverged`: the widths at which a run diverged.
    """

    optimizer: str
    layer: str
    log2_lr: float
    narrowest: int
    widest: int
    n_seeds: int
    gate_steps: int
    late_steps: int
    diverged: tuple[int, ...]
    init: Slope
    gate: Slope
    late: Slope

    @property
    def slopes(self) -> tuple[Slope, ...]:
        """In the order of TIMES."""
        return self.init, self.gate, self.late

    @property
    def steepness(self) -> float:
        """|slope| at the gate; a layer at rest is the worst there is, inf."""
        return math.inf if math.isnan(self.gate.value) else abs(self.gate.value)

    @property
    def octaves(self) -> float:
        """Span of the widths."""
        return math.log2(self.widest / self.narrowest)


def by_layer(frame: pd.DataFrame) -> list[LayerSlopes]:
    """One per (optimizer, layer), in the order of the frame.

    Raises InputError where an optimizer has fewer than two widths.
    """
    parts = frame.groupby(["optimizer", "layer"], sort=False)
    return [_layer(str(label), str(layer), part) for (label, layer), part in parts]


def _layer(label: str, layer: str, part: pd.DataFrame) -> LayerSlopes:
    widths = sorted({int(n) for n in part["width"]})
    if len(widths) < 2:
        raise InputError(
            f"widths: {label} has {widths[0]} alone, needs at least two that differ",
            "a slope has two ends",
        )
    lost = part.loc[~np.isfinite(part["rms"].to_numpy(float)), "width"]
    at = {str(when): rows for when, rows in part.groupby("when")}
    return LayerSlopes(
        optimizer=label,
        layer=layer,
        log2_lr=float(part["log2_lr"].iloc[0]),
        narrowest=widths[0],
        widest=widths[-1],
        n_seeds=int(part["seed"].nunique()),
        gate_steps=int(at["gate"]["step"].max()),
        late_steps=int(at["late"]["step"].max()),
        diverged=tuple(sorted({int(n) for n in lost})),
        init=_slope(at["init"], "rms"),
        gate=_slope(at["gate"], "change"),
        late=_slope(at["late"], "change"),
    )


def _slope(part: pd.DataFrame, column: str) -> Slope:
    size = part[column].to_numpy(float)
    if not np.isfinite(size).all():
        return Slope(math.inf)
    if not (size > 0).all():
        return Slope(NAN)
    x, y = np.log2(part["width"].to_numpy(float)), np.log2(size)
    seed = part["seed"].to_numpy()
    each = [_least_squares(x[seed == s], y[seed == s]) for s in np.unique(seed)]
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else NAN
    return Slope(_least_squares(x, y), spread)


def _least_squares(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


Outcome = Literal["passes", "fails", "diverged", "too few widths"]


@dataclass(frozen=True)
class SlopeVerdict:
    """The outcome for one optimizer; `layer`, `slope`: the worst layer, and its slope at the gate.

    `control`: an optimizer that must fail, which shows that the check notices a failure.
    """

    optimizer: str
    verdict: Outcome
    indicative: bool
    control: bool
    layer: str
    slope: Slope
    sentence: str

    @property
    def expected(self) -> bool:
        return self.verdict == ("fails" if self.control else "passes")


def judge(
    layers: Sequence[LayerSlopes], controls: Collection[str] = (), limit: float = LIMIT
) -> list[SlopeVerdict]:
    """One verdict per optimizer, the first that holds.

    `too few widths`: fewer than 4 octaves. `diverged`: a run diverged by the gate. `fails`: the
    |slope| of a layer at the gate is above `limit`, or a layer does not move. `diverged`: a run
    diverged later. Else `passes`. Late slopes decide nothing.
    """
    return [_verdict(own, label in controls, limit) for label, own in by_optimizer(layers).items()]


def by_optimizer(layers: Sequence[LayerSlopes]) -> dict[str, list[LayerSlopes]]:
    """Label -> its layers, both in their order."""
    parts: dict[str, list[LayerSlopes]] = {}
    for layer in layers:
        parts.setdefault(layer.optimizer, []).append(layer)
    return parts


def as_expected(verdicts: list[SlopeVerdict]) -> bool:
    """Whether every control fails and every other optimizer passes."""
    return all(v.expected for v in verdicts)


def _verdict(own: list[LayerSlopes], control: bool, limit: float) -> SlopeVerdict:
    worst = max(own, key=lambda layer: layer.steepness)
    outcome = _outcome(own, worst, limit)
    few = worst.n_seeds < ENOUGH_SEEDS
    return SlopeVerdict(
        optimizer=worst.optimizer,
        verdict=outcome,
        indicative=few,
        control=control,
        layer=worst.layer,
        slope=worst.gate,
        sentence=_sentence(outcome, worst, few, control, limit),
    )


def _outcome(own: list[LayerSlopes], worst: LayerSlopes, limit: float) -> Outcome:
    if worst.octaves < OCTAVES - 1e-9:
        return "too few widths"
    if any(math.isinf(layer.gate.value) for layer in own):
        return "diverged"
    if not worst.steepness <= limit:
        return "fails"
    return "diverged" if any(math.isinf(layer.late.value) for layer in own) else "passes"


def _sentence(outcome: Outcome, worst: LayerSlopes, few: bool, control: bool, limit: float) -> str:
    n, steps = worst.n_seeds, worst.gate_steps
    start = f"{worst.optimizer}: {outcome}"
    if control:
        start += ", as a control must" if outcome == "fails" else ", although it is a control"
    seeds = f"n = {n} seed" + ("s" if n != 1 else "")
    if few:
        start += f" (indicative: {seeds})"
    over = (
        f"lr {power_of_two(worst.log2_lr)}, width {worst.narrowest} to {worst.widest} "
        f"({worst.octaves:g} octaves), {seeds}"
    )
    lost = ", ".join(map(str, worst.diverged))
    if outcome == "diverged":
        when = f"within {steps} steps" if math.isinf(worst.gate.value) else f"after {steps} steps"
        return f"{start}. Runs at width {lost} diverged {when} ({over}). Lower the lr."
    if outcome == "too few widths":
        return f"{start}. A verdict needs {OCTAVES:g} octaves of width: {over}."
    if math.isnan(worst.gate.value):
        return f"{start}. {worst.layer} does not move in {steps} steps ({over})."
    size = f"{signed(worst.gate.value)}{_spread(worst.gate.spread, 3)}"
    text = (
        f"{start}. The steepest change after {steps} steps is that of {worst.layer}, "
        f"width^({size}), limit {limit:g} ({over})."
    )
    return text + (f" Runs at width {lost} diverged later." if lost else "")


def _spread(value: float, digits: int) -> str:
    return f" ± {value:.{digits}f}" if math.isfinite(value) else ""


def slope_text(slope: Slope) -> str:
    """A slope and its spread in words."""
    if math.isinf(slope.value):
        return "diverged"
    if math.isnan(slope.value):
        return "zero"
    return f"{signed(slope.value, 2)}{_spread(slope.spread, 2)}"


def kind(layer: str) -> str:
    """`blocks.3.q` -> `blocks.*.q`: one name for the layers of a stack."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", layer)


def steepest_by_kind(own: Sequence[LayerSlopes]) -> dict[str, LayerSlopes]:
    """Kind -> its steepest layer at the gate, for the layers of one optimizer."""
    steepest: dict[str, LayerSlopes] = {}
    for layer in own:
        name = kind(layer.layer)
        if name not in steepest or layer.steepness > steepest[name].steepness:
            steepest[name] = layer
    return steepest


def text_table(layers: Sequence[LayerSlopes]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows in words: slope ± spread of the steepest layer of each kind."""
    columns = (
        "optimizer",
        "layer",
        "at init",
        f"change, {layers[0].gate_steps} steps",
        f"change, {layers[0].late_steps} steps",
    )
    rows = [
        (label, name, *map(slope_text, steepest.slopes))
        for label, own in by_optimizer(layers).items()
        for name, steepest in steepest_by_kind(own).items()
    ]
    return columns, rows
