"""Selected rows -> matplotlib figures, and figures -> SVG for a page. lr axes are powers of two.

A figure's label (`Figure.get_label`) is its alt text. Ink, the colour of all text and lines that
carry no data, is one sentinel that `to_svg` exchanges for the page's own text colour.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from hptransfer.analysis.metrics import Curve, Optimum, curve, groups, optimum
from hptransfer.analysis.verdicts import axis_word, power, signed, targets
from hptransfer.errors import printable
from hptransfer.spec import round_lr
from hptransfer.suite.claim import Suite

INK = "#757574"  # legible on white and on near-black where nothing exchanges it
# Luminance between 0.13 and 0.30, so that every hue has contrast 3:1 on white and on near-black.
WIDTHS = LinearSegmentedColormap.from_list("widths", ["#2f7fd6", "#8a63d2", "#d6409f", "#e0590c"])
LABELS = ["#2f7fd6", "#e0590c", "#1c8a5a", "#c03fae", "#a27300", "#6d6ae0", "#c8403f", "#0b8893"]
MARKS = ["o", "s", "^", "D", "v", "P", "X", "p"]
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SEEDS_DRAWN = 8  # thin lines an optimizer; the mean is over all
PANEL = (2.9, 2.9)  # inches
PAD = 0.12  # of the useful height, above and below

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


def _tick(exponent: int) -> str:
    return "2" + str(exponent).translate(SUPERSCRIPT)


def _shades(values: Iterable[int]) -> dict[int, tuple[str, str, float]]:
    """Axis value -> colour, marker and line width; all three grow along the axis."""
    ordered = sorted(values)
    last = max(len(ordered) - 1, 1)
    return {
        n: (to_hex(WIDTHS(i / last)), MARKS[i % len(MARKS)], 1.2 + 1.2 * i / last)
        for i, n in enumerate(ordered)
    }


def _octaves(ax: Axes, low: float, high: float) -> None:
    first, last = math.floor(low), math.ceil(high)
    step = max(1, math.ceil((last - first) / 5))
    ticks = range(first, last + 1, step)
    ax.set_xticks(list(ticks), [_tick(t) for t in ticks])
    ax.set_xlim(low - 0.4, high + 0.4)


def _searched(suite: Suite, rows: pd.DataFrame) -> dict[str, dict[int, pd.DataFrame]]:
    found: dict[str, dict[int, pd.DataFrame]] = {label: {} for label in suite.templates}
    for (label, n, stage), part in groups(rows).items():
        if stage == "search" and label in found:
            found[label][n] = part
    return {label: dict(sorted(parts.items())) for label, parts in found.items() if parts}


def _roof(curves: Iterable[Curve]) -> tuple[float, float]:
    """Lower and upper limit of the shared loss axis, nats.

    The upper one leaves the losses within one and a half octaves of each optimum in the frame and
    cuts the walls off: a cliff at the loss at init would flatten every basin.
    """
    lows, highs = [], []
    for found in curves:
        useful = np.isfinite(found.mean) & ~found.roofed
        if useful.any():
            x, y = found.x[useful], found.mean[useful]
            lows.append(y.min())
            highs.extend(y[np.abs(x - x[y.argmin()]) <= 1.5])
    if not lows:
        return 0.0, 1.0
    low, high = min(lows), max(float(np.quantile(highs, 0.95)), max(lows))
    height = max(high - low, 0.02)
    return low - PAD * height, high + 2 * PAD * height


def alignment(suite: Suite, rows: pd.DataFrame, *, columns: int = 4) -> Figure:
    """Loss against log2 lr, a panel an optimizer, a line an axis value, one shared loss axis.

    Optimum starred, the lr carried from the proxy dashed; diverged runs are crosses at the roof and
    finite losses above it open triangles there. `columns`: panels in a row.
    """
    found = _searched(suite, rows)
    shades = _shades({n for parts in found.values() for n in parts})
    labels = list(found) or list(suite.templates)
    columns = min(columns, len(labels))
    lines = math.ceil(len(labels) / columns)
    best = {(o, n): optimum(part) for o, parts in found.items() for n, part in parts.items()}
    curves = {(o, n): curve(part) for o, parts in found.items() for n, part in parts.items()}
    low, high = _roof(curves.values())
    with mpl.rc_context(THEME):
        figure = Figure(
            figsize=(PANEL[0] * columns + 0.5, PANEL[1] * lines + 0.7), layout="constrained"
        )
        figure.set_label(_alignment_alt(suite, best))
        axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for ax in axes[len(labels) :]:
            ax.remove()
        for i, (ax, label) in enumerate(zip(axes, labels, strict=False)):
            ax.set_ylim(low, high)
            ax.set_title(label, loc="left", fontweight="bold")
            _panel(ax, label, found.get(label, {}), curves, best, shades, suite.proxy)
            if i % columns == 0:
                ax.set_ylabel("evaluation loss, nat")
            if i + columns >= len(labels):
                ax.set_xlabel("learning rate")
            sns.despine(ax=ax)
        _legend(figure, suite, shades, columns)
    return figure


def _panel(
    ax: Axes,
    label: str,
    parts: dict[int, pd.DataFrame],
    curves: dict[tuple[str, int], Curve],
    best: dict[tuple[str, int], Optimum | None],
    shades: dict[int, tuple[str, str, float]],
    proxy: int,
) -> None:
    low, high = ax.get_ylim()
    if not parts:
        ax.text(0.5, 0.5, "no runs", transform=ax.transAxes, ha="center")
        return
    every = np.concatenate([curves[label, n].x for n in parts])
    _octaves(ax, every.min(), every.max())
    carried = best.get((label, proxy))
    if carried:
        ax.axvline(round_lr(carried.log2_lr), color=INK, linestyle=(0, (4, 3)), linewidth=1)
    for rank, (n, part) in enumerate(parts.items()):
        colour, mark, width = shades[n]
        seen = curves[label, n]
        inside = ~seen.roofed & np.isfinite(seen.mean)
        ax.plot(
            seen.x[inside],
            seen.mean[inside],
            color=colour,
            marker=mark,
            markersize=3.5,
            linewidth=width,
        )
        lost = np.unique(part.loc[part["status"] == "diverged", "log2_lr"].to_numpy(float))
        above = seen.x[(seen.mean > high) & ~np.isin(seen.x, lost)]
        # one level a line, so that the marks of several widths at one lr do not hide each other
        level = high - (high - low) * (0.02 + 0.035 * rank)
        for at, roof_mark, fill in ((lost, "x", "full"), (above, "^", "none")):
            ax.plot(
                at,
                np.full(len(at), level),
                linestyle="none",
                color=colour,
                marker=roof_mark,
                markersize=4.5,
                fillstyle=fill,
                clip_on=False,
                in_layout=False,  # an empty unclipped line has its box at the figure's origin
            )
        top = best[label, n]
        if top:
            ax.plot(
                [top.log2_lr],
                [top.loss],
                marker="*",
                markersize=12,
                color=colour,
                markeredgecolor="white",
                markeredgewidth=0.6,
                zorder=5,
            )


def _legend(
    figure: Figure, suite: Suite, shades: dict[int, tuple[str, str, float]], columns: int
) -> None:
    handles = [
        Line2D(
            [], [], color=c, marker=m, markersize=4, linewidth=w, label=f"{axis_word(suite)} {n}"
        )
        for n, (c, m, w) in shades.items()
    ]
    plain: dict[str, Any] = {"color": INK, "linestyle": "none"}
    handles += [
        Line2D([], [], marker="*", markersize=10, label="optimum", **plain),
        Line2D(
            [], [], color=INK, linestyle=(0, (4, 3)), linewidth=1,
            label=f"carried from {suite.proxy}",
        ),
        Line2D([], [], marker="x", markersize=5, label="diverged", **plain),
        Line2D([], [], marker="^", markersize=5, fillstyle="none", label="above frame", **plain),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns))


def _alignment_alt(suite: Suite, best: dict[tuple[str, int], Optimum | None]) -> str:
    axis = axis_word(suite)
    told = []
    for label in dict.fromkeys(o for o, _ in best):
        mine = [
            f"{power(round_lr(b.log2_lr))} at {axis} {n}" if b else f"all diverged at {axis} {n}"
            for (o, n), b in best.items()
            if o == label
        ]
        told.append(f"{label}, best at " + ", ".join(mine))
    listed = "; ".join(told) or "no runs yet"
    return f"Evaluation loss against learning rate, one panel an optimizer. {listed}."


def curves(suite: Suite, rows: pd.DataFrame) -> Figure:
    """Training loss against step at the carried lr and the largest target, fresh seeds, thin lines.

    The mean over seeds is thick. A transported method's curve is taken at Y.
    """
    n = max(targets(suite, rows), default=suite.proxy)
    parts, optima = groups(rows), _searched(suite, rows)
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        ax = figure.subplots()
        ends, drawn = [], []
        for i, label in enumerate(suite.templates):
            at_proxy = optima.get(label, {}).get(suite.proxy)
            best = None if at_proxy is None else optimum(at_proxy)
            fresh = parts.get((label, n, "fresh"))
            if best is None or fresh is None:
                continue
            mine = fresh[fresh["log2_lr"] == suite.clip_lr(label, best.log2_lr)]
            paths = [np.array(path, float) for path in mine["curve"] if len(path) > 1]
            if not paths:
                continue
            colour = LABELS[i % len(LABELS)]
            for path in paths[:SEEDS_DRAWN]:
                ax.plot(path[:, 0], path[:, 1], color=colour, linewidth=0.6, alpha=0.5)
            finite = [path for path in paths if np.isfinite(path).all()]
            longest = max((len(path) for path in finite), default=0)
            if not longest:  # all diverged
                continue
            mean = np.mean([path for path in finite if len(path) == longest], axis=0)
            ax.plot(mean[:, 0], mean[:, 1], color=colour, linewidth=2, label=label)
            ends.append(f"{label} {mean[-1, 1]:.3f}")
            drawn.extend(mean[len(mean) // 10 :, 1])
        if drawn:
            bottom, top = min(drawn), float(np.quantile(drawn, 0.98))
            ax.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
        ax.set_xlabel("step")
        ax.set_ylabel("training loss, nat")
        ax.set_title(f"{axis_word(suite)} {n}, lr carried from {suite.proxy}", loc="left")
        if ends:
            figure.legend(loc="outside lower center")
        sns.despine(ax=ax)
    end = ", ".join(ends) or "no fresh-seed runs yet"
    figure.set_label(
        f"Training loss against step at {axis_word(suite)} {n} with the carried learning rate. "
        f"Last values: {end}."
    )
    return figure


def drift(suite: Suite, rows: pd.DataFrame) -> Figure:
    """lr*(n) in octaves above lr* at the proxy, against n, one line an optimizer, bars 95%.

    The band is the drift threshold. Censored optima are open and have no bar.
    """
    found = _searched(suite, rows)
    told = []
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        ax = figure.subplots()
        limit = suite.thresholds.drift
        ax.axhspan(-limit, limit, color=INK, alpha=0.15, linewidth=0)
        ns = sorted({n for parts in found.values() for n in parts})
        for i, (label, parts) in enumerate(found.items()):
            best = {n: b for n, part in parts.items() if (b := optimum(part))}
            if suite.proxy not in best:
                continue
            start = best[suite.proxy].log2_lr
            colour = LABELS[i % len(LABELS)]
            shift = (i - (len(found) - 1) / 2) * 0.04
            points = [(math.log2(n) + shift, b.log2_lr - start, b) for n, b in best.items()]
            for (x0, y0, b0), (x1, y1, b1) in pairwise(points):
                broken = bool(b0.censored or b1.censored)
                ax.plot(
                    [x0, x1], [y0, y1], color=colour, linewidth=1.6,
                    linestyle=(0, (2, 2)) if broken else "-",
                )  # fmt: skip
            for x, y, b in points:
                se = b.se if b.seeds > 1 else 0.0  # the grid's own says nothing of the seeds
                ax.errorbar(
                    [x], [y], yerr=[1.96 * se], color=colour, marker=MARKS[i % len(MARKS)],
                    markersize=6, fillstyle="none" if b.censored else "full", capsize=3,
                    linewidth=1.2,
                )  # fmt: skip
            ax.plot(
                [], [], color=colour, marker=MARKS[i % len(MARKS)], linewidth=1.6,
                label=f"{label} ({power(round_lr(start))} at {suite.proxy})",
            )  # fmt: skip
            told.append(
                f"{label} "
                + ", ".join(
                    f"{signed(b.log2_lr - start, 1)} at {n}" + (" (censored)" if b.censored else "")
                    for n, b in best.items()
                    if n != suite.proxy
                )
            )
        if ns:
            ax.set_xticks([math.log2(n) for n in ns], [str(n) for n in ns])
        ax.set_xlabel(axis_word(suite))
        ax.set_ylabel(f"octaves from the optimum at {suite.proxy}")
        if told:
            figure.legend(loc="outside lower center")
        sns.despine(ax=ax)
    figure.set_label(
        f"How far the best learning rate moved from {axis_word(suite)} {suite.proxy}, in octaves: "
        + ("; ".join(told) or "nothing measured yet")
        + "."
    )
    return figure


def to_svg(figure: Figure, salt: str, *, ink: str = "currentColor") -> str:
    """An `<svg>` element with the alt text; the same figure and salt give the same bytes.

    Text stays text, in DejaVu Sans or Verdana, whose widths agree. `ink`: colour of text and axes,
    by default the page's own; give a fixed colour for a file that stands alone. Every id begins
    with `salt`, so that figures with different salts share a page.
    """
    buffer = io.StringIO()
    for each in figure.findobj(Text):
        assert isinstance(each, Text)
        each.set_text(printable(each.get_text()))  # XML cannot hold control characters
    with mpl.rc_context({**THEME, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # text stays text
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    salt = re.sub(r"[^A-Za-z0-9._-]", "-", salt)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{salt}-", text)
    text = text.replace(INK, ink).replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    width, height = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    alt = _escape(printable(str(figure.get_label())))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{alt}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )
