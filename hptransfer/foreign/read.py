"""A file, its bytes, or an Optuna storage -> a Table."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hptransfer.errors import InputError, suggest
from hptransfer.foreign.table import Table
from hptransfer.foreign.text import read_text

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STDIN = "-"
TABS = (".tsv", ".tab")


def read(path: str) -> Table:
    """The table in a file. Raises InputError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}", "name a CSV, TSV, JSON lines or Parquet file, or - for it"
        ) from None
    except ValueError:
        raise InputError("the path holds a zero byte", "name a file") from None
    return of_bytes(data, path, tabs=path.lower().endswith(TABS))


def of_bytes(data: bytes, source: str, *, tabs: bool = False) -> Table:
    """The table of a file's bytes, whose format is seen in them."""
    if data[:4] == b"PAR1":
        return _parquet(data, source)
    packed = {b"\x1f\x8b": "gzip -d", b"PK": "unzip"}
    if tool := next((tool for start, tool in packed.items() if data.startswith(start)), ""):
        raise InputError(f"{source}: is a compressed file", f"unpack it first: {tool}")
    return read_text(data, source, tabs=tabs)


def _parquet(data: bytes, source: str) -> Table:
    try:
        frame = pd.read_parquet(io.BytesIO(data))
    except ImportError:
        raise InputError(
            f"{source}: Parquet needs the package pyarrow, which is not installed here",
            "pip install 'hptransfer[parquet]', or give the same table as CSV",
        ) from None
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(
            f"{source}: cannot be read as Parquet ({cause})", "write the file again"
        ) from None
    frame = frame.reset_index(drop=frame.index.name is None)
    frame.columns = [str(name) for name in frame.columns]
    for name in frame.columns:
        nested = frame[name].map(_is_nested).to_numpy(bool) if frame[name].dtype == object else []
        if any(nested):
            raise InputError(
                f"{source}, row {int(np.argmax(nested)) + 1}, column {name!r}: holds a table or a "
                "list, not a value",
                "write its fields as columns of their own",
            )
    return Table.of(frame, source, np.arange(1, len(frame) + 1), word="row")


def _is_nested(cell: object) -> bool:
    return isinstance(cell, dict | list | np.ndarray)


def is_storage(source: str) -> bool:
    """Whether a source is the URL of a database."""
    return "://" in source


def trials(storage: "BaseStorage", place: str, study: str | None) -> Table:
    """The trials of an Optuna study. `place`: of the storage, for messages. `study`: its name."""
    names = sorted(each.study_name for each in storage.get_all_studies())
    if not names:
        raise InputError(f"{place}: holds no study", "name another storage")
    if study is None and len(names) > 1:
        raise InputError(
            f"{place}: holds {len(names)} studies",
            f"name one of {_listed(names)}",
            cures=("study",),
        )
    name = names[0] if study is None else study
    if name not in names:
        raise InputError(
            f"{place}: has no study {name!r}", suggest(name, names) or f"it has {_listed(names)}"
        )
    number = storage.get_study_id_from_name(name)
    found = storage.get_all_trials(number, deepcopy=False)
    if not found:
        raise InputError(f"{place}: study {name!r} has no trials", "name another study")
    if len(storage.get_study_directions(number)) > 1:
        raise InputError(f"{place}: study {name!r} has several values", "name another study")
    frame = pd.DataFrame(
        [
            {
                "number": each.number,
                "state": each.state.name.lower(),
                **{str(key): value for key, value in each.user_attrs.items()},
                **each.params,
                "value": _value(each.values),
            }
            for each in found
        ]
    )
    up = storage.get_study_directions(number)[0].name == "MAXIMIZE"
    table = Table.of(frame, f"{place}, study {name}", frame["number"].to_numpy(int), word="trial")
    return replace(table, maximised="value" if up else "")


def _value(values: Sequence[float] | None) -> float | None:
    return values[0] if values else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" and others" if len(names) > 10 else "")
