"""The figures of a study: calls against 1/eps and against the number of directions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hptransfer.laboratory.exponents import Fit
from hptransfer.laboratory.plan import Point
from hptransfer.report.svg import INK, THEME, line_style

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
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))  # type: ignore[attr-defined]
    ax.yaxis.set_major_formatter(lambda value, _: f"1e{value:.0f}")


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
