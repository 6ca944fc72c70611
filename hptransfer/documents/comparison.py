"""What compare prints with --json: two folders of records, and how their results differ."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.values import DOCUMENT, Interval

Folder = Literal["a", "b"]
Quantity = Literal["loss", "drift", "regret"]


@dataclass(frozen=True)
class Side:
    """The records of one suite in one of the two folders."""

    folder: str
    """The suite's folder."""
    records_schema: int
    """Schema of its records."""
    n_runs: int
    """Finished runs of the suite."""
    versions: list[str]
    """Versions of hptransfer that made them."""
    hosts: list[str]
    """Machines that made them."""


@dataclass(frozen=True)
class Difference:
    """A minus sign means less in B than in A."""

    optimizer: str
    """Label in A."""
    axis_value: int
    """Axis value."""
    quantity: Quantity
    """loss: mean over the shared learning rates within one octave of the common best one. drift and
    regret: as in the report, seed by seed."""
    unit: Literal["nats", "octaves"]
    """Unit of `difference`."""
    difference: Interval
    """Mean over seeds of B - A. Its t-interval excludes 0 where `differs` holds, and nowhere else.
    Null bounds with fewer than two seeds."""
    n_seeds: int
    """Seeds that both have."""
    p_value: float | None
    """Of a t-test over seeds; null with fewer than two."""
    p_value_holm: float | None
    """The same after Holm's correction over all tests of the comparison."""
    differs: bool
    """`p_value_holm` is at most 0.05."""


@dataclass(frozen=True)
class VerdictPair:
    """The verdict of one optimizer at one target in both folders."""

    optimizer: str
    """Label in A."""
    target: int
    """Axis value."""
    a: str
    """Verdict in A."""
    b: str
    """Verdict in B."""


@dataclass(frozen=True)
class Unpaired:
    """Runs without a counterpart in the other folder."""

    side: Folder
    """The folder that has them."""
    optimizer: str
    """Label there."""
    axis_value: int
    """Axis value."""
    n_runs: int
    """Finished runs."""
    reason: str
    """Why they have no counterpart."""


@dataclass(frozen=True)
class SuiteComparison:
    """One suite that both folders have."""

    suite: str
    """Name in A."""
    a: Side
    """The records in A."""
    b: Side
    """The records in B."""
    n_paired: int
    """Pairs of runs: equal but for version, machine and schema."""
    differences: list[Difference]
    """One per optimizer, axis value and quantity that both have."""
    verdicts: list[VerdictPair]
    """One per optimizer and target that both have."""
    unpaired: list[Unpaired]
    """What could not be paired."""


@dataclass(frozen=True)
class Comparison:
    """`hptransfer compare A B --json`."""

    a: str
    """First folder."""
    b: str
    """Second folder."""
    n_tests: int
    """Tests that Holm's correction counts."""
    suites: list[SuiteComparison]
    """One per suite that both have."""
    only_in_a: list[str]
    """Suites that B lacks."""
    only_in_b: list[str]
    """Suites that A lacks."""
    schema: int = DOCUMENT
    """Version of this document."""
