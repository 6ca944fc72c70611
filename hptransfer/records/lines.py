"""One line of a records file: a RunRecord as JSON, and its row in the frame."""

import json
import marshal
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from hptransfer import spec as specs
from hptransfer.records.damage import Damage, DamagedError, newer
from hptransfer.spec import (
    COUNT,
    FIRST_SCHEMA,
    LARGEST,
    MOST,
    SCHEMA,
    Bounds,
    RunRecord,
    canonical,
    digest,
)

if TYPE_CHECKING:
    import numpy as np

_FREE = ("log2_lr", "seed")  # fields that differ within a cell
_NO_REFERENCES = 2  # version of marshal whose bytes depend on the values alone
_REAL = (int, float)
_LOSSES = ("loss", "train_loss", "train_mean", "loss_init")
_LOSS: Bounds = (_REAL, 0, LARGEST)
_MEASURED: dict[str, Bounds] = {
    "peak_memory": ((int,), 0, MOST),
    "seconds": (_REAL, 0, 1e9),  # 30 years
    "flops": (_REAL, 0, 1e36),
    "finished": (_REAL, 0, 2**33),  # the dates of pandas
    "lanes": COUNT,
    "threads": COUNT,
}
_ALL_LOSSES: dict[str, Bounds] = dict.fromkeys(_LOSSES, _LOSS)
_POINT = {name: specs.BOUNDS[name] for name in _FREE}
_PLAIN = {int, float, type(None)}
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character; UTF-8 has none


class Row(NamedTuple):
    """A row of the frame; a tuple takes less memory than a dictionary.

    Fields and units as in `RunRecord` and `RunSpec`; `tokens`: tokens or examples of the training.
    """

    key: str
    cell: str
    status: str
    error: str
    device: str
    spec: dict[str, Any]
    env: dict[str, Any]
    curve: "np.ndarray"
    probes: dict[str, Any]
    width: int
    batch: int
    steps: int
    seed: int
    tokens: int
    peak_memory: int
    lanes: int
    threads: int
    log2_lr: float
    loss: float
    train_loss: float
    train_mean: float
    loss_init: float
    seconds: float
    flops: float
    finished: float


_DTYPES = {str: "str", int: "int64", float: "float64"}
COLUMNS = {name: _DTYPES.get(kind, "object") for name, kind in Row.__annotations__.items()}


def encode(record: RunRecord) -> bytes:
    """The line of a record with its line end, UTF-8."""
    spec = record.spec
    line = {
        "schema": SCHEMA,
        "key": spec.key,
        "cell": spec.cell,
        "spec": spec.to_json(),
        **{f.name: getattr(record, f.name) for f in fields(record) if f.name != "spec"},
        # Two lists read faster than pairs.
        "curve": list(zip(*record.curve, strict=True)) or [[], []],
    }
    return (json.dumps(_nulls(line), separators=(",", ":"), allow_nan=False) + "\n").encode()


def _nulls(value: Any) -> Any:
    """A value with null in place of infinity and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class _Cell:
    """The common part of the specs of a cell.

    `text`: their canonical JSON before, between and after lr and seed.
    """

    spec: dict[str, Any]
    cell: str
    tokens: int
    text: tuple[str, str, str]

    def key(self, log2_lr: float, seed: int) -> str:
        """RunSpec.key at this lr and seed."""
        before, between, after = self.text
        return digest(f'{{{before},"log2_lr":{log2_lr!r},{between},"seed":{seed!r},{after}}}')


def _cell(rest: dict[str, Any]) -> _Cell:
    """The cell of a spec without lr and seed."""
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for name, value in rest.items():
        parts[sum(name > free for free in _FREE)][name] = value
    before, between, after = (canonical(part)[1:-1] for part in parts)
    return _Cell(rest, digest(canonical(rest)), specs.tokens(rest), (before, between, after))


class Reader:
    """Lines -> rows of one schema, without the lines that are no records.

    The specs of a cell differ in lr and seed alone, so the reader checks and hashes the rest once.
    """

    def __init__(self, schema: int = SCHEMA) -> None:
        self._schema = schema
        self._cells: dict[bytes, _Cell] = {}
        self._versions: dict[str, str] = {}

    def read(self, path: Path, lines: list[bytes], before: int) -> tuple[list[Row], list[Damage]]:
        """Rows and damaged lines; `before`: number of the file's earlier lines.

        Skips blank lines and those of the other schema that this version reads. Raises InputError
        for a line of a schema that it does not read.
        """
        rows: list[Row] = []
        damage: list[Damage] = []
        for number, record in _decoded(lines, before):
            try:
                if isinstance(record, DamagedError):
                    raise record
                if type(record) is not dict:
                    raise DamagedError("not an object")
                schema = record.get("schema", SCHEMA)
                if not specs.fits(schema, COUNT):
                    raise DamagedError(f"schema is {schema!r:.40}")
                if schema not in (FIRST_SCHEMA, SCHEMA):
                    raise newer(f"{path}:{number}", schema)
                if schema == self._schema:
                    rows.append(self._row(record))
            except DamagedError as error:
                damage.append((number, str(error)))
        return rows, damage

    def _row(self, record: dict[str, Any]) -> Row:
        """Raises DamagedError."""
        try:
            cell, log2_lr, seed = self._identity(record)
            env, spec = self._environment(record["env"]), cell.spec
            lanes, threads = env.get("lanes", 1), env.get("threads", 1)
            _check_numbers({**record, "lanes": lanes, "threads": threads}, _MEASURED)
            loss, train_loss, train_mean, loss_init = _losses(record)
            return Row(
                key=record["key"],
                cell=cell.cell,
                status=record["status"],
                error=_text("error", record["error"]),
                device=_text("device", env.get("device", "")),
                spec={**spec, "log2_lr": log2_lr, "seed": seed},
                env=env,
                curve=_curve(record["curve"]),
                probes=_table("probes", record["probes"]),
                width=spec["width"],
                batch=spec["batch"],
                steps=spec["steps"],
                seed=seed,
                tokens=cell.tokens,
                peak_memory=record["peak_memory"],
                lanes=lanes,
                threads=threads,
                log2_lr=log2_lr,
                loss=loss,
                train_loss=train_loss,
                train_mean=train_mean,
                loss_init=loss_init,
                seconds=record["seconds"],
                flops=record["flops"],
                finished=record["finished"],
            )
        except KeyError as error:
            raise DamagedError(f"no field {error}") from None
        except (ValueError, OverflowError, RecursionError) as error:
            raise DamagedError(str(error)) from None

    def _identity(self, record: dict[str, Any]) -> tuple[_Cell, float, int]:
        """Cell, log2 lr and seed of a record. Raises DamagedError where a key does not match."""
        rest = _table("spec", record["spec"])
        log2_lr, seed = rest.pop("log2_lr", None), rest.pop("seed", None)
        # 1, 1.0 and True have different bytes, as they have different keys; == calls them equal.
        exact = marshal.dumps(rest, _NO_REFERENCES)
        cell = self._cells.get(exact)
        if rest.get("schema") != self._schema:
            raise DamagedError(f"the spec's schema is {rest.get('schema')!r:.40}")
        point = {"log2_lr": log2_lr, "seed": seed}
        if cell is None:
            if why := specs.fault({**rest, **point}):
                raise DamagedError(why)
            cell = self._cells[exact] = _cell(rest)
        _check_numbers(point, _POINT)
        key = cell.key(log2_lr, seed)
        if record["key"] != key:
            raise DamagedError(f"key is {record['key']!r:.40}, that of the spec is {key}")
        if record["cell"] != cell.cell:
            raise DamagedError(f"cell is {record['cell']!r:.40}, that of the spec is {cell.cell}")
        return cell, log2_lr, seed

    def _environment(self, env: Any) -> dict[str, Any]:
        """`env` after a check of the fields that a report shows. Raises DamagedError."""
        versions = _table("versions", _table("env", env).get("versions", {}))
        if versions != self._versions:
            for name, value in versions.items():
                _text(f"versions.{_text('versions', name)}", value)
            self._versions = versions
        if "versions" in env:
            env["versions"] = self._versions  # rows share one dictionary
        if env.get("git") is not None:
            _text("git", env["git"])
        return env


def _wrong(name: str, value: Any) -> NoReturn:
    raise DamagedError(f"{name} is {value!r:.40}")


def _table(name: str, value: Any) -> dict[str, Any]:
    return value if type(value) is dict else _wrong(name, value)


def _text(name: str, value: Any) -> str:
    if type(value) is not str or not (value.isascii() or _SURROGATE.search(value) is None):
        _wrong(name, value)
    return value


def _check_numbers(values: dict[str, Any], bounds: dict[str, Bounds]) -> None:
    for name, (kinds, least, most) in bounds.items():
        value = values[name]
        if type(value) not in kinds or not least <= value <= most:
            _wrong(name, value)


def _losses(record: dict[str, Any]) -> tuple[float, ...]:
    """The _LOSSES in nats. A `done` run has them all, a diverged one has no final loss."""
    status, losses = record["status"], [record[name] for name in _LOSSES]
    if status == "done":
        _check_numbers(record, _ALL_LOSSES)
        return tuple(losses)
    if status not in ("diverged", "failed"):
        _wrong("status", status)
    numbers = {name: x for name, x in zip(_LOSSES, losses, strict=True) if x is not None}
    _check_numbers(numbers, dict.fromkeys(numbers, _LOSS))
    if status == "diverged":
        if "loss" in numbers:
            _wrong("loss", numbers["loss"])
        numbers["loss"] = math.inf
    return tuple(numbers.get(name, math.nan) for name in _LOSSES)


def _curve(value: Any) -> "np.ndarray":
    """Steps and losses as an array (points, 2), NaN for null."""
    import numpy as np  # here, because `--help` must not wait for it

    curve = np.array(value)
    if curve.dtype.kind not in "if":
        parts = value if type(value) is list and all(type(p) is list for p in value) else [[value]]
        if not {type(item) for part in parts for item in part} <= _PLAIN:
            _wrong("curve", value)
        curve = np.array(value, dtype=np.float64)
    if curve.ndim != 2 or len(curve) != 2:
        _wrong("curve", value)
    if curve.size and (np.fmin.reduce(curve, None) < 0 or np.fmax.reduce(curve, None) > LARGEST):
        _wrong("curve", value)
    return curve.astype(np.float64, copy=False).T


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _decoded(lines: list[bytes], before: int) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of each line that is not blank; for other text a DamagedError."""
    pairs = [(before + i, line) for i, line in enumerate(lines, 1) if not line.isspace()]
    try:
        text = b"[" + b",".join(line for _, line in pairs) + b"]"
        records = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        records = []
    if len(records) != len(pairs):
        records = [_alone(line) for _, line in pairs]
    yield from ((number, record) for (number, _), record in zip(pairs, records, strict=True))


def _alone(line: bytes) -> Any:
    try:
        return _DECODER.decode(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return DamagedError(str(error))
