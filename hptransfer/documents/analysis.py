"""The file analysis.json, and what analyze prints with --json: a sweep, read and judged."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.metrics import SuiteMetrics
from hptransfer.documents.values import DOCUMENT, Judgement

Kind = Literal[
    "together", "missing", "edge", "gap", "flat", "coarse", "few points", "unequal grids",
    "close rates", "one seed", "unequal seeds", "unfinished", "shorter",
]  # fmt: skip
"""What weakens a sweep."""


@dataclass(frozen=True)
class Taken:
    """What a column was taken for."""

    what: str
    """Axis, lr, loss, label, seed and so on."""
    column: str
    """The name of the column, and what it holds."""


@dataclass(frozen=True)
class Weakness:
    """One weakness of the sweep, which whoever made it can act on."""

    kind: Kind
    """What it is."""
    optimizer: str
    """The label concerned; empty where it is all of them."""
    axis_values: list[int]
    """The axis values concerned; empty where it is all of them."""
    sentence: str
    """The same in words, with the cure."""


@dataclass(frozen=True)
class Analysis:
    """A sweep that was made elsewhere."""

    sources: list[str]
    """The files, or the study."""
    taken: list[Taken]
    """Which column was taken for what."""
    rules: list[str]
    """The rules by which cells were read."""
    findings: list[Weakness]
    """What weakens the sweep."""
    unit: str
    """Unit of a loss, where a field of `result` says nats: `nat`, or that of an accuracy."""
    result: SuiteMetrics
    """Verdicts, optima and curves, as for a suite."""
    judgement: Judgement | None
    """The worst judgement of the expectations; null without one."""
    exit_code: Literal[0, 1, 3]
    """0 held or nothing expected, 1 refuted, 3 undecided."""
    schema: int = DOCUMENT
    """Version of this document."""
