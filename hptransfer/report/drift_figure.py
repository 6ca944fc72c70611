"""The drift figure: how far lr* moves from the proxy's, one line per optimizer."""

import math
from itertools import pairwise

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hptransfer.analysis.optimum import Optimum, optima
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import axis_name, signed
from hptransfer.report.svg import INK, THEME, line_style

SHIFT = 0.04  # octaves of the axis between the marks of two optimizers


def drift(suite: Question, rows: pd.DataFrame) -> Figure:
    """lr*(n) in octaves above lr* at the proxy, against n, one line per optimizer, bars 95%.

    The band is the drift threshold. Censored optima are open and have no bar.
    """
    by_label = optima(suite, rows)
    told = []
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        ax = figure.subplots()
        limit = suite.thresholds.drift
        ax.axhspan(-limit, limit, color=INK, alpha=0.15, linewidth=0)
        for i, (label, by_n) in enumerate(by_label.items()):
            known = {n: best for n, best in by_n.items() if best}
            if suite.proxy in known:
                start = known[suite.proxy].log2_lr
                legend = (
                    f"{label} ({suite.lr_text(suite.grid(label).rounded(start))} at {suite.proxy})"
                )
                _draw(ax, known, start, i, (i - (len(by_label) - 1) / 2) * SHIFT, legend)
                told.append(f"{label} {_moves(known, suite.proxy)}")
        if ns := sorted({n for by_n in by_label.values() for n in by_n}):
            ax.set_xticks([math.log2(n) for n in ns], [str(n) for n in ns])
        ax.set_xlabel(axis_name(suite))
        ax.set_ylabel(f"octaves from the optimum at {suite.proxy}")
        if told:
            figure.legend(loc="outside lower center")
        sns.despine(ax=ax)
    figure.set_label(
        f"How far the best learning rate moved from {axis_name(suite)} {suite.proxy}, in octaves: "
        + ("; ".join(told) or "nothing measured yet")
        + "."
    )
    return figure


def _draw(
    ax: Axes, known: dict[int, Optimum], start: float, i: int, shift: float, legend: str
) -> None:
    """Optimizer `i`: its optima in octaves above `start`, moved sideways by `shift`."""
    colour, mark = line_style(i)
    points = [(math.log2(n) + shift, best.log2_lr - start, best) for n, best in known.items()]
    for (x0, y0, first), (x1, y1, second) in pairwise(points):
        style = (0, (2, 2)) if first.censored or second.censored else "-"
        ax.plot([x0, x1], [y0, y1], color=colour, linewidth=1.6, linestyle=style)
    for x, y, best in points:
        bounds = (best.log2_lr - best.interval.low, best.interval.high - best.log2_lr)
        bar = bounds if math.isfinite(sum(bounds)) else (0.0, 0.0)  # one seed gives none
        ax.errorbar(
            [x], [y], yerr=[[bar[0]], [bar[1]]], color=colour, marker=mark, markersize=6,
            fillstyle="none" if best.censored else "full", capsize=3, linewidth=1.2,
        )  # fmt: skip
    ax.plot([], [], color=colour, marker=mark, linewidth=1.6, label=legend)


def _moves(known: dict[int, Optimum], proxy: int) -> str:
    """`−1.0 at 64, −2.0 at 128 (censored)`."""
    start = known[proxy].log2_lr
    return ", ".join(
        f"{signed(best.log2_lr - start, 1)} at {n}" + (" (censored)" if best.censored else "")
        for n, best in known.items()
        if n != proxy
    )
