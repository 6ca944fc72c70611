"""What list, validate, coords and check print with --json, and coords.json."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.metrics import Claim, Control, Transfer
from hptransfer.documents.values import DOCUMENT, Judgement


@dataclass(frozen=True)
class Names:
    """`hptransfer list --json`: names by kind; null for a kind that was not asked for."""

    optimizers: list[str] | None = None
    """Built-in optimizers and those of installed packages."""
    models: list[str] | None = None
    """Models."""
    datasets: list[str] | None = None
    """Data sets."""
    suites: list[str] | None = None
    """Built-in suites."""
    studies: list[str] | None = None
    """Built-in studies: of the noise laboratory, and of transport in training."""
    schema: int = DOCUMENT
    """Version of this document."""


@dataclass(frozen=True)
class Clause:
    """One clause of a contract."""

    name: str
    """The clause in words."""
    passed: bool
    """It holds."""
    detail: str
    """What was seen."""


@dataclass(frozen=True)
class Validation:
    """`hptransfer validate --json`."""

    target: str
    """The part that was tested."""
    kind: Literal["optimizer", "model", "dataset"]
    """Its kind."""
    passed: bool
    """All clauses hold."""
    clauses: list[Clause]
    """The clauses in order; a clause that cannot be tested ends the list."""
    schema: int = DOCUMENT
    """Version of this document."""


@dataclass(frozen=True)
class Slope:
    """Exponent of the width in a layer's size; null where a run diverged or a size is 0."""

    value: float | None
    """Least squares over all seeds."""
    spread: float | None
    """Standard deviation of the exponents of the single seeds; null for one seed."""


@dataclass(frozen=True)
class LayerSlopes:
    """The slopes of one layer under one optimizer."""

    optimizer: str
    """Label."""
    layer: str
    """Name of the module."""
    log2_lr: float
    """log2 of the learning rate of the check."""
    narrowest: int
    """Smallest width."""
    widest: int
    """Largest width."""
    n_seeds: int
    """Seeds."""
    gate_steps: int
    """Steps before the slope that is judged."""
    late_steps: int
    """Steps before the last slope."""
    diverged_widths: list[int]
    """Widths at which a run diverged."""
    init: Slope
    """Of the RMS of the layer's output at the start."""
    gate: Slope
    """Of the RMS of its change after `gate_steps`."""
    late: Slope
    """Of the RMS of its change after `late_steps`."""


@dataclass(frozen=True)
class SlopeVerdict:
    """The outcome of the coordinate check for one optimizer."""

    optimizer: str
    """Label."""
    verdict: Literal["passes", "fails", "diverged", "too few widths"]
    """The outcome."""
    expected: bool
    """A control fails, any other optimizer passes."""
    control: bool
    """The suite lists it as a control, which must fail."""
    indicative: bool
    """The verdict rests on too few seeds."""
    layer: str
    """The layer whose change after `gate_steps` has the steepest slope."""
    slope: Slope
    """The slope of that layer."""
    sentence: str
    """The outcome in words."""


@dataclass(frozen=True)
class Coordinates:
    """The file coords.json, and `hptransfer coords --json`."""

    suite: str
    """Name."""
    head: Literal["zero", "own"]
    """How the head starts: at zero, or with the optimizer's own init."""
    verdicts: list[SlopeVerdict]
    """One per optimizer."""
    slopes: list[LayerSlopes]
    """One per optimizer and layer."""
    schema: int = DOCUMENT
    """Version of this document."""


@dataclass(frozen=True)
class Gate:
    """A limit of the command line on one optimizer that is expected to transfer."""

    optimizer: str
    """Label."""
    target: int | None
    """The largest target, where the limit counts."""
    quantity: Literal["regret", "drift"]
    """What is limited."""
    unit: Literal["nats", "octaves"]
    """Unit of `limit` and `upper_bound`."""
    limit: float
    """The value of --max-regret or --max-drift."""
    upper_bound: float | None
    """Upper bound of the regret's interval; of the drift's the larger absolute value of its two
    bounds. Null where there is no interval."""
    judgement: Judgement
    """`held` where the upper bound is at most the limit, `refuted` where it is above, `undecided`
    where there is none."""


@dataclass(frozen=True)
class Check:
    """`hptransfer check --json`."""

    suite: str
    """Name."""
    claim: str
    """What the suite claims."""
    judgement: Judgement
    """The worst of `claims` and `gates`."""
    judgement_sentence: str
    """That of the claims in words."""
    exit_code: Literal[0, 1, 3]
    """0 held, 1 refuted, 3 undecided."""
    axis: str
    """The quantity that grows from the proxy to the targets."""
    proxy: int
    """Axis value of the search for the lr."""
    claims: list[Claim]
    """One per expectation of the suite."""
    gates: list[Gate]
    """One per limit and optimizer that is expected to transfer."""
    negative_control: Control
    """Whether the suite can see a drift."""
    transfers: list[Transfer]
    """The verdicts behind the claims: one per optimizer with an expectation and target."""
    schema: int = DOCUMENT
    """Version of this document."""
