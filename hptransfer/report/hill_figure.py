"""The Hill plot of a run's gradient noise: tail index against k, one panel per moment."""

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

PANEL = (5.0, 2.5)  # inches, the legend beside it included
ENTRY = 0.18  # inches of height that an entry of the legend takes
NAME = 20  # characters of a layer's name in the legend
LEAST, MOST = 2.0**-3, 2.0**6  # of the index axis; an index above is far from heavy
SPREAD = 0.05  # octaves of k between the marks of two kinds of layers
WORST_FIRST = ("heavy", "undecided", "light", "no noise")


def hill_plot(run: TailRun, batch: int, *, columns: int = 2) -> Figure:
    """Hill's index of the Frobenius norms against k, for gradients of `batch` examples.

    One panel per moment, one line per layer, one colour per kind of layer. The mark with its 95%
    interval stands at the k of the verdict. The legend has verdict and gamma of the layer of each
    kind that is nearest to heavy.
    """
    own = [each for each in run.layers if each.batch == batch]
    steps = sorted({each.step for each in own})
    style = {name: line_style(i) for i, name in enumerate(_kinds(own))}
    columns = min(columns, len(steps))
    lines = math.ceil(len(steps) / columns)
    with mpl.rc_context(THEME):
        high = max(PANEL[1], ENTRY * (len(style) + 3))
        made = Figure(figsize=(PANEL[0] * columns, high * lines + 0.3), layout="constrained")
        made.set_label(_alt(own, batch, steps))
        axes = made.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[len(steps) :]:
            ax.remove()
        for i, (ax, step) in enumerate(zip(axes, steps, strict=False)):
            _panel(ax, run, [each for each in own if each.step == step], style)
            ax.set_title(f"after {step} of {run.steps} steps", loc="left", fontweight="bold")
            if i % columns == 0:
                ax.set_ylabel("tail index")
            if i + columns >= len(steps):
                ax.set_xlabel("k, largest norms read")
                ax.tick_params(labelbottom=True)
            sns.despine(ax=ax)
        _scale(axes[0], run)
    return made


def _kinds(own: Sequence[LayerTail]) -> list[str]:
    return list(dict.fromkeys(kind(each.layer) for each in own))


def _panel(
    ax: Axes, run: TailRun, own: Sequence[LayerTail], style: dict[str, tuple[str, str]]
) -> None:
    """The lines of one moment, with their marks and the legend beside them."""
    edges = math.log2(LEAST) - 1, math.log2(INFINITE_VARIANCE)
    ax.axhspan(*edges, color=INK, alpha=0.18, linewidth=0)
    chosen = count(run.pairs)
    ax.axvline(math.log2(chosen), color=INK, linewidth=0.9, linestyle=DASHES)
    handles = []
    for i, (name, (colour, mark)) in enumerate(style.items()):
        alike = [each for each in own if kind(each.layer) == name]
        shift = SPREAD * (i - (len(style) - 1) / 2)
        for each in alike:
            k, index = _curve(run, each)
            ax.plot(k, index, color=colour, linewidth=1.2)
            _mark(ax, math.log2(chosen) + shift, each, colour, mark)
        text = _cut(name)
        if alike:
            worst = min(alike, key=_rank).frobenius
            of = (
                ""
                if worst.verdict == "no noise"
                else f", {gamma_text(worst.gamma).removeprefix('gamma ')}"
            )
            text += f": {worst.verdict}{of}"
        handles.append(Line2D([], [], color=colour, marker=mark, markersize=4, label=text))
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.06), fontsize=8,
        borderaxespad=0.2, handlelength=1.4, title="layer: verdict, gamma", title_fontsize=8,
        alignment="left",
    )  # fmt: skip


def _cut(name: str) -> str:
    """The end of a name, by which layers differ."""
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _curve(run: TailRun, each: LayerTail) -> tuple[np.ndarray, np.ndarray]:
    """log2 k and log2 of the index there, where it is known."""
    points = [
        (math.log2(k), math.log2(index))
        for k, index in zip(run.curve_k, each.curve_index, strict=True)
        if index is not None and 0 < index < math.inf
    ]
    k, index = np.array(points, float).reshape(-1, 2).T
    return k, index


def _mark(ax: Axes, at: float, each: LayerTail, colour: str, mark: str) -> None:
    """The index that the verdict reads, with its 95% interval."""
    index, se = value(each.frobenius.hill_5), error(each.frobenius.hill_5)
    if index > 0 and math.isfinite(index) and math.isfinite(se):
        ends = max(index - 2 * se, LEAST / 2), index + 2 * se
        ax.plot([at, at], np.log2(ends), color=colour, linewidth=1.2)
        ax.plot([at], [math.log2(index)], color=colour, marker=mark, markersize=5)


def _rank(each: LayerTail) -> tuple[int, float]:
    index = value(each.frobenius.hill_5)
    return WORST_FIRST.index(each.frobenius.verdict), index if math.isfinite(index) else math.inf


def _scale(ax: Axes, run: TailRun) -> None:
    """Both axes in octaves; all panels share them."""
    shown = [*_shown(run), 1.0, 4.0]
    low, high = max(min(shown), LEAST), min(max(shown), MOST)
    octaves = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    ax.set_yticks(list(octaves), [f"{2.0**i:g}" for i in octaves])
    ax.set_ylim(math.log2(low) - 0.2, math.log2(high) + 0.2)
    ks = [run.curve_k[0], *(count(run.pairs, share) for share in SHARES), run.curve_k[-1]]
    ax.set_xticks([math.log2(k) for k in ks], [str(k) for k in ks])
    ax.set_xlim(math.log2(ks[0]) - 0.2, math.log2(ks[-1]) + 0.2)


def _shown(run: TailRun) -> list[float]:
    return [
        x
        for each in run.layers
        for x in [*each.curve_index, each.frobenius.hill_5.value]
        if x is not None and 0 < x < math.inf
    ]


def _alt(own: Sequence[LayerTail], batch: int, steps: Sequence[int]) -> str:
    told = []
    for step in steps:
        at = sorted((each for each in own if each.step == step), key=_rank)
        worst = at[0]
        words = ", ".join(
            f"{n} {verdict}"
            for verdict in WORST_FIRST
            if (n := sum(each.frobenius.verdict == verdict for each in at))
        )
        told.append(
            f"after {step} steps {words}, nearest to heavy {worst.layer} with an index of "
            f"{index_text(worst.frobenius.hill_5)}"
        )
    return (
        f"Hill's tail index against the number k of largest norms read, gradients of "
        f"{examples(batch)}, at {SHARE:.0%} of the norms: {'; '.join(told)}."
    )
