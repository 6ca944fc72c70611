"""Diagnostics of transport and their records: what staleness, curvature and noise cost a run."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hptransfer.records.appended import appended
from hptransfer.records.damage import DamagedError
from hptransfer.records.disk import Appender
from hptransfer.spec import RunSpec, canonical, digest, fault

SCHEMA = 1
"""Version of the format of diagnostics."""


@dataclass(frozen=True)
class Point:
    """Where a diagnostic is taken: after `step` updates of `run`, on `examples` examples."""

    run: RunSpec
    step: int
    examples: int

    @cached_property
    def key(self) -> str:
        """Identity of the diagnostic: 20 hex digits."""
        return digest(canonical([SCHEMA, self.run.key, self.step, self.examples]))


@dataclass(frozen=True)
class Diagnostic:
    """Errors of the momentum at a point of a run, in the dual norm of its optimizer.

    `gradient`: ||g(X)||_*. `staleness` (e1): ||g(X) - g(Xbar)||_*, where Xbar averages the iterates
    as the momentum averages gradients. `curvature` (e2): ||g(X + k u) + g(X - k u) - 2 g(X)||_* / 2
    at the last update u, where Y = X + k u. `noise` (nu): that of the momentum. `staleness_half`,
    `curvature_half`: means of the two halves of the large batch, whose excess over the values of
    the whole shows what the noise of the large batch adds. `plain_seconds`, `ahead_seconds`: of
    the processor, for a step of Scion and of transported Scion, one lane; 0 where not timed.
    """

    point: Point
    gradient: float
    staleness: float
    curvature: float
    noise: float
    staleness_half: float
    curvature_half: float
    plain_seconds: float
    ahead_seconds: float
    env: dict[str, Any]
    finished: float


_VALUES = (
    "gradient", "staleness", "curvature", "noise", "staleness_half", "curvature_half",
    "plain_seconds", "ahead_seconds", "finished",
)  # fmt: skip


class DiagnosticStore:
    """The diagnostics of one study, in the folder root/study: one file of lines per writer."""

    def __init__(self, root: Path, study: str) -> None:
        self.folder = Path(root) / study
        self._writer = Appender(self.folder, "diagnostics")
        self._warned: set[str] = set()

    def append(self, record: Diagnostic) -> None:
        """Write one record through to the disk. Raises InputError on a full or read-only disk."""
        self._writer.append(_encode(record))

    def read(self) -> dict[str, Diagnostic]:
        """Key of the point -> its first record. Warns and raises as `appended`."""
        records: dict[str, Diagnostic] = {}
        for record in appended(self.folder, "diagnostics", _decode, self._warned):
            records.setdefault(record.point.key, record)
        return records


def _encode(record: Diagnostic) -> bytes:
    line = {
        "schema": SCHEMA,
        "key": record.point.key,
        "spec": record.point.run.to_json(),
        "step": record.point.step,
        "examples": record.point.examples,
        **{name: getattr(record, name) for name in _VALUES},
        "env": record.env,
    }
    return (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _decode(line: bytes) -> Diagnostic:
    """The record of a line. Raises DamagedError."""
    try:
        table = json.loads(line)
        if why := fault(table["spec"]):
            raise DamagedError(why)
        point = Point(RunSpec.from_json(table["spec"]), table["step"], table["examples"])
        values = {name: float(table[name]) for name in _VALUES}
        own, key, env = point.key, table["key"], table["env"]
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"no record of a diagnostic ({type(error).__name__})") from None
    except json.JSONDecodeError:
        raise DamagedError("no record of a diagnostic (JSONDecodeError)") from None
    if own != key:
        raise DamagedError("the key is not that of the point")
    if wrong := [name for name, x in values.items() if not (math.isfinite(x) and x >= 0)]:
        raise DamagedError(f"{wrong[0]} is {values[wrong[0]]!r:.40}")
    return Diagnostic(point, env=env, **values)
