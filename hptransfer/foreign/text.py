"""Separated values and JSON as text -> a Table, or one line that says what is wrong and where."""

import csv
import io
import json
import re
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from hptransfer.errors import InputError, quoted
from hptransfer.foreign.table import Table

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_DEEPEST = 8  # tables within tables of a JSON object


def decoded(data: bytes, source: str) -> tuple[str, str]:
    """The text of a file, and a note where a byte order mark says its encoding."""
    mark = next((mark for mark in _BOMS if data.startswith(mark)), b"")
    encoding = _BOMS.get(mark, "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{source}, line {line}: no {encoding} text at byte {error.start}",
            "save the file as UTF-8, for instance: iconv -f latin1 -t utf-8",
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{source}, line {line}: holds a zero byte, so it is no text",
            "give CSV, TSV, JSON lines or Parquet",
        )
    note = f"{source}: a byte order mark, read as {encoding.removesuffix('-sig')}" if mark else ""
    return text.replace("\r\n", "\n").replace("\r", "\n"), note


def read_text(data: bytes, source: str, *, tabs: bool = False) -> Table:
    """The table of a text file. `tabs`: its name says that tabs separate its columns."""
    text, note = decoded(data, source)
    start = text.lstrip()[:200].lower()
    if not start:
        raise InputError(f"{source}: is empty", "give a table with one line per run")
    if start.startswith("<"):
        raise InputError(
            f"{source}, line 1: this is a page of HTML or XML, not a table",
            "download the file itself: on a web site that is the link named raw, or export",
        )
    table = read_json(text, source) if start[0] in "[{" else read_separated(text, source, tabs=tabs)
    return table.noted(note)


def read_separated(text: str, source: str, *, tabs: bool = False) -> Table:
    """CSV, TSV, or values between semicolons or bars. The first line names the columns."""
    lines = text.split("\n", 1000)
    first = next(i for i, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    separator = "\t" if tabs else _separator(lines[first])
    header = next(csv.reader([lines[first]], delimiter=separator))
    _check_header(header, source, first + 1)
    body = text if not first else text.split("\n", first)[first]
    frame = _parsed(body, separator, source, first)
    lines_at = first + 2 + np.arange(len(frame))
    if '"' in text and body.rstrip("\n").count("\n") != len(frame):
        lines_at = first + _lines(body, separator)[: len(frame)]
    table = Table.of(frame, source, lines_at)
    blank = np.asarray(frame.isna().all(axis=1), bool)
    if blank.all():
        raise InputError(f"{source}: has column names and no rows", "give one line per run")
    kept = table.only(~blank)
    notes = [f"{source}: the first {first} line(s) are comments"] if first else []
    inside = int(blank[: np.flatnonzero(~blank)[-1]].sum())
    notes += [f"{source}: {inside} empty line(s)"] if inside else []
    return Table(**{**vars(kept), "comma": separator == ","}).noted(*notes)


def _separator(line: str) -> str:
    """The one that a line of names holds most often; a comma where it holds none."""
    counts = Counter(c for c in line if c in SEPARATORS)
    return max(SEPARATORS, key=lambda each: counts[each])


def _check_header(header: list[str], source: str, line: int) -> None:
    """Raises InputError for a name that is there twice or missing, and for a line of numbers."""
    names = [name.strip() for name in header]
    where = f"{source}, line {line}"
    if twice := [name for name, count in Counter(names).items() if count > 1 and name]:
        at = [i + 1 for i, name in enumerate(names) if name == twice[0]]
        raise InputError(
            f"{where}: the columns {' and '.join(map(str, at))} are both named {twice[0]!r}",
            "rename one of them",
        )
    if sum(not name for name in names) > 1:
        raise InputError(f"{where}: several columns have no name", "name every column")
    if all(NUMBER.fullmatch(name) for name in names):
        raise InputError(
            f"{where}: holds numbers and no names of columns",
            "put a line such as width,lr,seed,loss before it",
        )


def _parsed(body: str, separator: str, source: str, before: int) -> pd.DataFrame:
    """The cells: a column of numbers as numbers, any other as text. `before`: lines left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(body),
                sep=separator,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InputError(
            f"{source}{_long_line(body, separator, before)}", "quote a cell that holds a separator"
        ) from error
    except pd.errors.EmptyDataError:
        raise InputError(f"{source}: has no columns", "give one line per run") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    unnamed = [name for name in frame.columns if name.startswith("Unnamed: ")]
    return frame.drop(columns=unnamed)


def _long_line(body: str, separator: str, before: int) -> str:
    """Which line has more cells than there are names."""
    reader = csv.reader(io.StringIO(body), delimiter=separator)
    names = next(reader)
    for cells in reader:
        if len(cells) > len(names):
            line = before + reader.line_num
            return f", line {line}: {len(cells)} cells, but there are {len(names)} columns"
    return ": a quote is opened and not closed"


def _lines(body: str, separator: str) -> np.ndarray:
    """The line at which each row begins, where a quoted cell may hold line ends, (rows,)."""
    reader = csv.reader(io.StringIO(body), delimiter=separator)
    ends = np.array([reader.line_num for _ in reader])
    return ends[:-1] + 1


def read_json(text: str, source: str) -> Table:
    """JSON lines, a JSON list of objects, or one object; tables in it become columns with dots."""
    entries = _entries(text, source)
    for line, entry in entries:
        if not isinstance(entry, dict):
            raise InputError(
                f"{source}, line {line}: got {quoted(entry)}, needs an object such as "
                '{"width": 256, "lr": 0.001, "loss": 3.2}',
                "write one object per run",
            )
    rows = [_flat(entry) for _, entry in entries]
    return Table.of(pd.DataFrame(rows), source, np.array([line for line, _ in entries]))


def _entries(text: str, source: str) -> list[tuple[int, Any]]:
    """(line, value) of each run."""
    found: list[tuple[int, Any]] = []
    if text.lstrip().startswith("["):
        listed = _loaded(text, source, 1)
        return [(i + 1, entry) for i, entry in enumerate(listed)]
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            found.append((number, _loaded(line, source, number)))
    return found


def _loaded(text: str, source: str, line: int) -> Any:
    try:
        return json.loads(text, parse_constant=str, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source}, line {line + error.lineno - 1}, column {error.colno}: {error.msg}",
            "give JSON lines (one object per line), or one list of objects",
        ) from None
    except _TwiceError as error:
        raise InputError(
            f"{source}, line {line}: an object has the key {str(error)!r} twice", "rename one"
        ) from None
    except RecursionError:
        raise InputError(f"{source}, line {line}: nested too deep", "write flat objects") from None


class _TwiceError(Exception):
    """A key that an object has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = Counter(key for key, _ in pairs)
    for key, count in keys.items():
        if count > 1:
            raise _TwiceError(key)
    return dict(pairs)


def _flat(entry: dict[str, Any], start: str = "", depth: int = 0) -> dict[str, Any]:
    """Tables within tables as columns with dots; a list stays a text."""
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        name = f"{start}{key}"
        if isinstance(value, dict) and depth < _DEEPEST:
            flat |= _flat(value, f"{name}.", depth + 1)
        else:
            flat[name] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat
