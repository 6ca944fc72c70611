"""What is taken for what: the columns of a table that the analysis reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hptransfer.errors import InputError
from hptransfer.foreign import names
from hptransfer.foreign.names import Asked, column, listed, matching, plain
from hptransfer.foreign.table import Table

Scale = Literal["linear", "log2", "log10", "ln"]
MOST_LABELS = 64


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None where the table has none. `others`: those that are not read.

    `progress`: how far a run was at a row, where each run has several. `together`: columns that
    change with the axis and have one value at each of its values.
    """

    lr: str
    scale: Scale
    loss: str
    axis: str
    group: tuple[str, ...]
    seed: str | None
    status: str | None
    progress: str | None
    loss_init: str | None
    together: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def columns(table: Table, asked: Asked) -> Columns:
    """The columns by their names, or as the options say. Raises InputError for one that is missing.

    An axis is a column with two values or more. Of several groups that differ, all make the label.
    """
    every = list(map(str, table.frame.columns))
    lr = _lr(table, every, asked)
    loss = _loss(table, every, asked)
    seed = _optional(every, asked.seed, names.SEED, "seed")
    group = _group(table, every, asked)
    axis = _axis(table, every, asked, (lr, *group))
    used = {lr, loss, axis, seed, *group}
    status = _optional([x for x in every if x not in used], asked.status, names.STATUS, "status")
    progress = next((x for x in matching(every, names.PROGRESS) if x not in used), None)
    loss_init = next(iter(matching(every, names.LOSS_INIT)), None)
    used |= {status, progress, loss_init}
    others = tuple(x for x in every if x not in used)
    return Columns(
        lr=lr,
        scale=_scale(table, lr, asked),
        loss=loss,
        axis=axis,
        group=group,
        seed=seed,
        status=status,
        progress=progress,
        loss_init=loss_init,
        together=_together(table, axis, others),
        others=others,
    )


def _optional(
    every: Sequence[str], given: str | None, known: Sequence[str], option: str
) -> str | None:
    if given is not None:
        return column(every, given, option)
    return next(iter(matching(every, known)), None)


def _lr(table: Table, every: Sequence[str], asked: Asked) -> str:
    found = _optional(every, asked.lr, names.LR, "lr")
    if found is None:
        raise InputError(
            f"{table.name}: no column of learning rates is found",
            f"name it, one of {listed(every)}",
            cures=("lr",),
        )
    return found


def _scale(table: Table, lr: str, asked: Asked) -> Scale:
    if asked.lr_scale is not None:
        for scale in get_args(Scale):
            if scale == asked.lr_scale:
                return scale
        raise InputError(
            f"got {asked.lr_scale!r}, needs one of {', '.join(get_args(Scale))}", option="lr_scale"
        )
    name = plain(lr)
    for scale in ("log2", "log10"):
        if scale in name:
            return scale
    if "log" in name.split("_"):
        raise InputError(
            f"{table.name}: the base of the logarithm in column {lr!r} is not told",
            "name it: log2, log10 or ln",
            cures=("lr_scale",),
        )
    return "linear"


def _loss(table: Table, every: Sequence[str], asked: Asked) -> str:
    found = _optional(every, asked.loss, names.LOSS, "loss")
    if found is None:
        scores = [name for name in every if names.ACCURACIES.search(name)]
        more = f", where {scores[0]} is better the higher it is" if scores else ""
        raise InputError(
            f"{table.name}: no column of losses is found",
            f"name it, one of {listed(every)}{more}",
            cures=("loss", "higher_is_better") if scores else ("loss",),
        )
    return found


def _varies(table: Table, name: str) -> bool:
    return table.frame[name].nunique() > 1


def _axis(table: Table, every: Sequence[str], asked: Asked, used: Sequence[str]) -> str:
    """The first column of an axis that varies, in the order of names.AXES."""
    if asked.axis is not None:
        found = column(every, asked.axis, "axis")
        if not _varies(table, found):
            value = table.cell(0, found)
            raise InputError(
                f"{table.name}: column {found!r} has one value ({value}), so nothing is carried",
                "name a column with the sizes that were trained",
                option="axis",
            )
        return found
    known = [name for own in names.AXES.values() for name in matching(every, own)]
    known = [
        name for name in (*known, *(x for x in every if x == "axis value")) if name not in used
    ]
    varying = [name for name in known if _varies(table, name)]
    if varying:
        return varying[0]
    there = ", ".join(f"{name} ({table.frame[name].nunique()})" for name in every[:20])
    one = f"; {listed(known)} has one value alone" if known else ""
    raise InputError(
        f"{table.name}: no axis to transfer along{one}. It has these columns, with so many values "
        f"each: {there}. That compares learning rates at one size; a transfer needs runs at two "
        "sizes or more",
        "add runs at a second width, depth, batch size or number of tokens, with a column that "
        "says which; or name that column, where it has another name",
        cures=("axis",),
    )


def _group(table: Table, every: Sequence[str], asked: Asked) -> tuple[str, ...]:
    """The columns that make the label: those that vary, or one that does not; () for none."""
    if asked.group:
        return tuple(column(every, name, "group") for name in asked.group)
    known = matching(every, names.GROUP)
    varying = [name for name in known if _varies(table, name)]
    kept: list[str] = []
    for name in varying:
        if not kept or table.frame.groupby(kept, dropna=False)[name].nunique().max() > 1:
            kept.append(name)
    return tuple(kept or known[:1])


def _together(table: Table, axis: str, others: Sequence[str]) -> tuple[str, ...]:
    """The other axes that have one value at each value of this one, and another elsewhere."""
    known = [name for own in names.AXES.values() for name in matching(others, own)]
    by_value = table.frame.groupby(axis, dropna=True)
    return tuple(
        name for name in known if _varies(table, name) and by_value[name].nunique().max() == 1
    )
