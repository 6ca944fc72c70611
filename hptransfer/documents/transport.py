"""The file transport.json, and what run and report print with --json for a study of transport."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.values import DOCUMENT, Interval, Judgement

CellVerdict = Literal["gains", "hurts", "agrees", "contradicts", "undecided", "incomplete"]


@dataclass(frozen=True)
class TransportArm:
    """One strength in one cell."""

    strength: float
    """s: how far ahead of X the gradients are taken, in displacements of the whole memory."""
    decay: bool
    """The strength grows to `strength` as the lr decays; else it is constant."""
    from_diagnostic: bool
    """It is s* = min(1, e1 / (2 e2))."""
    log2_lr: float
    """log2 of the best learning rate that was tried."""
    at_edge: bool
    """That lr lies at an edge of the tried range."""
    loss: float
    """Mean loss there, nats."""
    n_seeds: int
    """Seeds behind it."""
    gain: Interval
    """Loss of strength 0 minus that of the arm, each at its best lr, nats, over the shared seeds.
    The interval has Holm's correction over the cells. Null for strength 0."""


@dataclass(frozen=True)
class TransportCell:
    """One model, batch, beta and schedule."""

    model: str
    """Name of the model in the study."""
    batch: int
    """Examples per step."""
    beta: float
    """Weight of the past in the momentum."""
    schedule: Literal["constant", "linear"]
    """How the lr changes."""
    arms: list[TransportArm]
    """Strengths."""
    log2_staleness_over_curvature: Interval
    """log2(e1/e2) halfway through the run of strength 0 at its best lr, with its 95% interval."""
    log2_staleness_over_noise: Interval
    """log2(e1/nu) there."""
    n_diagnostics: int
    """Seeds behind both."""
    condition: Literal["met", "not met", "unclear", "unknown"]
    """Whether e1 > e2 and e1 > nu, by both intervals."""
    verdict: CellVerdict
    """Where the condition is met: `gains`, `hurts` or `undecided`, by the gain of strength 1. Where
    it is not met: `contradicts` for a gain that is shown, `agrees` for one shown to be below the
    tolerance. Where it is unclear: `agrees` or `undecided`. `incomplete`: something is missing."""


@dataclass(frozen=True)
class Transport:
    """A study of transport in training."""

    study: str
    """Name."""
    claim: str
    """What the study claims."""
    prediction: Judgement
    """Whether strength 1 gained only where e1 > e2 and e1 > nu."""
    n_runs: int
    """Runs that are recorded."""
    n_expected: int
    """Runs that the study needs, as far as they can be named."""
    cells: list[TransportCell]
    """The cells."""
    schema: int = DOCUMENT
    """Version of this document."""
