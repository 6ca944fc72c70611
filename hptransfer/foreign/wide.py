"""Wide tables, with one column a learning rate or an axis value, made long."""

import re
from dataclasses import replace

import numpy as np

from hptransfer.errors import InputError
from hptransfer.foreign.cells import numbers
from hptransfer.foreign.names import AXES, LR, Asked, matching, plain
from hptransfer.foreign.table import Table

_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|2\^-?\d+(?:\.\d+)?"
_HEADER = re.compile(
    rf"(?P<name>[A-Za-z_][A-Za-z_ ]*?)?[=_: @]*(?P<value>{_NUMBER})", re.IGNORECASE
)
_SHORT = {"w": "width", "d": "depth", "bs": "batch_size"}
VALUE = "loss"  # of a cell of a wide table


def long(table: Table, asked: Asked) -> Table:
    """The table with one row per loss; unchanged where no two columns are numbers by their names.

    The columns are learning rates where they are named so, or where the table has no other; they
    are axis values where it has a column of learning rates and none of an axis. Raises InputError
    where both are missing.
    """
    heads = _heads(table, asked)
    if not heads:
        return table
    name = next(iter({head for head, _ in heads.values()}))
    what = _meaning(table, asked, name)
    columns = list(heads)
    cells = np.column_stack([numbers(table, column).values for column in columns])
    kept = [column for column in table.frame.columns if column not in heads]
    rows = np.repeat(np.arange(len(table.frame)), len(columns))
    frame = table.frame[kept].iloc[rows].reset_index(drop=True)
    frame[what] = np.tile([value for _, value in heads.values()], len(table.frame))
    frame[VALUE] = cells.ravel()
    made = replace(table, frame=frame, source=table.source[rows], line=table.line[rows])
    empty = int(np.isnan(cells).sum())
    told = f"{len(columns)} columns from {columns[0]} to {columns[-1]} are values of {what}"
    return made.only(~np.isnan(cells.ravel())).noted(
        told, f"{empty} empty cell(s) of them: no run" if empty else ""
    )


def _heads(table: Table, asked: Asked) -> dict[str, tuple[str, float]]:
    """Column -> (name, value) of its header, of the columns that are values of one thing."""
    found: dict[str, tuple[str, float]] = {}
    named = {asked.lr, asked.loss, asked.axis, asked.seed, asked.status, *asked.group}
    for column in map(str, table.frame.columns):
        match = _HEADER.fullmatch(column.strip())
        if match and column not in named:
            name = plain(match["name"] or "")
            text = match["value"]
            value = 2.0 ** float(text[2:]) if text.startswith("2^") else float(text)
            found[column] = (_SHORT.get(name, name), value)
    known = {"", *LR, *(name for names in AXES.values() for name in names)}
    found = {column: head for column, head in found.items() if head[0] in known}
    names = [head for head, _ in found.values()]
    most = max(set(names), key=names.count, default="")
    found = {column: head for column, head in found.items() if head[0] == most}
    return found if len(found) > 1 else {}


def _meaning(table: Table, asked: Asked, name: str) -> str:
    """The name of the column that the headers become."""
    if name:
        return name
    columns = list(map(str, table.frame.columns))
    has_lr = asked.lr in columns if asked.lr else bool(matching(columns, LR))
    axes = [each for names in AXES.values() for each in matching(columns, names)]
    has_axis = asked.axis in columns if asked.axis else bool(axes)
    if has_axis and not has_lr:
        return asked.lr or "lr"
    if has_lr and not has_axis:
        return asked.axis or "axis value"
    raise InputError(
        f"{table.name}: columns are named by numbers, and whether they are learning rates or axis "
        "values is not told",
        "name them such as lr=0.001, or width=256",
    )
