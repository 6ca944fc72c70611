"""The frame of records: its columns, and the rows of a suite.

A frame has one row per record. The analysis reads the columns `key`, `cell`, `spec` (the run as
JSON), `log2_lr` (octaves), `seed`, `status` (done, diverged or failed), `loss` (nats; inf where
the run diverged, NaN where it failed), `loss_init`, `train_loss`, `train_mean` (nats), `curve`
(steps and nats), `steps`, `tokens`, `seconds`, `flops`, `peak_memory` (bytes) and `lanes`.
`select` adds `optimizer` (a label of the suite), `n` (the axis value), `stage` (search, fresh or
budget) and `hp_point` (the searched hyperparameters as JSON).
"""

import numpy as np
import pandas as pd

from hptransfer.spec import RunSpec
from hptransfer.suite.claim import FRESH_SEED
from hptransfer.suite.resolved import Suite

Groups = dict[tuple[str, int, str], pd.DataFrame]


def select(suite: Suite, frame: pd.DataFrame, divisor: int = 1) -> pd.DataFrame:
    """Rows that belong to the resolved suite, with columns optimizer, n, stage and hp_point.

    Suite.labels says which rows belong to a label. Specs are compared once per cell, not once per
    row. `divisor`: the runs on this part of the suite's tokens, whose stage is budget.
    """
    cells = frame.drop_duplicates("cell")
    specs = [RunSpec.from_json(spec) for spec in cells["spec"]]
    members = [
        (cell, label, spec.axis_value(suite.axis), suite.searched_point(label, spec))
        for cell, spec, labels in zip(
            cells["cell"], specs, suite.labels(specs, divisor), strict=True
        )
        for label in labels
    ]
    table = pd.DataFrame(members, columns=["cell", "optimizer", "n", "hp_point"])
    table = table.astype({"cell": frame["cell"].dtype, "n": "int64"})
    rows = frame.merge(table, on="cell", how="inner")
    rows["stage"] = np.where(rows["seed"] < FRESH_SEED, "search", "fresh")
    return rows if divisor == 1 else rows.assign(stage="budget")


def belonging(suite: Suite, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `select` over all of the suite's budgets."""
    parts = [select(suite, frame, divisor) for divisor in (1, *suite.budgets)]
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


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
