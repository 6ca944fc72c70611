"""One line of a records file: a RunRecord as JSON, and the row of the frame that it becomes."""

import json
import marshal
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hptransfer.registry import InputError
from hptransfer.spec import SCHEMA, RunRecord, RunSpec, canonical, digest

_LOSSES = ("loss", "train_loss", "train_mean", "loss_init")
_DEVICE = {"device": "", "lanes": 1, "threads": 1}
_POINT = ("width", "batch", "steps", "log2_lr", "seed")
_FREE = ("log2_lr", "seed")  # what may differ within a cell
_SHARED = frozenset(f.name for f in fields(RunSpec)) - set(_FREE)
_NO_REFERENCES = 2  # marshal's version whose bytes are of the values alone
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("key", "cell", "status", "error", "device"), "str"),
    **dict.fromkeys(("spec", "env", "curve", "probes"), "object"),
    **dict.fromkeys(("width", "batch", "steps", "seed", "tokens"), "int64"),
    **dict.fromkeys(("peak_memory", "lanes", "threads"), "int64"),
    **dict.fromkeys(("log2_lr", *_LOSSES, "seconds", "flops", "finished"), "float64"),
}
_KINDS = {"str": str, "int64": int, "float64": (int, float), "object": object}
_NAMED = 5  # damaged lines of a file whose numbers are told

Row = dict[str, Any]
Damage = tuple[int, str]  # the number of a line that is no record, and why


class DamagedError(ValueError):
    """Why a line is no record."""


class LeftOut(UserWarning):
    """Damaged lines of a records file were left out: one line, with what to do."""


def encode(record: RunRecord) -> bytes:
    """The line, with its end."""
    spec = record.spec
    line = {
        "schema": SCHEMA,
        "key": spec.key,
        "cell": spec.cell,
        "spec": spec.to_json(),
        **{f.name: getattr(record, f.name) for f in fields(record) if f.name != "spec"},
        "curve": list(zip(*record.curve, strict=True)) or [[], []],  # read faster than pairs
    }
    return (json.dumps(_nulls(line), separators=(",", ":"), allow_nan=False) + "\n").encode()


def _nulls(value: Any) -> Any:
    """JSON has no infinity and no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class _Cell:
    """What the specs of a cell share, and the parts of their canonical text about lr and seed."""

    spec: dict[str, Any]
    cell: str
    text: tuple[str, str, str]

    def key(self, log2_lr: float, seed: int) -> str:
        """RunSpec.key at this lr and seed."""
        before, between, after = self.text
        return digest(f'{{{before},"log2_lr":{log2_lr!r},{between},"seed":{seed!r},{after}}}')


class Reader:
    """Lines -> rows; a line that is no record is left out and named.

    The specs of a cell differ in lr and seed alone, so the rest is hashed and kept once.
    """

    def __init__(self) -> None:
        self._cells: dict[bytes, _Cell] = {}

    def read(self, path: Path, lines: list[bytes], before: int) -> tuple[list[Row], list[Damage]]:
        """Rows, and what was left out; `before` lines of the file came earlier.

        Blank lines are passed over. Raises InputError for a newer schema.
        """
        rows: list[Row] = []
        damage: list[Damage] = []
        for number, record in _decoded(lines, before):
            try:
                if isinstance(record, DamagedError):
                    raise record
                if not isinstance(record, dict):
                    raise DamagedError("not an object")
                if record.get("schema", SCHEMA) != SCHEMA:
                    raise newer(f"{path}:{number}", record["schema"])
                rows.append(self._row(record))
            except DamagedError as error:
                damage.append((number, str(error)))
        return rows, damage

    def _row(self, record: dict[str, Any]) -> Row:
        """The row of COLUMNS. Raises DamagedError."""
        import numpy as np  # at once with pandas, which `--help` need not wait for

        try:
            spec, env = self._spec(record), record["env"]
            row = {
                **record,
                "spec": spec,
                **{name: spec[name] for name in _POINT},
                "tokens": spec["batch"] * spec["steps"] * spec["model"].get("context", 1),
                "curve": np.array(record["curve"], dtype=np.float64).reshape(2, -1).T,
                **{name: env.get(name, default) for name, default in _DEVICE.items()},
            }
            for name in _LOSSES:
                if row[name] is None:
                    diverged = name == "loss" and row["status"] == "diverged"
                    row[name] = math.inf if diverged else math.nan
            for name, dtype in COLUMNS.items():
                if not isinstance(row[name], _KINDS[dtype]):
                    raise DamagedError(f"{name} is {row[name]!r:.40}")
        except KeyError as error:
            raise DamagedError(f"no field {error}") from None
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DamagedError(str(error)) from None
        return {name: row[name] for name in COLUMNS}

    def _spec(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record's spec, whose key and cell are those of the record. Raises DamagedError."""
        rest = record["spec"]
        if not isinstance(rest, dict):
            raise DamagedError(f"spec is {rest!r:.40}")
        point = {name: rest.pop(name, None) for name in _FREE}
        if type(point["log2_lr"]) not in (int, float) or type(point["seed"]) is not int:
            raise DamagedError("spec has no numbers for log2_lr and seed")
        # Bytes tell 1 from 1.0 and from True, as keys do and == does not.
        exact = marshal.dumps(rest, _NO_REFERENCES)
        found = self._cells.get(exact)
        if found is None:
            if rest.keys() != _SHARED:
                raise DamagedError("spec has not the fields of a run")
            found = self._cells[exact] = _Cell(rest, digest(canonical(rest)), _around(rest))
        for name, own in (("key", found.key(**point)), ("cell", found.cell)):
            if record[name] != own:
                raise DamagedError(f"{name} is {record[name]!r:.40}, that of the spec is {own}")
        return {**found.spec, **point}


def _around(rest: dict[str, Any]) -> tuple[str, str, str]:
    """The canonical text of a spec before log2_lr, from there to seed, and after that."""
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for name, value in rest.items():
        parts[sum(name > free for free in _FREE)][name] = value
    before, between, after = (canonical(part)[1:-1] for part in parts)
    return before, between, after


def _decoded(lines: list[bytes], before: int) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of each line that is not blank, DamagedError where it has none."""
    numbered = [(before + i, line) for i, line in enumerate(lines, 1) if not line.isspace()]
    try:
        records = json.loads(b"[" + b",".join(line for _, line in numbered) + b"]")
    except (ValueError, RecursionError):
        records = []
    if len(records) != len(numbered):
        records = [_alone(line) for _, line in numbered]
    yield from ((number, record) for (number, _), record in zip(numbered, records, strict=True))


def _alone(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return DamagedError(str(error))


def left_out(path: Path, damage: list[Damage]) -> str:
    """One line for the user: how many lines of a file were left out, and what to do."""
    first, why = damage[0]
    cause = f"line {first}: {why}"
    if len(damage) == 1:
        return (
            f"{path}: left out 1 damaged record line ({cause}); "
            "put the file back as it was, or delete that line: its run will be trained again"
        )
    numbers = ", ".join(str(number) for number, _ in damage[:_NAMED])
    numbers += ", ..." if len(damage) > _NAMED else ""
    return (
        f"{path}: left out {len(damage)} damaged record lines ({numbers}; {cause}); "
        "put the file back as it was, or delete those lines: their runs will be trained again"
    )


def newer(place: str, schema: Any) -> InputError:
    return InputError(
        f"{place}: got schema {schema}, this version reads {SCHEMA}",
        "it was written by another version of hptransfer: pip install --upgrade hptransfer",
    )
