"""One line of a records file: a RunRecord as JSON, and the row of the frame that it becomes."""

import contextlib
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from hptransfer.errors import InputError
from hptransfer.spec import SCHEMA, RunRecord

_LOSSES = ("loss", "train_loss", "train_mean", "loss_init")
_DEVICE = {"device": "", "lanes": 1, "threads": 1}
_POINT = ("width", "batch", "steps", "log2_lr", "seed")
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("key", "cell", "status", "error", "device"), "str"),
    **dict.fromkeys(("spec", "env", "curve", "probes"), "object"),
    **dict.fromkeys(("width", "batch", "steps", "seed", "tokens"), "int64"),
    **dict.fromkeys(("peak_memory", "lanes", "threads"), "int64"),
    **dict.fromkeys(("log2_lr", *_LOSSES, "seconds", "flops", "finished"), "float64"),
}
_KINDS = {"str": str, "int64": int, "float64": (int, float), "object": object}


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


def row(record: Any, place: str) -> dict[str, Any]:
    """The row of COLUMNS. Raises InputError for a damaged line or a newer schema."""
    import numpy as np  # at once with pandas, which `--help` need not wait for

    if not isinstance(record, dict):
        raise _damaged(place, "not an object")
    if record.get("schema", SCHEMA) != SCHEMA:
        raise newer(place, record["schema"])
    try:
        spec, env = record["spec"], record["env"]
        row = {
            **record,
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
                raise TypeError(f"{name} is {row[name]!r:.40}")
    except KeyError as error:
        raise _damaged(place, f"no field {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise _damaged(place, str(error)) from None
    return {name: row[name] for name in COLUMNS}


def decode(path: Path, lines: list[bytes], before: int) -> list[tuple[Any, int]]:
    """Records with their line numbers; blank lines are passed over. Raises InputError."""
    numbered = [(line, before + i) for i, line in enumerate(lines, 1) if not line.isspace()]
    with contextlib.suppress(ValueError):
        records = json.loads(b"[" + b",".join(line for line, _ in numbered) + b"]")
        if len(records) == len(numbered):
            return [(record, number) for record, (_, number) in zip(records, numbered, strict=True)]
    records = []
    for line, number in numbered:
        try:
            records.append((json.loads(line), number))
        except ValueError as error:
            raise _damaged(f"{path}:{number}", str(error)) from None
    return records


def _damaged(place: str, why: str) -> InputError:
    return InputError(
        f"{place}: damaged record line ({why})",
        "delete that line; its run will be trained again, all others are kept",
    )


def newer(place: str, schema: Any) -> InputError:
    return InputError(
        f"{place}: got schema {schema}, this version reads {SCHEMA}",
        "it was written by another version of hptransfer: pip install --upgrade hptransfer",
    )
