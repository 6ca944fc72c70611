"""What a session tells while it runs: a unit starts, how far it is, what ended."""

from dataclasses import dataclass, field

from hptransfer.run.workers import Ended
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.train.engine import Progress, Restarted, Unsaved


@dataclass(frozen=True)
class Started:
    """A worker trains this unit now."""

    unit: Unit


@dataclass(frozen=True)
class Status:
    """How far a session is: runs that it recorded, runs still to come, seconds left.

    `others`: the other processes at work on this suite. `awaited`: the runs that this process waits
    for while it trains none, each with the process that trains it.
    """

    done: int
    left: int
    seconds: float
    others: list[str] = field(default_factory=list)
    awaited: list[tuple[RunSpec, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Unwritten:
    """The persistent Optuna study could not be written, and why; the records are complete.

    `last`: nothing tries it again before the next command.
    """

    error: str
    last: bool = False


@dataclass(frozen=True)
class Finished:
    """Every run has a record, except those in `failed`: the next session tries them again."""

    failed: list[Ended] = field(default_factory=list)


Event = Started | Progress | Restarted | Unsaved | RunRecord | Status | Ended | Unwritten | Finished
