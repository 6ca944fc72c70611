"""The frame of records: its columns, and the rows of a suite.

A frame has one row per record. The analysis reads the columns `key`, `cell`, `spec` (the run as
JSON), `log2_lr` (octaves), `seed`, `status` (done, diverged or failed), `loss` (nats; inf where
the run diverged, NaN where it failed), `loss_init`, `train_loss`, `train_mean` (nats), `curve`
(steps and nats), `steps`, `tokens`, `seconds`, `flops`, `peak_memory` (bytes) and `lanes`.
`select` adds `optimizer` (a label of the suite), `n` (the axis value), `hp_point` (the searched
hyperparameters as JSON) and `tuning` (whether the run only served to tune a group's field).
"""

import numpy as np
import pandas as pd

from hptransfer.analysis.question import Question
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite

Groups = dict[tuple[str, int], pd.DataFrame]


def select(suite: Suite, frame: pd.DataFrame, divisor: int = 1) -> pd.DataFrame:
    """Rows that belong to the resolved suite, with columns optimizer, n, hp_point and tuning.

    Suite.labels says which rows belong to a label. Specs are compared once per cell, not once per
    row. `divisor`: the runs on this part of the suite's tokens.
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
    rows["tuning"] = False
    for label in suite.tuned:
        own = rows["optimizer"] == label
        best = tuned_point(rows[own & (rows["n"] == suite.proxy)])
        if best is not None:
            rows.loc[own & (rows["hp_point"] != best), "tuning"] = True
    return rows


def tuned_point(rows: pd.DataFrame) -> str | None:
    """The tuned hyperparameters as JSON: those of the least loss on seed 0; None without a loss.

    `rows`: the rows of an optimizer at the proxy.
    """
    first = rows[(rows["seed"] == 0) & np.isfinite(rows["loss"].to_numpy(float))]
    if first.empty:
        return None
    return str(first.sort_values(["loss", "hp_point"]).iloc[0]["hp_point"])


def belonging(suite: Suite, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `select` over all of the suite's budgets."""
    parts = [select(suite, frame, divisor) for divisor in (1, *suite.budgets)]
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def groups(rows: pd.DataFrame, *, tuning: bool = False) -> Groups:
    """Selected rows by (optimizer, n). `tuning`: with those that only tuned a group's field."""
    rows = rows if tuning else rows[~rows["tuning"].astype(bool)]
    parts = rows.groupby(["optimizer", "n"], sort=False, observed=True)
    return {(str(o), int(n)): part for (o, n), part in parts}  # type: ignore[misc]


def searches(suite: Question, rows: pd.DataFrame) -> dict[str, dict[int, pd.DataFrame]]:
    """Rows by label and axis value: labels as the suite orders them, values rising.

    A label without rows is left out.
    """
    parts: dict[str, dict[int, pd.DataFrame]] = {label: {} for label in suite.templates}
    for (label, n), part in groups(rows).items():
        if label in parts:
            parts[label][n] = part
    return {label: dict(sorted(by_n.items())) for label, by_n in parts.items() if by_n}
