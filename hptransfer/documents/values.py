"""The values that all documents share, and a document as plain JSON values."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DOCUMENT = 2
"""Version of the documents: it rises where a name or a meaning changes."""

Judgement = Literal["held", "undecided", "refuted"]


@dataclass(frozen=True)
class Interval:
    """A number with its interval; null where it was not measured, or where it has no interval."""

    value: float | None = None
    """The number."""
    low: float | None = None
    """Lower bound of the interval."""
    high: float | None = None
    """Upper bound of the interval."""


@dataclass(frozen=True)
class Optimum:
    """The best learning rate at one axis value."""

    log2_lr_star: Interval
    """log2 of the best learning rate with its 95% interval, in octaves."""
    standard_error: float | None
    """Standard error of `log2_lr_star`, in octaves. With one seed the grid's alone."""
    loss: float | None
    """Mean loss at the best point of the search, in nats."""
    censored: Literal["low", "high", "gap"] | None
    """Why the best learning rate may lie elsewhere: at the low or high edge of the tried range, or
    with a neighbour that is more than an octave away."""
    at_cliff: bool
    """A neighbour diverged or did no better than the init, so the grid minimum counts."""
    n_learning_rates: int
    """Learning rates that the search tried."""
    n_seeds: int
    """Seeds behind the interval."""
    hp: dict[str, float] = field(default_factory=dict)
    """Searched hyperparameters there."""


def as_json(document: "DataclassInstance") -> dict[str, Any]:
    """A document, or a part of one, as a JSON object with `plain` values."""
    return {each.name: plain(getattr(document, each.name)) for each in fields(document)}


def plain(value: Any) -> Any:
    """A value of a document as JSON has it; a number that is not finite is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
