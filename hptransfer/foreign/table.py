"""A table of runs as its file has it, with the place of every row."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pandas as pd

from hptransfer.errors import InputError, quoted


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one source or of several.

    `frame`: cells as they were read: a number, a text, or a missing value. `source`: which of
    `sources` a row comes from, (rows,). `line`: where it stands there, (rows,). `word`: what a
    place in a source is called, `line` or `trial`. `comma`: columns that a comma separates, so that
    one in a number is no decimal comma for certain. `maximised`: a column of which more is better.
    `notes`: what was done to read it.
    """

    frame: pd.DataFrame
    sources: tuple[str, ...]
    source: np.ndarray
    line: np.ndarray
    word: str = "line"
    comma: bool = False
    maximised: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)

    @classmethod
    def of(cls, frame: pd.DataFrame, source: str, line: np.ndarray, *, word: str = "line") -> Self:
        """The table of one source."""
        return cls(frame, (source,), np.zeros(len(frame), int), line, word)

    @property
    def name(self) -> str:
        """The sources in words."""
        return ", ".join(self.sources)

    def where(self, row: int, column: str = "") -> str:
        """`runs.csv, line 7, column 'lr'`."""
        place = f"{self.sources[self.source[row]]}, {self.word} {self.line[row]}"
        return f"{place}, column {column!r}" if column else place

    def error(
        self, row: int, column: str, message: str, hint: str, *, cures: tuple[str, ...] = ()
    ) -> InputError:
        """The error of one cell."""
        return InputError(f"{self.where(row, column)}: {message}", hint, cures=cures)

    def cell(self, row: int, column: str) -> str:
        """A cell for a message."""
        cell = self.frame[column].iloc[row]
        return quoted(cell.item() if isinstance(cell, np.generic) else cell)

    def only(self, kept: np.ndarray) -> Self:
        """These rows, by a mask or by their numbers."""
        frame = self.frame[kept] if kept.dtype == bool else self.frame.iloc[kept]
        return replace(
            self,
            frame=frame.reset_index(drop=True),
            source=self.source[kept],
            line=self.line[kept],
        )

    def noted(self, *notes: str) -> Self:
        """The table with more notes."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note)))


def joined(tables: Sequence[Table]) -> Table:
    """Several tables under each other; a column that one lacks is missing in its rows."""
    first = tables[0]
    if len(tables) == 1:
        return first
    starts = np.cumsum([0, *(len(table.sources) for table in tables)])
    return Table(
        pd.concat([table.frame for table in tables], ignore_index=True),
        tuple(name for table in tables for name in table.sources),
        np.concatenate([t.source + start for t, start in zip(tables, starts, strict=False)]),
        np.concatenate([table.line for table in tables]),
        first.word,
        any(table.comma for table in tables),
        next((table.maximised for table in tables if table.maximised), ""),
        tuple(dict.fromkeys(note for table in tables for note in table.notes)),
    )
