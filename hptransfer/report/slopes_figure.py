"""The figure of the coordinate check: one panel per optimizer, one line per layer."""

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hptransfer.analysis.slopes import (
    LIMIT,
    LayerSlopes,
    Slope,
    SlopeVerdict,
    by_optimizer,
    kind,
    slope_text,
    steepest_by_kind,
)
from hptransfer.report.svg import INK, THEME, line_style, to_svg

PANEL = (4.1, 2.5)  # inches, the slopes beside it included


def drawn(
    frame: pd.DataFrame, layers: list[LayerSlopes], verdicts: list[SlopeVerdict], salt: str
) -> str:
    """`figure` as SVG text."""
    return to_svg(figure(frame, layers, verdicts), f"{salt}-coords", ink=INK)


def figure(
    frame: pd.DataFrame,
    layers: list[LayerSlopes],
    verdicts: list[SlopeVerdict],
    *,
    columns: int = 3,
) -> Figure:
    """Size of every layer's change at the gate against width, one panel per optimizer.

    One line per layer: the mean over seeds of log2 RMS, in octaves from the narrowest width. The
    slope stands beside it. The wedge holds the slopes within the limit.
    """
    labels = [v.optimizer for v in verdicts]
    columns = min(columns, len(labels))
    lines = math.ceil(len(labels) / columns)
    gate = frame[frame["when"] == "gate"]
    parts = by_optimizer(layers)
    with mpl.rc_context(THEME):
        made = Figure(figsize=(PANEL[0] * columns, PANEL[1] * lines + 0.4), layout="constrained")
        made.set_label(_alt(verdicts))
        axes = made.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[len(labels) :]:
            ax.remove()
        for i, (ax, verdict) in enumerate(zip(axes, verdicts, strict=False)):
            own = parts[verdict.optimizer]
            _panel(ax, gate[gate["optimizer"] == verdict.optimizer], own)
            control = " (control)" if verdict.control else ""
            title = f"{verdict.optimizer}: {verdict.verdict}{control}"
            ax.set_title(title, loc="left", fontweight="bold")
            if i % columns == 0:
                ax.set_ylabel(f"octaves from width {own[0].narrowest}")
            if i + columns >= len(labels):
                ax.set_xlabel("width")
                ax.tick_params(labelbottom=True)
            sns.despine(ax=ax)
    return made


def _panel(ax: Axes, gate: pd.DataFrame, own: list[LayerSlopes]) -> None:
    widths = sorted({int(n) for n in gate["width"]})
    x = np.log2(widths)
    ax.fill_between(x, -LIMIT * (x - x[0]), LIMIT * (x - x[0]), color=INK, alpha=0.25, linewidth=0)
    for i, (name, steepest) in enumerate(steepest_by_kind(own).items()):
        colour, mark = line_style(i)
        for layer in (each.layer for each in own if kind(each.layer) == name):
            part = gate[gate["layer"] == layer]
            size = part["change"].where((part["change"] > 0) & np.isfinite(part["change"]))
            octaves = size.transform(np.log2)
            y = octaves.groupby(part["width"]).mean().reindex(widths).to_numpy(float)
            ax.plot(x, y - y[0], color=colour, marker=mark, markersize=3, linewidth=1.3)
        text = f"{name}  {slope_text(Slope(steepest.gate.value))}"
        ax.plot([], [], color=colour, marker=mark, markersize=3, linewidth=1.3, label=text)
    ax.set_xticks(x, [str(n) for n in widths])
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=8, borderaxespad=0.2)


def _alt(verdicts: list[SlopeVerdict]) -> str:
    told = "; ".join(
        f"{v.optimizer} {v.verdict}, steepest {v.layer} {slope_text(v.slope)}" for v in verdicts
    )
    return f"Size of every layer's change against width, one panel per optimizer. {told}."
