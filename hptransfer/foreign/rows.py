"""A table and its columns -> rows in the vocabulary of the frame, and every rule that was used."""

import contextlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hptransfer.errors import InputError
from hptransfer.foreign.cells import numbers, statuses, texts
from hptransfer.foreign.columns import MOST_LABELS, Columns, columns
from hptransfer.foreign.names import Asked, column, listed, plain
from hptransfer.foreign.repeats import distinct
from hptransfer.foreign.table import Table
from hptransfer.foreign.wide import long
from hptransfer.spec import MOST

SAME_LR = 6  # digits of log2 lr after the point; closer rates are one
NO_HP = pd.Index(["{}"], dtype=object)  # no hyperparameter was searched beside the lr
RANGE = (-149.0, 128.0)  # of log2 lr, that of float32
MOST_CELLS = 5e6  # points times seeds of one curve that fit into memory
MOST_RATES = 2000  # of one curve that a figure shows
MOST_VALUES = 100  # of an axis


@dataclass(frozen=True, eq=False)
class Reading:
    """What a table says.

    `rows`: one per run, with columns optimizer (label), n, log2_lr (octaves), seed, status, loss,
    loss_init (inf where it is not known), hp_point, tuning, progress (NaN where not known), source
    and line. `unit`: that of a loss. `taken`: (what, column and values) for the reader. `notes`:
    rules that were used.
    """

    rows: pd.DataFrame
    name: str
    axis: str
    unit: str
    columns: Columns
    taken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def reading(table: Table, asked: Asked, name: str) -> Reading:
    """The runs in a table. `name`: of the sweep, which is its label where no column is one.

    Raises InputError with file, line, column and a cure for a cell that cannot be used.
    """
    table = _held(long(table, asked), asked)
    found = columns(table, asked)
    label = _labels(table, found, name)
    n, notes = _axis_values(table, found)
    log2_lr, more = _log2_lr(table, found)
    notes += more
    loss, unit, more = _losses(table, found, asked)
    notes += more
    status, more = _statuses(table, found, loss)
    notes += more
    _placed(table, found, {found.axis: n, found.lr: log2_lr}, label, status)
    seed, more = _seeds(table, found)
    notes += more
    placed = np.isfinite(n) & np.isfinite(log2_lr) & (label != "")
    table = table.only(placed)
    keys = pd.DataFrame({"optimizer": label, "n": n, "log2_lr": log2_lr, "seed": seed})[placed]
    one = distinct(table, found, keys.reset_index(drop=True))
    roof = _loss_init(table, found, asked, int(placed.sum()))
    made = pd.DataFrame(
        {
            "optimizer": _category(label[placed]),
            "n": n[placed].astype("int64"),
            "log2_lr": log2_lr[placed],
            "seed": one.seed,
            "status": _category(status[placed]),
            "loss": np.where(status[placed] == "done", loss[placed], np.inf),
            "loss_init": roof,
            "hp_point": pd.Categorical.from_codes(np.zeros(placed.sum(), int), NO_HP),
            "tuning": False,
            "progress": one.progress,
            "source": table.source,
            "line": table.line,
        }
    )[one.kept].sort_values(["optimizer", "n", "log2_lr", "seed"], ignore_index=True)
    made.loc[made["status"] == "failed", "loss"] = np.nan
    if not placed.all():
        notes.append(f"{int((~placed).sum())} unfinished run(s) without lr, axis or label")
    _check_size(made, found)
    told = (*table.notes, *dict.fromkeys((*notes, *one.notes)))
    return Reading(made, name, _axis_name(found.axis), unit, found, _taken(made, found), told)


def _category(words: np.ndarray) -> pd.Categorical:
    """Words that repeat, so that a million of them compare fast; in the order of the table."""
    codes, kinds = pd.factorize(words)
    return pd.Categorical.from_codes(codes, pd.Index(kinds, dtype=object))


def _axis_name(name: str) -> str:
    return plain(name) or name


def _held(table: Table, asked: Asked) -> Table:
    """The rows that have the held values. Raises InputError where none has."""
    for name, value in asked.hold.items():
        own = column(list(map(str, table.frame.columns)), name, "hold")
        cells = texts(table, own)
        kept = cells == value
        if not kept.any():
            with contextlib.suppress(ValueError):  # an InputError, too: one side is no number
                kept = numbers(table, own).values == float(value)
        if not kept.any():
            values = sorted(set(map(str, cells)))
            raise InputError(
                f"{table.name}: no row has {own} = {value}", f"its values: {listed(values)}",
                option="hold",
            )  # fmt: skip
        out = int((~kept).sum())
        table = table.only(kept).noted(f"{out} row(s) with another {own} than {value} are left out")
    return table


def _labels(table: Table, found: Columns, name: str) -> np.ndarray:
    """The label of every row, "" where a cell of it is missing, (rows,)."""
    if not found.group:
        if len(table.sources) > 1:
            return np.array([_stem(each) for each in table.sources], dtype=object)[table.source]
        return np.full(len(table.frame), name, dtype=object)
    parts = [texts(table, each) for each in found.group]
    label = parts[0]
    for part in parts[1:]:
        label = np.where((label == "") | (part == ""), "", label + "/" + part)
    values = pd.unique(label)
    if len(values) > MOST_LABELS:
        raise InputError(
            f"{table.name}: column {', '.join(found.group)} has {len(values)} values, too many to "
            "be methods",
            f"group by a column with at most {MOST_LABELS}, or hold another one at one value",
            cures=("group", "hold"),
        )
    return label


def _stem(source: str) -> str:
    return source.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _axis_values(table: Table, found: Columns) -> tuple[np.ndarray, list[str]]:
    """Axis values as whole numbers, NaN where a cell is missing, (rows,)."""
    read = numbers(table, found.axis, units=True)
    values = read.values
    wrong = ~np.isnan(values) & ~((values == np.round(values)) & (values >= 1) & (values <= MOST))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise table.error(
            row,
            found.axis,
            f"got {table.cell(row, found.axis)}, needs a whole number of at least 1",
            "write the axis in a smaller unit, or name another column",
            cures=("axis",),
        )
    return values, list(read.notes)


def _log2_lr(table: Table, found: Columns) -> tuple[np.ndarray, list[str]]:
    """log2 of the learning rates, octaves, NaN where a cell is missing, (rows,)."""
    read = numbers(table, found.lr)
    values, notes = read.values, list(read.notes)
    if found.scale == "linear":
        wrong = values <= 0
        octaves = np.log2(np.where(wrong, 1.0, values))
    else:
        octaves = values * {"log2": 1.0, "log10": np.log2(10), "ln": np.log2(np.e)}[found.scale]
        wrong = np.zeros(len(values), bool)
        notes.append(f"{found.lr} is read as {found.scale} of the learning rate")
    wrong |= np.isposinf(values) | ~np.isnan(octaves) & ~(
        (octaves >= RANGE[0]) & (octaves <= RANGE[1])
    )
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise table.error(
            row,
            found.lr,
            f"got {table.cell(row, found.lr)}, needs a learning rate above 0",
            "correct the cell; of logarithms name the base: log2, log10 or ln",
            cures=("lr_scale",),
        )
    return np.round(octaves, SAME_LR) + 0.0, notes


def _losses(table: Table, found: Columns, asked: Asked) -> tuple[np.ndarray, str, list[str]]:
    """Losses, inf where a run diverged, NaN where there is none, (rows,); their unit; the rules."""
    read = numbers(table, found.loss)
    values, notes = read.values.copy(), list(read.notes)
    if (wrong := np.isneginf(values)).any():
        row = int(np.flatnonzero(wrong)[0])
        raise table.error(row, found.loss, "got minus infinity", "correct the cell, or empty it")
    if not (asked.higher_is_better or table.maximised == found.loss):
        return values, "nat", notes
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 1.0)
    if low >= 0 and high <= 1:
        values[finite] = 1 - values[finite]
        notes.append(f"{found.loss}: more is better; its loss is 1 minus it")
    elif low >= 0 and high <= 100:
        values[finite] = 1 - values[finite] / 100
        notes.append(f"{found.loss}: more is better, in percent; its loss is 1 minus it over 100")
    else:
        values[finite] = -values[finite]
        notes.append(f"{found.loss}: more is better; its loss is its negative")
    return values, f"in {plain(found.loss)}", notes


def _statuses(table: Table, found: Columns, loss: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """How each run ended, (rows,)."""
    told = np.full(len(loss), "", dtype=object)
    if found.status is not None:
        told = statuses(table, found.status)
    lost, missing = np.isposinf(loss), np.isnan(loss)
    status = np.where(told == "", np.where(lost, "diverged", "done"), told)
    status = np.where((status == "done") & lost, "diverged", status)
    silent = (status == "done") & missing
    status = np.where(silent, "failed", status)
    counts = {
        "NaN or inf as a loss: diverged": lost & (told == ""),
        f"diverged by {found.status}": told == "diverged",
        f"unfinished by {found.status}: left out": told == "failed",
        "no loss: unfinished, left out": silent,
    }
    notes = [f"{int(of.sum())} row(s) {what}" for what, of in counts.items() if of.any()]
    return status, notes


def _placed(
    table: Table,
    found: Columns,
    numbered: dict[str, np.ndarray],
    label: np.ndarray,
    status: np.ndarray,
) -> None:
    """Raises InputError for a run with a result whose lr, axis value or label is missing."""
    lacking = {name: ~np.isfinite(values) for name, values in numbered.items()}
    lacking |= dict.fromkeys(found.group[:1], label == "")
    for name, missing in lacking.items():
        wrong = missing & (status != "failed")
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise table.error(
                row,
                name,
                f"is missing or no number, and the run has a result ({int(wrong.sum())} such rows)",
                "fill it in, or leave such rows out: hold a column at one value",
                cures=("hold",),
            )


def _seeds(table: Table, found: Columns) -> tuple[np.ndarray, list[str]]:
    """Seeds as whole numbers, (rows,). Other texts are numbered in the order of the file."""
    if found.seed is None:
        return np.zeros(len(table.frame), int), []
    cells = texts(table, found.seed)
    if (cells == "").any():
        row = int(np.flatnonzero(cells == "")[0])
        raise table.error(row, found.seed, "no seed is given", "fill it in, or name another column")
    codes, kinds = pd.factorize(cells)
    if all(str(kind).isdecimal() and len(str(kind)) < 16 for kind in kinds):
        return np.array([int(kind) for kind in kinds])[codes], []
    return codes, [f"{found.seed}: {len(kinds)} texts, numbered as seeds in the order of the file"]


def _loss_init(table: Table, found: Columns, asked: Asked, count: int) -> np.ndarray:
    """The loss at init, inf where it is not known, (rows,)."""
    if asked.loss_init is not None:
        return np.full(count, asked.loss_init)
    if found.loss_init is None:
        return np.full(count, np.inf)
    values = numbers(table, found.loss_init).values
    return np.where(np.isnan(values), np.inf, values)


def _check_size(rows: pd.DataFrame, found: Columns) -> None:
    """Raises InputError for a sweep without a result, and for more than memory or a page holds."""
    if not np.isfinite(rows["loss"].to_numpy(float)).any():
        raise InputError("no run has a finite loss", "name the column of the loss", cures=("loss",))
    parts = rows.groupby(["optimizer", "n"], sort=False, observed=True)
    rates, seeds = parts["log2_lr"].nunique(), parts["seed"].nunique()
    if (count := rows["n"].nunique()) > MOST_VALUES:
        raise InputError(
            f"column {found.axis!r} has {count:,} values, at most {MOST_VALUES} make an axis",
            "name another column, or round it",
            cures=("axis",),
        )
    if rates.max() > MOST_RATES:
        raise InputError(
            f"a curve has {rates.max():,} learning rates, at most {MOST_RATES:,} can be drawn",
            f"round column {found.lr!r}, for instance to three digits",
        )
    if (rates * seeds).max() > MOST_CELLS:
        raise InputError(
            f"a curve has {rates.max():,} learning rates and {seeds.max():,} seeds, too many to "
            "pair",
            "name a column with fewer seeds",
            cures=("seed",),
        )


def _taken(rows: pd.DataFrame, found: Columns) -> tuple[tuple[str, str], ...]:
    """What was taken for what, in words."""
    ns, lrs = rows["n"], 2.0 ** rows["log2_lr"].to_numpy(float)
    labels, seeds = list(pd.unique(rows["optimizer"])), rows["seed"].nunique()
    told = [
        ("axis", f"{found.axis}, {ns.nunique()} values from {ns.min()} to {ns.max()}"),
        ("lr", f"{found.lr}, {rows['log2_lr'].nunique()} values from {lrs.min():.3g} to "
               f"{lrs.max():.3g}"),
        ("loss", found.loss),
        ("label", f"{' and '.join(found.group) or 'no column'}: {listed(labels, 8)}"),
        ("seed", f"{found.seed or 'no column'}: {seeds} seed{'s' if seeds > 1 else ''}"),
    ]  # fmt: skip
    more = {"status": found.status, "progress": found.progress, "loss at init": found.loss_init}
    told += [(what, name) for what, name in more.items() if name]
    if found.together:
        told.append(("with the axis", f"{', '.join(found.together)} change together with it"))
    left = [name for name in found.others if name not in found.together]
    return (*told, ("not read", listed(left))) if left else tuple(told)
