"""The alignment figure: loss against log2 lr, one panel per optimizer, one line per axis value."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hptransfer.analysis.curve import Curve, curve
from hptransfer.analysis.frame import searches
from hptransfer.analysis.optimum import Optimum, optimum
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import axis_name
from hptransfer.report.svg import DASHES, INK, THEME, Shade, octave_ticks, shades
from hptransfer.suite.grid import Grid

PANEL = (2.9, 2.9)  # inches
PAD = 0.12  # of the useful height, above and below
USEFUL = 1.5  # octaves beside an optimum whose losses the frame shows


@dataclass(frozen=True)
class _Line:
    """One line of a panel; `diverged`: log2 lr at which a run diverged."""

    curve: Curve
    optimum: Optimum | None
    diverged: np.ndarray


_Panels = dict[str, dict[int, _Line]]


def _panels(suite: Question, rows: pd.DataFrame) -> _Panels:
    return {
        label: {n: _line(part, suite.grid(label)) for n, part in by_n.items()}
        for label, by_n in searches(suite, rows).items()
    }


def _line(search: pd.DataFrame, grid: Grid) -> _Line:
    lrs = search.loc[search["status"] == "diverged", "log2_lr"].to_numpy(float)
    return _Line(curve(search), optimum(search, grid), np.unique(lrs))


def _loss_limits(curves: Iterable[Curve]) -> tuple[float, float]:
    """Lower and upper limit of the shared loss axis, nats.

    The frame holds the losses within one and a half octaves of each optimum and cuts the walls off:
    a cliff at the loss at init would flatten every basin.
    """
    lows, highs = [], []
    for each in curves:
        useful = np.isfinite(each.mean) & ~each.roofed
        if useful.any():
            x, y = each.x[useful], each.mean[useful]
            lows.append(y.min())
            highs.extend(y[np.abs(x - x[y.argmin()]) <= USEFUL])
    if not lows:
        return 0.0, 1.0
    low, high = min(lows), max(float(np.quantile(highs, 0.95)), max(lows))
    height = max(high - low, 0.02)
    return low - PAD * height, high + 2 * PAD * height


def alignment(suite: Question, rows: pd.DataFrame, *, columns: int = 4) -> Figure:
    """Loss against log2 lr, one panel per optimizer, one line per axis value, one loss axis.

    Optima are stars; the lr carried from the proxy is a dashed line. A divergence is a cross at the
    roof; a finite loss above the frame, or no lower than at init, is an open triangle there.
    `columns`: panels per row.
    """
    panels = _panels(suite, rows)
    shade = shades({n for by_n in panels.values() for n in by_n})
    labels = list(panels) or list(suite.templates)
    columns = min(columns, len(labels))
    lines = math.ceil(len(labels) / columns)
    low, high = _loss_limits(line.curve for by_n in panels.values() for line in by_n.values())
    with mpl.rc_context(THEME):
        figure = Figure(
            figsize=(PANEL[0] * columns + 0.5, PANEL[1] * lines + 0.7), layout="constrained"
        )
        figure.set_label(_alt(suite, panels))
        axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for ax in axes[len(labels) :]:
            ax.remove()
        for i, (ax, label) in enumerate(zip(axes, labels, strict=False)):
            ax.set_ylim(low, high)
            ax.set_title(label, loc="left", fontweight="bold")
            _panel(ax, panels.get(label, {}), shade, suite, label)
            if i % columns == 0:
                ax.set_ylabel(f"{_loss(suite)}, {suite.unit}")
            if i + columns >= len(labels):
                ax.set_xlabel("learning rate")
            sns.despine(ax=ax)
        _legend(figure, suite, shade, columns)
    return figure


def _panel(
    ax: Axes, lines: Mapping[int, _Line], shade: Mapping[int, Shade], suite: Question, label: str
) -> None:
    if not lines:
        ax.text(0.5, 0.5, "no runs", transform=ax.transAxes, ha="center")
        return
    lrs = np.concatenate([line.curve.x for line in lines.values()])
    octave_ticks(ax, lrs.min(), lrs.max())
    at_proxy = lines[suite.proxy].optimum if suite.proxy in lines else None
    if at_proxy:
        lr = suite.grid(label).rounded(at_proxy.log2_lr)
        ax.axvline(lr, color=INK, linestyle=DASHES, linewidth=1)
    for rank, (n, line) in enumerate(lines.items()):
        colour, mark, width = shade[n]
        points, best = line.curve, line.optimum
        inside = ~points.roofed & np.isfinite(points.mean)
        x, y = points.x[inside], points.mean[inside]
        ax.plot(x, y, color=colour, marker=mark, markersize=3.5, linewidth=width)
        _roof_marks(ax, line, rank, colour)
        if best:
            ax.plot(
                [best.log2_lr], [best.loss], marker="*", markersize=12, color=colour,
                markeredgecolor="white", markeredgewidth=0.6, zorder=5,
            )  # fmt: skip


def _roof_marks(ax: Axes, line: _Line, rank: int, colour: str) -> None:
    """Crosses and open triangles at the roof. Each line has a level of its own there.

    On one level the marks of several axis values at one lr would hide each other.
    """
    low, high = ax.get_ylim()
    points = line.curve
    above = (points.mean > high) | points.roofed
    triangles = points.x[above & ~np.isin(points.x, line.diverged)]
    level = high - (high - low) * (0.02 + 0.035 * rank)
    for x, mark, fill in ((line.diverged, "x", "full"), (triangles, "^", "none")):
        ax.plot(
            x, np.full(len(x), level), linestyle="none", color=colour, marker=mark,
            markersize=4.5, fillstyle=fill, clip_on=False,
            in_layout=False,  # an empty unclipped line has its box at the figure's origin
        )  # fmt: skip


def _legend(figure: Figure, suite: Question, shade: Mapping[int, Shade], columns: int) -> None:
    axis = axis_name(suite)
    handles = [
        Line2D([], [], color=c, marker=m, markersize=4, linewidth=w, label=f"{axis} {n}")
        for n, (c, m, w) in shade.items()
    ]
    plain: dict[str, Any] = {"color": INK, "linestyle": "none"}
    carried = f"carried from {suite.proxy}"
    handles += [
        Line2D([], [], marker="*", markersize=10, label="optimum", **plain),
        Line2D([], [], color=INK, linestyle=DASHES, linewidth=1, label=carried),
        Line2D([], [], marker="x", markersize=5, label="diverged", **plain),
        Line2D([], [], marker="^", markersize=5, fillstyle="none", label="above frame", **plain),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns))


def _loss(suite: Question) -> str:
    """What the runs of a sweep from elsewhere were judged by, nobody told."""
    return "evaluation loss" if suite.kind == "suite" else "loss"


def _alt(suite: Question, panels: _Panels) -> str:
    axis = axis_name(suite)
    told = []
    for label, lines in panels.items():
        optima = [
            f"{suite.lr_text(suite.grid(label).rounded(line.optimum.log2_lr))} at {axis} {n}"
            if line.optimum
            else f"all diverged at {axis} {n}"
            for n, line in lines.items()
        ]
        told.append(f"{label}, best at " + ", ".join(optima))
    listed = "; ".join(told) or "no runs yet"
    told = _loss(suite).capitalize()
    return f"{told} against learning rate, one panel per optimizer. {listed}."
