"""The Hill plot of a layer's gradient noise: tail index against k, a figure per moment."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hptransfer.analysis.slopes import kind
from hptransfer.analysis.tails import INFINITE_VARIANCE, SHARE, SHARES, count
from hptransfer.documents.tails import LayerTail, TailRun
from hptransfer.report.svg import DASHES, INK, THEME, line_style
from hptransfer.report.tails_tables import error, examples, gamma_text, index_text, value

WIDE, HIGH = 3.2, 2.4  # inches, without the legend
ENTRY = 0.17  # inches of height that an entry of the legend takes
NAME = 22  # characters of a layer's name in the legend
LEAST, MOST = 2.0**-3, 2.0**6  # of the index axis; an index above is far from heavy
SPREAD = 0.05  # octaves of k between the marks of two layers
WORST_FIRST = ("heavy", "undecided", "light", "no noise")


def hill_plot(run: TailRun, batch: int, step: int) -> Figure:
    """Hill's index of the Frobenius norms against k, for gradients of `batch` examples.

    One line per kind of layer: the one nearest to heavy after `step` steps. The mark with its 95%
    interval stands at the k of the verdict. The legend has verdict and gamma. The figures of a run
    share axes and colours.
    """
    own = [each for each in run.layers if (each.batch, each.step) == (batch, step)]
    kinds = list(dict.fromkeys(kind(each.layer) for each in run.layers))
    with mpl.rc_context(THEME):
        high = HIGH + ENTRY * (len(kinds) + 1)
        made = Figure(figsize=(WIDE, high), layout="constrained")
        made.set_label(_alt(own, batch, step))
        ax = made.subplots()
        ax.set_title(f"after {step} of {run.steps} steps", loc="left", fontweight="bold")
        ax.axhspan(math.log2(LEAST) - 1, math.log2(INFINITE_VARIANCE),
                   color=INK, alpha=0.18, linewidth=0)  # fmt: skip
        ax.axvline(math.log2(count(run.pairs)), color=INK, linewidth=0.9, linestyle=DASHES)
        handles = []
        for i, name in enumerate(kinds):
            alike = [each for each in own if kind(each.layer) == name]
            if alike:
                shift = SPREAD * (i - (len(kinds) - 1) / 2)
                handles.append(_line(ax, run, min(alike, key=_rank), line_style(i), shift))
        _scale(ax, run)
        ax.set_xlabel("k, largest norms read")
        ax.set_ylabel("tail index")
        made.legend(
            handles=handles, loc="outside lower left", fontsize=8, handlelength=1.4,
            title="layer: verdict, gamma", title_fontsize=8, alignment="left",
        )  # fmt: skip
        sns.despine(ax=ax)
    return made


def _line(ax: Axes, run: TailRun, each: LayerTail, style: tuple[str, str], shift: float) -> Line2D:
    """Draw a layer's index against k, and at the verdict's k the mark; the entry of the legend."""
    colour, mark = style
    points = [
        (math.log2(k), math.log2(index))
        for k, index in zip(run.curve_k, each.curve_index, strict=True)
        if index is not None and 0 < index < math.inf
    ]
    x, y = np.array(points, float).reshape(-1, 2).T
    ax.plot(x, y, color=colour, linewidth=1.3)
    found = each.frobenius
    index, se = value(found.hill_5), error(found.hill_5)
    if index > 0 and math.isfinite(index) and math.isfinite(se):
        at = math.log2(count(run.pairs)) + shift
        ends = max(index - 2 * se, LEAST / 2), index + 2 * se
        ax.plot([at, at], np.log2(ends), color=colour, linewidth=1.2)
        ax.plot([at], [math.log2(index)], color=colour, marker=mark, markersize=5)
    gamma = gamma_text(found.gamma).removeprefix("gamma")
    text = found.verdict + ("" if found.verdict == "no noise" else f",{gamma}")
    label = f"{_cut(each.layer)}: {text}"
    return Line2D([], [], color=colour, marker=mark, markersize=4, label=label)


def _cut(name: str) -> str:
    """The end of a name, by which layers differ."""
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _rank(each: LayerTail) -> tuple[int, float]:
    index = value(each.frobenius.hill_5)
    return WORST_FIRST.index(each.frobenius.verdict), index if math.isfinite(index) else math.inf


def _scale(ax: Axes, run: TailRun) -> None:
    """Both axes in octaves, from all layers of the run."""
    shown = [*_shown(run), 1.0, 4.0]
    low, high = max(min(shown), LEAST), min(max(shown), MOST)
    octaves = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    ax.set_yticks(list(octaves), [f"{2.0**i:g}" for i in octaves], fontsize=9)
    ax.set_ylim(math.log2(low) - 0.2, math.log2(high) + 0.2)
    ks = [run.curve_k[0], *(count(run.pairs, share) for share in SHARES), run.curve_k[-1]]
    ax.set_xticks([math.log2(k) for k in ks], [str(k) for k in ks], fontsize=9)
    ax.set_xlim(math.log2(ks[0]) - 0.2, math.log2(ks[-1]) + 0.2)


def _shown(run: TailRun) -> list[float]:
    return [
        x
        for each in run.layers
        for x in [*each.curve_index, each.frobenius.hill_5.value]
        if x is not None and 0 < x < math.inf
    ]


def _alt(own: Sequence[LayerTail], batch: int, step: int) -> str:
    verdicts = [each.frobenius.verdict for each in own]
    words = [f"{verdicts.count(word)} {word}" for word in WORST_FIRST if word in verdicts]
    worst = min(own, key=_rank)
    return (
        f"Hill's tail index against the number k of largest norms read, gradients of "
        f"{examples(batch)} after {step} steps: {', '.join(words)}; nearest to heavy is "
        f"{worst.layer}, index {index_text(worst.frobenius.hill_5)} at {SHARE:.0%} of the norms."
    )
