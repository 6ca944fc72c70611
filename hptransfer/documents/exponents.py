"""The file exponents.json, and what run and report print with --json for a study."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.values import DOCUMENT, Interval

FitVerdict = Literal[
    "agrees", "disagrees", "undecided", "capped", "censored", "diverged", "incomplete"
]

GapVerdict = Literal["resolved", "unresolved", "incomplete"]


@dataclass(frozen=True)
class ExponentFit:
    """The slope of log calls in one series of points, or in several that differ in min(m, n)."""

    part: str
    """Name of the study's part."""
    method: str
    """Label of the method."""
    noise: str
    """Law and index of the noise."""
    theory: float | None
    """The exponent that the theory states for the method; null where it states none."""
    by_seeds: Interval
    """The slope with 95% of redraws of the fresh seeds."""
    by_points: Interval
    """The slope with the least and the largest one where one point is left out."""
    by_grid: Interval
    """The slope, and how far settings between those of the grid may move it."""
    n_points: int
    """Points that were fitted; capped, censored and diverged ones never are."""
    verdict: FitVerdict | None
    """`agrees`: the hull of the three intervals is narrower than 0.5 and holds `theory`.
    `disagrees`: it is narrower and does not. `undecided`: it is wider. The others say why nothing
    was fitted. Null where the theory states no exponent."""


@dataclass(frozen=True)
class ExponentGap:
    """The exponent in 1/eps of batched Scion minus that of transported Scion."""

    part: str
    """Name of the study's part."""
    noise: str
    """Law and index of the noise."""
    theory: float
    """The gap that the theory states, one half at every index."""
    by_seeds: Interval
    """The gap with 95% of redraws of the fresh seeds, the same for both methods."""
    by_points: Interval
    """The gap with the least and the largest one where one goal is left out."""
    by_grid: Interval
    """The gap, and how far settings between those of both grids may move it."""
    n_points: int
    """Goals that were measured with both methods."""
    excludes_zero: bool
    """Whether the hull of the three intervals excludes 0."""
    holds_theory: bool
    """Whether that hull holds `theory`."""
    verdict: GapVerdict
    """`resolved`: the hull excludes 0 and holds `theory`. `unresolved`: it does not. `incomplete`:
    fewer than three goals."""


@dataclass(frozen=True)
class Exponents:
    """The exponents of a study of the noise laboratory."""

    study: str
    """Name."""
    claim: str
    """What the study claims."""
    in_goal: list[ExponentFit]
    """How the calls grow with 1/eps: one per series with several goals."""
    in_directions: list[ExponentFit]
    """How the calls grow with min(m, n), at the smallest goal."""
    gaps: list[ExponentGap]
    """Batched less transported Scion: one per part and noise with both methods."""
    schema: int = DOCUMENT
    """Version of this document."""
