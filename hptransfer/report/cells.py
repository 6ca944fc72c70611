"""Cells and tables of the page: numbers to text, with a value to sort by."""

import math
from dataclasses import dataclass

from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.parabola import Interval
from hptransfer.analysis.sentences import signed

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it sorts by, its CSS class, and a small second line."""

    text: str
    sort: float | str = ""
    css: str = ""
    under: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""


def word(text: object, css: str = "") -> Cell:
    """Text that sorts by itself."""
    return Cell(str(text), str(text), css)


def number(value: float, text: str, under: str = "") -> Cell:
    """A number; a dash where it was not measured."""
    if not math.isfinite(value):
        return Cell(DASH, math.inf, "num")
    return Cell(text, value, "num", under)


def nat(value: float, digits: int = 3) -> Cell:
    """A loss or a difference of losses."""
    return number(value, signed(value, digits))


def count(value: int) -> Cell:
    """A whole number that was counted."""
    return number(value, str(value))


def octave(value: float, se: float = math.nan) -> Cell:
    """A log2 learning rate over its standard error, octaves."""
    return number(value, f"2^{value:.2f}", f"± {se:.2f}" if math.isfinite(se) else "")


def lr_star(optimum: Optimum | None) -> Cell:
    """The learning rate of an optimum over its standard error; a dash without one."""
    return octave(math.nan) if optimum is None else octave(optimum.log2_lr, optimum.se)


def between(interval: Interval, digits: int = 3) -> Cell:
    """A number over its interval."""
    bounds = "no interval"
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        bounds = f"{signed(interval.low, digits)} to {signed(interval.high, digits)}"
    return number(interval.value, signed(interval.value, digits), bounds)


def scaled(value: float, unit: str) -> Cell:
    """`1.2 MB`: three digits and a prefix."""
    rank = min(max(int(math.log(value, 1000)), 0), 6) if 0 < value < math.inf else 0
    return number(
        value, f"{value / 1000**rank:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[rank]}{unit}"
    )


def duration(seconds: float) -> Cell:
    """`42 ms`, `3.5 s`, `20 min`, `2.1 h`."""
    if not seconds >= 1:
        return number(seconds, f"{seconds * 1000:.3g} ms")
    if seconds < 120:
        return number(seconds, f"{seconds:.3g} s")
    if seconds < 7200:
        return number(seconds, f"{seconds / 60:.3g} min")
    return number(seconds, f"{seconds / 3600:.3g} h")
