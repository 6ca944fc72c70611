"""The file tails.json, and what tails prints with --json."""

from dataclasses import dataclass, field
from typing import Literal

from hptransfer.documents.values import DOCUMENT
from hptransfer.spec import Axis

TailVerdict = Literal["heavy", "light", "undecided", "no noise"]
LayerKind = Literal["embedding", "input", "hidden", "output"]


@dataclass(frozen=True)
class Estimated:
    """A number with its standard error; null where it could not be estimated."""

    value: float | None
    """The number."""
    standard_error: float | None
    """Its asymptotic standard error."""


@dataclass(frozen=True)
class NormTail:
    """The tail of one norm of the pair differences of gradients."""

    hill_2: Estimated
    """Tail index by Hill's estimator from the largest 2% of the pairs."""
    hill_5: Estimated
    """The same from 5%, which the verdict reads."""
    hill_10: Estimated
    """The same from 10%."""
    gamma: Estimated
    """Extreme value index by the moment estimator from 5%: 1/index, at most 0 without a power
    tail."""
    verdict: TailVerdict
    """`heavy`: index below 2, infinite variance. `light`: index above 2. `no noise`: the sizes are
    0."""


@dataclass(frozen=True)
class LayerTail:
    """The noise of one layer at one moment of training."""

    layer: str
    """Name of the module."""
    kind: LayerKind
    """Its role."""
    shape: list[int]
    """Shape of its weight."""
    step: int
    """Training steps before."""
    batch: int
    """Examples per gradient: 1, or those of a training step."""
    frobenius: NormTail
    """Of the Frobenius norms."""
    spectral: NormTail
    """Of the spectral norms."""
    p_eff: float | None
    """Effective moment 1/(1 + s), s the slope of log E‖mean of B‖_F on log B; null where a gradient
    has more than one example."""
    pooled_stable_fit: float | None
    """Index of a stable law fitted to pooled entries. It calls Gaussian noise heavy where rows
    differ in scale; no verdict rests on it."""
    curve_index: list[float | None] = field(default_factory=list)
    """Tail index of the Frobenius norms by Hill's estimator, for each number in `curve_k` of the
    run. Empty in a document of an earlier version."""
    curve_norm: list[float | None] = field(default_factory=list)
    """The largest norm below those, for each number in `curve_k`: the order statistic k + 1 from
    the top."""


@dataclass(frozen=True)
class VerdictCount:
    """How the layers and moments were judged at one number of examples per gradient."""

    batch: int
    """Examples per gradient."""
    heavy: int
    """Layers times moments with this verdict on the Frobenius norms."""
    light: int
    """The same."""
    undecided: int
    """The same."""
    no_noise: int
    """The same."""


@dataclass(frozen=True)
class TailRun:
    """One training run and its gradient noise."""

    optimizer: str
    """Label."""
    axis_value: int
    """Axis value of the run."""
    log2_lr: float
    """log2 of the learning rate."""
    lr_source: Literal["best recorded", "middle of the range"]
    """Where the learning rate comes from."""
    steps: int
    """Training steps of the whole run."""
    pairs: int
    """Pairs of gradients per layer, moment and number of examples."""
    sentences: list[str]
    """The outcome in words."""
    counts: list[VerdictCount]
    """One per number of examples."""
    layers: list[LayerTail]
    """One per moment, number of examples and layer."""
    curve_k: list[int] = field(default_factory=list)
    """Numbers of largest norms, rising, at which every layer has a Hill plot. Empty in a document
    of an earlier version."""
    settings: str = ""
    """Identity of all that decides the run but its learning rate, its seed and hyperparameters that
    are searched: 20 hex digits. Empty in a document of an earlier version."""


@dataclass(frozen=True)
class Tails:
    """The file tails.json, and `hptransfer tails --json`."""

    suite: str
    """Name."""
    axis: Axis
    """The quantity that `axis_value` is of."""
    runs: list[TailRun]
    """One per optimizer."""
    schema: int = DOCUMENT
    """Version of this document."""
