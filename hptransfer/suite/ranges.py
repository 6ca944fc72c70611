"""Ranges in a suite file: octaves of a learning rate, values of a hyperparameter."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from hptransfer.errors import InputError

LR_OCTAVES = (-30.0, 6.0)  # all studies share these limits of log2 lr
_POWERS = r"\s*2\^(-?\d{1,9})\s*\.\.\s*2\^(-?\d{1,9})\s*"
_ANY_RANGE = r"^.+\.\..+$"

Parsed = TypeVar("Parsed", "OctaveRange", "ValueRange")


@dataclass(frozen=True)
class OctaveRange:
    """Learning rates from 2^low to 2^high; `text` stands in the suite file."""

    low: int
    high: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ValueRange:
    """Values of a hyperparameter from low to high, in log scale if `log`.

    `text` stands in the suite file. The name of a study is a hash of it, so nothing may change it.
    """

    low: float
    high: float
    log: bool
    text: str

    def __str__(self) -> str:
        return self.text


def octave_range(text: str) -> OctaveRange:
    """`2^-13..2^-5` -> octaves -13 to -5. Raises InputError."""
    match = re.fullmatch(_POWERS, text)
    if match is None:
        raise InputError(
            f"got {text!r}, needs powers of two such as '2^-13..2^-5'",
            "learning rates are positive and lie on an octave grid",
        )
    low, high = int(match[1]), int(match[2])
    if not LR_OCTAVES[0] <= low < high <= LR_OCTAVES[1]:
        raise InputError(
            f"got {text!r}, allowed: a rising range within "
            f"2^{LR_OCTAVES[0]:.0f}..2^{LR_OCTAVES[1]:.0f}",
            "write the smaller learning rate first" if low >= high else "shrink the range",
        )
    return OctaveRange(low, high, text)


def value_range(text: str) -> ValueRange:
    """`0.8..0.95`, or `2^-6..2^0` in log scale -> the values at both ends. Raises InputError."""
    if "^" in text:
        octaves = octave_range(text)
        return ValueRange(2.0**octaves.low, 2.0**octaves.high, True, text)
    try:
        low_text, high_text = text.split("..")
        low, high = float(low_text), float(high_text)
    except ValueError:
        raise InputError(
            f"got {text!r}, needs a range such as '0.8..0.95' or '2^-6..2^0'",
            "write the smaller value, two dots, and the larger value",
        ) from None
    if not low < high:
        raise InputError(f"got {text!r}, needs a rising range", "write the smaller value first")
    return ValueRange(low, high, False, text)


def _once(parse: Callable[[str], Parsed]) -> Callable[[object], Parsed]:
    """A validator that parses a text and returns a range unchanged."""

    def validate(value: object) -> Parsed:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, OctaveRange | ValueRange):
            return value  # type: ignore[return-value]
        raise PydanticCustomError("string_type", "Input should be a valid string")

    return validate


LrRange = Annotated[
    OctaveRange,
    BeforeValidator(_once(octave_range)),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_POWERS}$"}),
]
SearchRange = Annotated[
    ValueRange,
    BeforeValidator(_once(value_range)),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _ANY_RANGE}),
]
