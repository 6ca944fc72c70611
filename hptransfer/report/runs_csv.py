"""Sections -> runs.csv: one row per run."""

import re

import pandas as pd
from pandas.api.types import is_numeric_dtype

from hptransfer.analysis.frame import belonging
from hptransfer.suite.resolved import Suite

CSV_COLUMNS = (
    "optimizer", "n", "width", "batch", "steps", "log2_lr", "lr", "seed", "status",
    "loss", "train_loss", "train_mean", "loss_init", "hp_point", "seconds", "flops",
    "peak_memory", "tokens", "device", "lanes", "threads", "hptransfer", "torch", "python", "git",
    "finished", "error", "cell", "key",
)  # fmt: skip

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def runs_table(suite: Suite, frame: pd.DataFrame) -> pd.DataFrame:
    """The records of the suite for runs.csv: flat columns, log2_lr exact, sorted."""
    return flat(belonging(suite, frame))


def flat(rows: pd.DataFrame) -> pd.DataFrame:
    """Selected rows with the columns of runs.csv, sorted."""
    versions = [env.get("versions", {}) for env in rows["env"]]
    table = rows.assign(
        lr=2.0 ** rows["log2_lr"].astype(float),
        git=[env.get("git") for env in rows["env"]],
        **{name: [v.get(name) for v in versions] for name in ("hptransfer", "torch", "python")},
    )
    table = table[list(CSV_COLUMNS)]
    return table.sort_values(["optimizer", "n", "log2_lr", "seed"], ignore_index=True)


def runs_csv(rows: pd.DataFrame) -> str:
    """Text of runs.csv: an apostrophe stands before each cell that a spreadsheet would compute."""

    def cell(value: object) -> object:
        formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        return f"'{value}" if formula and not _NUMBER.fullmatch(str(value)) else value

    table = flat(rows)
    texts = [name for name in table.columns if not is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(cell) for name in texts}).to_csv(index=False)
