"""The coordinate check, judged: slopes against width, verdicts and the table.

A frame has one row per layer, run and time: optimizer, log2_lr, width, seed, layer, when (init,
gate, late), step, rms of the layer's output, and rms of its change since the start.
"""

import json
import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from hptransfer.analysis.sentences import power_of_two, signed
from hptransfer.errors import InputError

LIMIT = 0.1  # on |slope| of every layer's change at the gate
OCTAVES = 4.0  # span of widths that a verdict needs
ENOUGH_SEEDS = 3  # with fewer a verdict is called indicative
STATISTICS = {"init": "rms", "gate": "change", "late": "change"}
NAN = float("nan")


def by_layer(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per (optimizer, layer): slopes of h(0), of its change at the gate, and late.

    slope: of log2 RMS against log2 width, least squares over all seeds. `*_spread`: standard
    deviation of the slopes of the single seeds. inf: a run diverged. NaN: an RMS is 0.
    Raises InputError where an optimizer has fewer than two widths.
    """
    table = []
    for (label, layer), part in frame.groupby(["optimizer", "layer"], sort=False):
        widths = sorted({int(n) for n in part["width"]})
        if len(widths) < 2:
            raise InputError(
                f"widths: {label} has {widths[0]} alone, needs at least two that differ",
                "a slope has two ends",
            )
        lost = part.loc[~np.isfinite(part["rms"].to_numpy(float)), "width"]
        steps = part.groupby("when")["step"].max()
        row: dict[str, Any] = {
            "optimizer": label,
            "layer": layer,
            "log2_lr": part["log2_lr"].iloc[0],
            "narrowest": widths[0],
            "widest": widths[-1],
            "n_seeds": part["seed"].nunique(),
            "gate_steps": int(steps["gate"]),
            "late_steps": int(steps["late"]),
            "diverged": tuple(sorted({int(n) for n in lost})),
        }
        for when, column in STATISTICS.items():
            row[when], row[f"{when}_spread"] = _slope(part[part["when"] == when], column)
        table.append(row)
    return pd.DataFrame(table)


def _slope(part: pd.DataFrame, column: str) -> tuple[float, float]:
    size = part[column].to_numpy(float)
    if not np.isfinite(size).all():
        return math.inf, NAN
    if not (size > 0).all():
        return NAN, NAN
    x, y = np.log2(part["width"].to_numpy(float)), np.log2(size)
    seed = part["seed"].to_numpy()
    each = [_least_squares(x[seed == s], y[seed == s]) for s in np.unique(seed)]
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else NAN
    return _least_squares(x, y), spread


def _least_squares(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


Outcome = Literal["passes", "fails", "diverged", "too few widths"]


@dataclass(frozen=True)
class Verdict:
    """The outcome for one optimizer; `layer`, `slope`, `spread`: the worst layer at the gate.

    `control`: an optimizer that must fail, which shows that the check notices a failure.
    """

    optimizer: str
    verdict: Outcome
    indicative: bool
    control: bool
    layer: str
    slope: float
    spread: float
    sentence: str

    @property
    def expected(self) -> bool:
        return self.verdict == ("fails" if self.control else "passes")


def judge(
    table: pd.DataFrame, controls: Collection[str] = (), limit: float = LIMIT
) -> list[Verdict]:
    """One verdict per optimizer, the first that holds.

    `too few widths`: fewer than 4 octaves. `diverged`: a run diverged by the gate. `fails`: the
    |slope| of a layer at the gate is above `limit`, or a layer does not move. `diverged`: a run
    diverged later. Else `passes`. Late slopes decide nothing.
    """
    labels = list(dict.fromkeys(table["optimizer"]))
    return [_verdict(table[table["optimizer"] == o], o in controls, limit) for o in labels]


def as_expected(verdicts: list[Verdict]) -> bool:
    """Whether every control fails and every other optimizer passes."""
    return all(v.expected for v in verdicts)


def _verdict(part: pd.DataFrame, control: bool, limit: float) -> Verdict:
    size = part["gate"].abs().fillna(math.inf).to_numpy(float)  # a layer at rest is the worst
    worst = part.iloc[int(size.argmax())]
    outcome = _outcome(part, worst, limit)
    few = int(worst["n_seeds"]) < ENOUGH_SEEDS
    return Verdict(
        optimizer=str(worst["optimizer"]),
        verdict=outcome,
        indicative=few,
        control=control,
        layer=str(worst["layer"]),
        slope=float(worst["gate"]),
        spread=float(worst["gate_spread"]),
        sentence=_sentence(outcome, worst, few, control, limit),
    )


def _octaves(row: "pd.Series[Any]") -> float:
    """Span of the widths, octaves."""
    return math.log2(row["widest"] / row["narrowest"])


def _outcome(part: pd.DataFrame, worst: "pd.Series[Any]", limit: float) -> Outcome:
    if _octaves(worst) < OCTAVES - 1e-9:
        return "too few widths"
    if np.isinf(part["gate"]).any():
        return "diverged"
    if not abs(worst["gate"]) <= limit:
        return "fails"
    return "diverged" if np.isinf(part["late"]).any() else "passes"


def _sentence(
    outcome: Outcome,
    worst: "pd.Series[Any]",
    few: bool,
    control: bool,
    limit: float,
) -> str:
    n, steps = worst["n_seeds"], worst["gate_steps"]
    start = f"{worst['optimizer']}: {outcome}"
    if control:
        start += ", as a control must" if outcome == "fails" else ", although it is a control"
    seeds = f"n = {n} seed" + ("s" if n != 1 else "")
    if few:
        start += f" (indicative: {seeds})"
    over = (
        f"lr {power_of_two(worst['log2_lr'])}, width {worst['narrowest']} to {worst['widest']} "
        f"({_octaves(worst):g} octaves), {seeds}"
    )
    lost = ", ".join(map(str, worst["diverged"]))
    if outcome == "diverged":
        when = f"within {steps} steps" if np.isinf(worst["gate"]) else f"after {steps} steps"
        return f"{start}. Runs at width {lost} diverged {when} ({over}). Lower the lr."
    if outcome == "too few widths":
        return f"{start}. A verdict needs {OCTAVES:g} octaves of width: {over}."
    if np.isnan(worst["gate"]):
        return f"{start}. {worst['layer']} does not move in {steps} steps ({over})."
    size = f"{signed(worst['gate'])}{_spread(worst['gate_spread'], 3)}"
    text = (
        f"{start}. The steepest change after {steps} steps is that of {worst['layer']}, "
        f"width^({size}), limit {limit:g} ({over})."
    )
    return text + (f" Runs at width {lost} diverged later." if lost else "")


def _spread(value: float, digits: int) -> str:
    return f" ± {value:.{digits}f}" if math.isfinite(value) else ""


def slope_text(value: float, spread: float) -> str:
    if math.isinf(value):
        return "diverged"
    return "zero" if math.isnan(value) else f"{signed(value, 2)}{_spread(spread, 2)}"


def kind(layer: str) -> str:
    """`blocks.3.q` -> `blocks.*.q`: one name for the layers of a stack."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", layer)


def steepest_by_kind(part: pd.DataFrame) -> list[tuple[str, "pd.Series[Any]"]]:
    """Kinds of layers of one optimizer, each with its steepest layer at the gate."""
    steepest: dict[str, pd.Series[Any]] = {}
    for _, row in part.iterrows():
        name = kind(str(row["layer"]))
        size = math.inf if math.isnan(row["gate"]) else abs(row["gate"])
        if name not in steepest or size > abs(steepest[name]["gate"]):
            steepest[name] = row
    return list(steepest.items())


def text_table(table: pd.DataFrame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows in words: slope ± spread of the steepest layer of each kind."""
    first = table.iloc[0]
    columns = (
        "optimizer",
        "layer",
        "at init",
        f"change, {first['gate_steps']} steps",
        f"change, {first['late_steps']} steps",
    )
    rows = [
        (str(label), name, *(slope_text(row[when], row[f"{when}_spread"]) for when in STATISTICS))
        for label in dict.fromkeys(table["optimizer"])
        for name, row in steepest_by_kind(table[table["optimizer"] == label])
    ]
    return columns, rows


def as_json(table: pd.DataFrame, verdicts: list[Verdict], *, own_head: bool) -> dict[str, Any]:
    """Verdicts and slopes; a slope that is not finite (diverged, at rest) is null."""
    told = [{**asdict(v), "expected": v.expected} for v in verdicts]
    rows = json.loads(table.to_json(orient="records"))
    finite = [
        {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in each.items()}
        for each in told
    ]
    return {"head": "own" if own_head else "zero", "verdicts": finite, "slopes": rows}
