"""Cells of the noise laboratory and their records: JSON lines with compressed arrays."""

import base64
import json
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hptransfer.records.appended import appended
from hptransfer.records.damage import DamagedError
from hptransfer.records.disk import Appender
from hptransfer.spec import canonical, digest

SCHEMA = 1
"""Version of the format of cells."""
Status = Literal["reached", "dearer", "capped", "diverged"]
STATUSES: tuple[Status, ...] = ("reached", "dearer", "capped", "diverged")
REACHED, DEARER, CAPPED, DIVERGED = range(4)
MARGIN = 1.25
"""A setting ends once its mean calls exceed this times the least mean: its neighbours are known."""
ADMITTED = 0.5
"""Mean steps over the cap up to which a setting may be chosen: far from the cap no lane is cut off.
In units of the theory's steps this limit is the same at every goal, as the cap is."""
Steps = NDArray[np.int64]
Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Cell:
    """All that decides a cell: an objective, a noise, a method, and the settings of its lanes.

    `model`, `noise`, `optimizer`: name, revision and all fields; `hp` without lr and momentum.
    `momentum`: the hyperparameter that holds beta. `clip`: largest norm of a gradient, 0 for none.
    The lanes are all of `log2_lr` x `log2_alpha` x `log2_batch` x `seeds`, the last fastest;
    alpha = 1 - beta. `log2_lr` is relative to `unit`. `cap`: most steps. `limit`: mean calls of a
    setting that is known already, above which a setting need not go on; infinite for none.
    """

    model: dict[str, Any]
    noise: dict[str, Any]
    optimizer: dict[str, Any]
    hp: dict[str, Any]
    momentum: str
    clip: float
    unit: float
    log2_lr: tuple[float, ...]
    log2_alpha: tuple[float, ...]
    log2_batch: tuple[float, ...]
    seeds: tuple[int, int]
    cap: int
    limit: float = float("inf")
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`. Raises TypeError for other fields."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        if values.get("limit", 0) is None:
            values["limit"] = float("inf")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, which `key` hashes."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["limit"] = self.limit if np.isfinite(self.limit) else None
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @cached_property
    def key(self) -> str:
        """Identity of the cell: 20 hex digits."""
        return digest(canonical(self.to_json()))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of lrs, alphas, batches and seeds."""
        first, last = self.seeds
        return (len(self.log2_lr), len(self.log2_alpha), len(self.log2_batch), last - first)

    @property
    def settings(self) -> NDArray[np.float64]:
        """log2 lr, log2 alpha and log2 batch of every setting, (settings, 3)."""
        axes = np.meshgrid(self.log2_lr, self.log2_alpha, self.log2_batch, indexing="ij")
        return np.stack([axis.ravel() for axis in axes], axis=1)


@dataclass(frozen=True, eq=False)
class CellRecord:
    """How the lanes of a cell ended: `steps`, `status` (index of STATUSES), both (lanes,).

    `seconds`: of one thread. `env`: machine and versions. `finished`: seconds since 1970.
    """

    cell: Cell
    steps: Steps
    status: Codes
    seconds: float
    env: dict[str, Any]
    finished: float

    @property
    def calls(self) -> NDArray[np.float64]:
        """Samples up to the goal, (settings, seeds); infinite for a lane that did not reach it."""
        seeds = self.cell.shape[-1]
        steps = np.where(self.status == REACHED, self.steps, np.inf).reshape(-1, seeds)
        return steps * 2.0 ** self.cell.settings[:, 2:]


class CellStore:
    """The cells of one study, in the folder root/study: one file of JSON lines per writer."""

    def __init__(self, root: Path, study: str) -> None:
        self.folder = Path(root) / study
        self._writer = Appender(self.folder, "cells")
        self._warned: set[str] = set()

    def append(self, record: CellRecord) -> None:
        """Write one record through to the disk. Raises InputError on a full or read-only disk."""
        self._writer.append(_encode(record))

    def read(self) -> dict[str, CellRecord]:
        """Cell key -> its first record. Warns and raises as `appended`."""
        records: dict[str, CellRecord] = {}
        for record in appended(self.folder, "cells", _decode, self._warned):
            records.setdefault(record.cell.key, record)
        return records


def _encode(record: CellRecord) -> bytes:
    line = {
        "schema": SCHEMA,
        "key": record.cell.key,
        "cell": record.cell.to_json(),
        "steps": _packed(record.steps.astype("<i4")),
        "status": _packed(record.status),
        "seconds": record.seconds,
        "env": record.env,
        "finished": record.finished,
    }
    return (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _decode(line: bytes) -> CellRecord:
    """The record of a line. Raises DamagedError."""
    try:
        table = json.loads(line)
        cell = Cell.from_json(table["cell"])
        steps = _unpacked(table["steps"], "<i4").astype(np.int64)
        status = _unpacked(table["status"], "i1")
        seconds, finished = float(table["seconds"]), float(table["finished"])
        env, key = table["env"], table["key"]
        count = int(np.prod(cell.shape))
        own = cell.key
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        raise DamagedError(f"no record of a cell ({type(error).__name__})") from None
    if own != key:
        raise DamagedError("the key is not that of the cell")
    if not len(steps) == len(status) == count:
        raise DamagedError(f"{len(steps)} lanes, the cell has {count}")
    if not ((status >= 0) & (status < len(STATUSES))).all():
        raise DamagedError("a lane has an unknown status")
    return CellRecord(cell, steps, status, seconds, env, finished)


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _unpacked(text: str, kind: str) -> NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)
