"""Rows that are the same run twice, several stages of a run, or runs that no seed tells apart."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from hptransfer.errors import InputError
from hptransfer.foreign import names
from hptransfer.foreign.cells import numbers
from hptransfer.foreign.columns import Columns
from hptransfer.foreign.names import matching
from hptransfer.foreign.table import Table

SETTING = 32  # values; a column with more is a measurement or a name, not a setting


@dataclass(frozen=True, eq=False)
class Distinct:
    """Which rows count, their seeds, both (rows,), the rules that were used, and how far runs went.

    `progress`: of the rows that count, NaN where no column says it, (rows,).
    """

    kept: np.ndarray
    seed: np.ndarray
    notes: tuple[str, ...]
    progress: np.ndarray


def distinct(table: Table, columns: Columns, keys: pd.DataFrame) -> Distinct:
    """One row per run. `keys`: label, axis value, lr and seed of every row.

    Raises InputError for two rows of one run that differ.
    """
    seed, kept = keys["seed"].to_numpy(int), np.ones(len(keys), bool)
    notes: list[str] = []
    progress = np.full(len(keys), np.nan)
    if columns.progress is not None:
        progress = numbers(table, columns.progress).values
    if not keys.duplicated().any():
        return Distinct(kept, seed, (), progress)
    exact = table.frame.duplicated().to_numpy(bool)
    if exact.any():
        kept &= ~exact
        notes.append(f"{int(exact.sum())} row(s) repeat another in every cell and count once")
    if columns.progress is not None and keys[kept].duplicated().any():
        last = _last(table, columns, keys, kept, progress)
        notes += [f"the last of {int(kept.sum() / last.sum())} rows per run counts, by "
                  f"{columns.progress}"]  # fmt: skip
        kept &= last
    if keys[kept].duplicated().any():
        _refuse_settings(table, columns, keys, kept)
        if columns.seed is not None:
            first, second = _pair(keys, kept)
            raise _twice(table, columns, first, second)
        seed = seed.copy()
        seed[kept] = keys[kept].groupby(list(keys.columns), sort=False).cumcount()
        notes.append("no column tells runs at the same lr apart: they count as seeds, in order")
    return Distinct(kept, seed, tuple(notes), progress)


def _last(
    table: Table, columns: Columns, keys: pd.DataFrame, kept: np.ndarray, progress: np.ndarray
) -> np.ndarray:
    """The rows that are the furthest of their run, (rows,)."""
    assert columns.progress is not None
    if (unknown := np.isnan(progress) & kept).any():
        row = int(np.flatnonzero(unknown)[0])
        raise table.error(
            row, columns.progress, "is missing, so the order of rows is not told", "fill it in"
        )
    staged = keys.assign(progress=progress)
    if (again := staged[kept].duplicated()).any():
        second = int(again.index[again.to_numpy(bool)][0])
        same = (staged == staged.iloc[second]).all(axis=1).to_numpy(bool) & kept
        raise _twice(table, columns, int(np.flatnonzero(same)[0]), second)
    best = staged[kept].groupby(list(keys.columns), sort=False)["progress"].idxmax()
    last = np.zeros(len(keys), bool)
    last[best.to_numpy(int)] = True
    return last


def _pair(keys: pd.DataFrame, kept: np.ndarray) -> tuple[int, int]:
    """The first row that repeats the key of another, and that other one before it."""
    again = keys[kept].duplicated()
    second = int(again.index[again.to_numpy(bool)][0])
    same = (keys == keys.iloc[second]).all(axis=1).to_numpy(bool) & kept
    return int(np.flatnonzero(same)[0]), second


def _twice(table: Table, columns: Columns, first: int, second: int) -> InputError:
    told = [columns.axis, columns.lr, *columns.group, *([columns.seed] if columns.seed else [])]
    cells = ", ".join(f"{name} {table.cell(second, name)}" for name in told)
    return InputError(
        f"{table.where(second)} and {table.word} {table.line[first]} are the same run ({cells})",
        "name the column that tells them apart, as a seed or as a method; or hold another column "
        "at one value",
        cures=("seed", "group", "hold"),
    )


def _refuse_settings(table: Table, columns: Columns, keys: pd.DataFrame, kept: np.ndarray) -> None:
    """Raises InputError where rows of one key differ in a setting, such as a weight decay."""
    several = keys[kept].duplicated(keep=False).to_numpy(bool)
    rows = np.flatnonzero(kept)[several]
    codes = keys.iloc[rows].groupby(list(keys.columns), sort=False).ngroup().to_numpy(int)
    axes = [name for own in names.AXES.values() for name in matching(columns.others, own)]
    numeric = {name: is_numeric_dtype(table.frame[name]) for name in columns.others}
    for name in dict.fromkeys((*axes, *sorted(columns.others, key=numeric.__getitem__))):
        cells = table.frame[name].iloc[rows]
        most = min(SETTING, max(2, len(rows) // 3)) if numeric[name] else SETTING
        few = name in axes or cells.nunique() <= most
        if few and cells.groupby(codes).nunique().max() > 1:
            values = [table.cell(int(rows[i]), name) for i in _first_two(cells, codes)]
            plain = values[0].strip("'")
            raise InputError(
                f"{table.where(int(rows[_first_two(cells, codes)[1]]))}: differs from another run "
                f"of the same {columns.axis} and {columns.lr} in column {name!r} "
                f"({' and '.join(values)})",
                f"hold it at one value, {name}={plain}, or group by it, to judge each alone",
                cures=("hold", "group"),
            )


def _first_two(cells: "pd.Series[object]", codes: np.ndarray) -> tuple[int, int]:  # type: ignore[type-var]
    """Two rows of one key with different cells."""
    counts = cells.groupby(codes).nunique()
    own = np.flatnonzero(codes == counts.index[int(counts.to_numpy().argmax())])
    values = cells.iloc[own].to_numpy()
    other = next(i for i in range(1, len(own)) if values[i] != values[0])
    return int(own[0]), int(own[other])
