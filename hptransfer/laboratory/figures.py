"""The figures of a study: calls against 1/eps and min(m, n), and the terms of the theory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hptransfer.datasets.noise import Array
from hptransfer.laboratory.exponents import Fit
from hptransfer.laboratory.plan import Point
from hptransfer.report.svg import INK, THEME, line_style, power_of_two

WIDE = 2.9  # inches of a panel
HIGH = 3.1
LEGEND = 1.7  # inches of an entry


@dataclass(frozen=True)
class Line:
    """One line of a panel: x (log2) and point of each mark, and the fit through them."""

    label: str
    x: list[float]
    points: list[Point]
    fit: Fit


@dataclass(frozen=True)
class Panel:
    """Lines that share axes."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Measured:
    """A term against a quantity, both as log2: measured, and as its law says."""

    label: str
    x: Array
    measured: Array
    law: Array


@dataclass(frozen=True)
class Term:
    """A panel of a term of the theory: both axes are log2."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Measured]


def terms(panels: Sequence[Term]) -> Figure:
    """Each term measured alone; dotted: its law."""
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(WIDE * len(panels) + 0.6, HIGH), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            for i, line in enumerate(panel.lines):
                colour, mark = line_style(i)
                ax.plot(
                    line.x, line.measured, color=colour, marker=mark, markersize=5,
                    linestyle="none", label=line.label,
                )  # fmt: skip
                ax.plot(line.x, line.law, color=INK, linestyle=":", zorder=0)
            ax.set_title(panel.title, loc="left")
            ax.set_xlabel(panel.x_label)
            ax.set_ylabel(panel.y_label)
            ax.xaxis.set_major_formatter(lambda value, _: power_of_two(value))
            ax.yaxis.set_major_formatter(lambda value, _: power_of_two(value))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True))
            if len(panel.lines) > 1:
                ax.legend()
            sns.despine(ax=ax)
    told = "; ".join(
        f"{panel.title}: {', '.join(f'{each.label} {_off(each)}' for each in panel.lines)}"
        for panel in panels
    )
    figure.set_label(f"The three terms measured alone, marks, beside their laws, dotted. {told}.")
    return figure


def _off(line: Measured) -> str:
    """How far the marks lie from the law, in words."""
    return f"within {100 * (2 ** np.abs(line.measured - line.law).max() - 1):.0f}% of its law"


def calls(panels: Sequence[Panel], axis: str, tick: Callable[[float], str], what: str) -> Figure:
    """Calls against a quantity, both log; dotted: the theory's slope through the first point.

    `axis`: label of the x axis; `tick`: its log2 value as text; `what`: the start of the alt text.
    Open marks are capped, censored or diverged, and no part of a fit.
    """
    names = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    style = {name: line_style(i) for i, name in enumerate(names)}
    with mpl.rc_context(THEME):
        count = len(panels)
        width = max(4.8, WIDE * count)
        columns = max(1, int(width / LEGEND))
        rows = -(-(len(names) + 1) // columns)
        figure = Figure(figsize=(width, HIGH + 0.25 * rows), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw(ax, panel, style)
            ax.set_title(panel.title, loc="left")
            ax.set_xlabel(axis)
            known = sorted({x for line in panel.lines for x in line.x})
            ax.set_xticks(known, [tick(x) for x in known])
            sns.despine(ax=ax)
        axes[0].set_ylabel("calls to the goal")
        handles = [
            Line2D([], [], color=style[name][0], marker=style[name][1], label=name)
            for name in names
        ]
        handles.append(Line2D([], [], color=INK, linestyle=":", label="slope of the theory"))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    figure.set_label(f"{what}: {_told(panels)}.")
    return figure


def _draw(ax: Axes, panel: Panel, style: dict[str, tuple[str, str]]) -> None:
    for line in panel.lines:
        colour, mark = style[line.label]
        known = [
            (x, point)
            for x, point in zip(line.x, line.points, strict=True)
            if math.isfinite(point.mean)
        ]
        x = np.array([x for x, _ in known])
        y = np.array([math.log10(point.mean) for _, point in known])
        ax.plot(x, y, color=colour, linewidth=1.6)
        for at, (of, point) in zip(y, known, strict=True):
            fill = "full" if point.outcome == "measured" else "none"
            ax.plot([of], [at], color=colour, marker=mark, markersize=6, fillstyle=fill)
        if line.fit.theory is not None and len(x):
            slope = line.fit.theory * math.log10(2)
            ax.plot(x, y[0] + slope * (x - x[0]), color=INK, linestyle=":", zorder=5)
    ticks = _decimal_ticks(*ax.get_ylim())
    ax.set_yticks([math.log10(float(tick)) for tick in ticks], ticks)


def _decimal_ticks(low: float, high: float) -> list[str]:
    """Powers of ten between these log10 values; where there are few, 2 and 5 times them too."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    inside = [d for d in decades if low <= d <= high]
    if len(inside) > 2:
        return [f"1e{d}" for d in inside[:: -(-len(inside) // 6)]]
    return [f"{m}e{d}" for d in decades for m in (1, 2, 5) if low <= d + math.log10(m) <= high]


def _told(panels: Sequence[Panel]) -> str:
    told = []
    for panel in panels:
        lines = []
        for line in panel.lines:
            fit = line.fit
            slope = f"{fit.slope:.2f}" if math.isfinite(fit.slope) else f"{fit.verdict}"
            theory = f", theory {fit.theory:g}" if fit.theory is not None else ""
            lines.append(f"{line.label} {slope}{theory}")
        told.append(f"{panel.title}: {', '.join(lines) or 'no point yet'}")
    return "; ".join(told)
