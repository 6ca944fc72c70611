"""The frame of records: its columns, the rows of a suite, and the runs that finished.

A frame has one row per record. The analysis reads the columns `key`, `cell`, `spec` (the run as
JSON), `log2_lr` (octaves), `seed`, `status` (done, diverged or failed), `loss` (nats; inf where
the run diverged, NaN where it failed), `loss_init`, `train_loss`, `train_mean` (nats), `curve`
(steps and nats), `steps`, `tokens`, `seconds`, `flops`, `peak_memory` (bytes) and `lanes`.
`select` adds `optimizer` (a label of the suite), `n` (the axis value), `stage` (search or fresh)
and `hp_point` (the searched hyperparameters as JSON).
"""

from typing import Any

import numpy as np
import pandas as pd

from hptransfer.spec import COUNT, Axis, canonical, fits
from hptransfer.suite.claim import FRESH_SEED, Suite

Groups = dict[tuple[str, int, str], pd.DataFrame]


def axis_value(spec: dict[str, Any], axis: Axis) -> int:
    """The axis value of a run in JSON form."""
    if axis == "depth":
        return int(spec["model"]["n_layer"])
    return int(spec["batch" if axis == "batch_size" else axis])


def _signature(spec: dict[str, Any], axis: Axis, searched: tuple[str, ...]) -> dict[str, Any]:
    """The part of a run that is equal for all runs of one optimizer of a suite.

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
    field and the searched hyperparameters. Specs are compared once per cell, not once per row.
    """
    searched = {label: tuple(sorted(table.search)) for label, table in suite.optimizers.items()}
    signatures = {
        label: _signature(template, suite.axis, searched[label])
        for label, template in suite.templates.items()
    }
    members: list[tuple[str, str, int, str]] = []
    cells = frame.drop_duplicates("cell")
    for cell, spec in zip(cells["cell"], cells["spec"], strict=True):
        for label, signature in signatures.items():
            if _signature(spec, suite.axis, searched[label]) == signature:
                point = canonical({key: spec["hp"][key] for key in searched[label]})
                members.append((cell, label, axis_value(spec, suite.axis), point))
    table = pd.DataFrame(members, columns=["cell", "optimizer", "n", "hp_point"])
    table = table.astype({"cell": frame["cell"].dtype, "n": "int64"})
    rows = frame.merge(table, on="cell", how="inner")
    rows["stage"] = np.where(rows["seed"] < FRESH_SEED, "search", "fresh")
    return rows


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the runs that gave a result: done or diverged. A failed run gave none."""
    return rows[rows["status"] != "failed"]


def count(rows: pd.DataFrame, status: str) -> int:
    """Number of rows with this status."""
    return int((rows["status"] == status).sum())


def groups(rows: pd.DataFrame) -> Groups:
    """Selected rows by (optimizer, n, stage)."""
    parts = rows.groupby(["optimizer", "n", "stage"], sort=False)
    return {(str(o), int(n), str(s)): part for (o, n, s), part in parts}  # type: ignore[misc]


def searches(suite: Suite, rows: pd.DataFrame) -> dict[str, dict[int, pd.DataFrame]]:
    """Search rows by label and axis value: labels as the suite orders them, values rising.

    A label without search rows is left out.
    """
    parts: dict[str, dict[int, pd.DataFrame]] = {label: {} for label in suite.templates}
    for (label, n, stage), part in groups(rows).items():
        if stage == "search" and label in parts:
            parts[label][n] = part
    return {label: dict(sorted(by_n.items())) for label, by_n in parts.items() if by_n}
