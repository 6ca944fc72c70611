"""Cells -> numbers and words; a cell that is neither is an error with its place."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from hptransfer.foreign.table import Table

MISSING = {"", "na", "n/a", "null", "none", "-", "--"}
_NAN = {"nan", "-nan", "+nan"}
_INF = {"inf", "+inf", "infinity", "+infinity"}
_POWER = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\^|\*\*)\s*([+-]?\d+(?:\.\d+)?)")
_UNIT = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([kmgbt])", re.IGNORECASE)
_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")

ENDED = {
    "done": {"done", "finished", "complete", "completed", "success", "succeeded", "ok", "false",
             "0", "0.0", "no"},
    "diverged": {"diverged", "diverge", "nan", "inf", "exploded", "true", "1", "1.0", "yes"},
    "failed": {"failed", "fail", "crashed", "killed", "error", "running", "pending", "preempted",
               "preempting", "pruned", "waiting", "queued", "aborted", "timeout", "cancelled",
               "canceled", "oom"},
}  # fmt: skip
"""How a run ended -> the words for it."""


@dataclass(frozen=True)
class Numbers:
    """A column as numbers: NaN where a cell is missing, inf for inf and for a NaN that was written.

    `notes`: rules that were used.
    """

    values: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> np.ndarray:
        return np.isnan(self.values)


def numbers(table: Table, column: str, *, units: bool = False) -> Numbers:
    """A column as numbers. Raises InputError for any other text.

    `units`: cells may end in k, M, B or T. A power such as 2^-7 is a number.
    """
    cells = table.frame[column]
    if is_bool_dtype(cells) or (not is_numeric_dtype(cells) and _has_bool(cells)):
        row = 0 if is_bool_dtype(cells) else int(np.flatnonzero(cells.map(_is_bool))[0])
        raise table.error(row, column, f"got {table.cell(row, column)}, needs a number", "map it")
    if is_numeric_dtype(cells):
        values = cells.to_numpy(float, na_value=np.nan)
        return Numbers(values)
    text = cells.astype("string").str.strip()
    missing = text.isna().to_numpy(bool) | text.str.lower().isin(MISSING).to_numpy(bool)
    values = pd.to_numeric(text, errors="coerce").to_numpy(float, na_value=np.nan)
    left = ~missing & np.isnan(values)
    notes = []
    if left.any():
        codes, kinds = pd.factorize(text[left])
        parse = _Parser(table, column, left, codes, units)
        values[left] = parse.all([str(kind) for kind in kinds])[codes]
        notes = parse.notes(text)
    values[missing] = np.nan
    return Numbers(values, tuple(notes))


def _is_bool(cell: object) -> bool:
    return isinstance(cell, bool)


def _has_bool(cells: "pd.Series[object]") -> bool:  # type: ignore[type-var]
    return cells.dtype == object and bool(cells.map(_is_bool).any())


class _Parser:
    """The cells of a column that are no plain numbers. `left`: which of its rows, (rows,)."""

    def __init__(
        self, table: Table, column: str, left: np.ndarray, codes: np.ndarray, units: bool
    ) -> None:
        self.table, self.column, self.units = table, column, units
        self.rows, self.codes = np.flatnonzero(left), codes
        self.seen: dict[str, int] = {}

    def all(self, kinds: list[str]) -> np.ndarray:
        return np.array([self._one(i, kind) for i, kind in enumerate(kinds)])

    def _one(self, i: int, kind: str) -> float:
        low = kind.lower()
        if low in _NAN or low in _INF:
            self._saw("nan", i)
            return np.inf
        if match := _POWER.fullmatch(kind):
            return float(match[1]) ** float(match[2])
        if self.units and (match := _UNIT.fullmatch(kind)):
            self._saw("unit", i)
            return float(match[1]) * _UNITS[match[2].lower()]
        if _COMMA.fullmatch(kind) and not (self.table.comma and _THOUSANDS.fullmatch(kind)):
            self._saw("comma", i)
            return float(kind.replace(",", "."))
        if _THOUSANDS.fullmatch(kind):
            raise self._error(
                i,
                "may hold a decimal comma or separate thousands",
                "write the number without a comma, or separate columns by semicolons",
            )
        raise self._error(
            i, "is no number", "correct the cell, leave it empty, or name another column"
        )

    def _saw(self, what: str, i: int) -> None:
        self.seen.setdefault(what, int(self.rows[np.argmax(self.codes == i)]))

    def _error(self, i: int, message: str, hint: str) -> Exception:
        row = int(self.rows[np.argmax(self.codes == i)])
        return self.table.error(
            row, self.column, f"{self.table.cell(row, self.column)} {message}", hint
        )

    def notes(self, text: "pd.Series[str]") -> list[str]:
        """The rules in words. Raises InputError where a column mixes commas or units with none."""
        told = []
        if "comma" in self.seen:
            if (points := text.str.contains(".", regex=False).fillna(False)).any():
                self._mixed(points, "comma", "a decimal comma here and a decimal point")
            told.append(f"{self.column}: a comma in a number is a decimal comma")
        if "unit" in self.seen:
            plain = text.str.fullmatch(r"[+-]?\d+(\.\d+)?").fillna(False)
            if plain.any():
                self._mixed(plain, "unit", "a unit here and none")
            told.append(f"{self.column}: k, M, B and T are thousands to trillions")
        return told

    def _mixed(self, others: "pd.Series[bool]", what: str, told: str) -> None:
        row, other = self.seen[what], int(np.flatnonzero(others.to_numpy(bool))[0])
        raise self.table.error(
            row,
            self.column,
            f"{self.table.cell(row, self.column)} has {told} in {self.table.word} "
            f"{self.table.line[other]} ({self.table.cell(other, self.column)})",
            "write all cells of the column alike",
        )


def statuses(table: Table, column: str) -> np.ndarray:
    """How each run ended: done, diverged, failed, or "" where the cell is missing, (rows,).

    Raises InputError for a word that is not known.
    """
    text = table.frame[column].astype("string").str.strip().str.lower()
    codes, kinds = pd.factorize(text)
    words = {word: status for status, own in ENDED.items() for word in own}
    found = []
    for i, kind in enumerate(kinds):
        if str(kind) not in words and str(kind) not in MISSING:
            row = int(np.argmax(codes == i))
            known = "; ".join(f"{name}: {', '.join(sorted(own))}" for name, own in ENDED.items())
            raise table.error(
                row, column, f"{table.cell(row, column)} does not say how a run ended", known
            )
        found.append(words.get(str(kind), ""))
    return np.array([*found, ""], dtype=object)[codes]


def texts(table: Table, column: str) -> np.ndarray:
    """A column as labels, "" where a cell is missing, (rows,). 1.0 in a column of numbers is 1."""
    cells = table.frame[column]
    codes, kinds = pd.factorize(cells)
    named = [_label(kind) for kind in kinds]
    return np.array([*named, ""], dtype=object)[codes]


def _label(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = " ".join(str(value).split())
    return repr(text) if text.startswith("_") else text  # matplotlib hides a label that begins so
