"""What all figures share: theme, colours, axes in powers of two, and the SVG text for a page.

A figure's label (`Figure.get_label`) is its alt text. Ink is the colour of all text and lines that
carry no data: a placeholder that `to_svg` replaces by the page's own text colour.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from hptransfer.errors import printable

INK = "#757574"  # legible on white and on near-black where nothing replaces it
# Luminance between 0.13 and 0.30, so that every hue has contrast 3:1 on white and on near-black.
WIDTHS = LinearSegmentedColormap.from_list("widths", ["#2f7fd6", "#8a63d2", "#d6409f", "#e0590c"])
LABELS = ["#2f7fd6", "#e0590c", "#1c8a5a", "#c03fae", "#a27300", "#6d6ae0", "#c8403f", "#0b8893"]
MARKS = ["o", "s", "^", "D", "v", "P", "X", "p"]
DASHES = (0, (4, 3))  # of the line at the carried lr
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

THEME: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a label is a $
}


def line_style(i: int) -> tuple[str, str]:
    """Colour and marker of line `i`: no two of the first 64 lines share both."""
    return LABELS[i % len(LABELS)], MARKS[(i + i // len(LABELS)) % len(MARKS)]


Shade = tuple[str, str, float]  # colour, marker and line width of an axis value


def shades(values: Iterable[int]) -> dict[int, Shade]:
    """The shade of every axis value; all three of its parts grow along the axis."""
    ordered = sorted(values)
    last = max(len(ordered) - 1, 1)
    return {
        n: (to_hex(WIDTHS(i / last)), MARKS[i % len(MARKS)], 1.2 + 1.2 * i / last)
        for i, n in enumerate(ordered)
    }


def power_of_two(exponent: float) -> str:
    """2 with a whole exponent, as text."""
    return "2" + f"{exponent:.0f}".translate(SUPERSCRIPT)


def octave_ticks(ax: Axes, low: float, high: float) -> None:
    """Ticks at powers of two on the x axis from `low` to `high`, octaves."""
    first, last = math.floor(low), math.ceil(high)
    step = max(1, math.ceil((last - first) / 5))
    ticks = range(first, last + 1, step)
    ax.set_xticks(list(ticks), [power_of_two(t) for t in ticks])
    ax.set_xlim(low - 0.4, high + 0.4)


def to_svg(figure: Figure, salt: str, *, ink: str = "currentColor") -> str:
    """An `<svg>` element with the alt text; the same figure and salt give the same bytes.

    Text stays text, in DejaVu Sans or Verdana, whose widths agree. `ink`: colour of text and axes,
    by default the page's own; give a fixed colour for a file that stands alone. Every id begins
    with `salt`, so that figures with different salts share a page.
    """
    buffer = io.StringIO()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(printable(text.get_text()))  # XML cannot hold control characters
    with mpl.rc_context({**THEME, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # text stays text
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    salt = re.sub(r"[^A-Za-z0-9._-]", "-", salt)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{salt}-", svg)
    svg = svg.replace(INK, ink).replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    width, height = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    alt = _escape(printable(str(figure.get_label())))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{alt}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )
