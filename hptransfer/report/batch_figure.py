"""The figure of batch sizes, or of numbers of steps: tuned loss, one line per optimizer."""

import math

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hptransfer.analysis.batch import Tuned
from hptransfer.analysis.batch_sentences import unit
from hptransfer.analysis.sentences import axis_name
from hptransfer.report.svg import INK, THEME, line_style
from hptransfer.suite.resolved import Suite

SHIFT = 0.05  # octaves of the axis between the crosses of two optimizers


def losses(suite: Suite, table: list[Tuned]) -> Figure:
    """Loss at the best lr against the axis value, one line per optimizer, band over the seeds.

    An optimum that is censored has an open mark; where every run diverged a cross stands at the
    roof.
    """
    labels = list(dict.fromkeys(row.optimizer for row in table))
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(4.8, 4.6), layout="constrained")
        ax = figure.subplots()
        for i, label in enumerate(labels):
            own = [row for row in table if row.optimizer == label]
            _draw(ax, own, *line_style(i))
        _roof(ax, table, labels)
        if ns := sorted({row.n for row in table}):
            ax.set_xticks([math.log2(n) for n in ns], [str(n) for n in ns])
        ax.set_xlabel(axis_name(suite))
        ax.set_ylabel("evaluation loss at the best lr, nat")
        equal = f", {suite.tokens:,} {unit(suite)}" if suite.tokens else ""
        every = "number of steps" if suite.axis == "steps" else axis_name(suite)
        ax.set_title(f"tuned at every {every}{equal}", loc="left")
        if labels:
            figure.legend(handles=_handles(labels, table), loc="outside lower center", ncols=2)
        sns.despine(ax=ax)
    figure.set_label(_alt(suite, table, labels))
    return figure


def _draw(ax: Axes, own: list[Tuned], colour: str, mark: str) -> None:
    """The line of one optimizer with its band from the lowest to the highest seed.

    Both break where a value between two others has no loss.
    """
    x = [math.log2(row.n) for row in own]
    ax.plot(x, [row.loss for row in own], color=colour, linewidth=1.6)
    low, high = ([end(row.losses, default=math.nan) for row in own] for end in (min, max))
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    for row, at in zip(own, x, strict=True):
        if not math.isfinite(row.loss):
            continue
        is_open = row.optimum is not None and row.optimum.censored is not None
        ax.plot(
            [at], [row.loss], color=colour, marker=mark, markersize=6,
            fillstyle="none" if is_open else "full",
        )  # fmt: skip


def _roof(ax: Axes, table: list[Tuned], labels: list[str]) -> None:
    """A cross at the roof for every axis value at which an optimizer always diverged."""
    top = ax.get_ylim()[1]
    for i, label in enumerate(labels):
        lost = [row.n for row in table if row.optimizer == label and _is_lost(row)]
        x = np.log2(np.array(lost, float)) + (i - (len(labels) - 1) / 2) * SHIFT
        ax.plot(
            x, np.full(len(x), top), linestyle="none", marker="x", markersize=6,
            color=line_style(i)[0], clip_on=False,
            in_layout=False,  # an empty unclipped line has its box at the figure's origin
        )  # fmt: skip
    ax.set_ylim(top=top)


def _is_lost(row: Tuned) -> bool:
    return row.optimum is None and row.n_diverged > 0


def _handles(labels: list[str], table: list[Tuned]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=mark, label=label)
        for label, (colour, mark) in zip(labels, map(line_style, range(len(labels))), strict=True)
    ]
    if any(row.optimum and row.optimum.censored for row in table):
        plain = {"color": INK, "marker": "o", "fillstyle": "none", "linestyle": "none"}
        handles.append(Line2D([], [], label="censored", **plain))  # type: ignore[arg-type]
    if any(_is_lost(row) for row in table):
        handles.append(Line2D([], [], label="diverged", color=INK, marker="x", linestyle="none"))
    return handles


def _told(row: Tuned) -> str:
    if not math.isfinite(row.loss):
        return f"{'diverged' if _is_lost(row) else 'none'} at {row.n}"
    censored = " (censored)" if row.optimum and row.optimum.censored else ""
    return f"{row.loss:.3f} at {row.n}{censored}"


def _alt(suite: Suite, table: list[Tuned], labels: list[str]) -> str:
    axis, told = axis_name(suite), []
    for label in labels:
        own = [row for row in table if row.optimizer == label]
        told.append(f"{label} {', '.join(_told(row) for row in own)}")
    listed = "; ".join(told) or "no runs yet"
    return f"Evaluation loss at the best learning rate against {axis}, in nat: {listed}."
