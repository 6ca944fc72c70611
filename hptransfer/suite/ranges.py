"""Ranges as a suite writes them: octaves of a learning rate, values of a hyperparameter."""

import re

from hptransfer.errors import InputError

LR_OCTAVES = (-30.0, 6.0)  # the one fixed distribution of every study


def octave_range(text: str) -> tuple[int, int]:
    """`2^-13..2^-5` -> (-13, -5). Raises InputError."""
    match = re.fullmatch(r"\s*2\^(-?\d{1,9})\s*\.\.\s*2\^(-?\d{1,9})\s*", text)
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
    return low, high


def search_range(text: str) -> tuple[float, float, bool]:
    """`0.8..0.95` -> (0.8, 0.95, False); `2^-6..2^0` -> (2**-6, 1.0, True), searched in log."""
    if "^" in text:
        low, high = octave_range(text)
        return 2.0**low, 2.0**high, True
    try:
        low_text, high_text = text.split("..")
        low_value, high_value = float(low_text), float(high_text)
    except ValueError:
        raise InputError(
            f"got {text!r}, needs a range such as '0.8..0.95' or '2^-6..2^0'", ""
        ) from None
    if not low_value < high_value:
        raise InputError(f"got {text!r}, needs a rising range", "write the smaller value first")
    return low_value, high_value, False
