"""The figures of a study of transport: gain against the diagnostic, and loss against strength."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hptransfer.analysis.parabola import Interval
from hptransfer.report.svg import INK, MARKS, THEME, line_style
from hptransfer.transport.gains import Known
from hptransfer.transport.study import FULL, NONE, Cell

# Middle luminance at both ends, so that every colour is legible on white and on near-black.
NOISE = LinearSegmentedColormap.from_list("noise", ["#2f7fd6", "#8b8b8b", "#e0590c"])
WIDE = 5.0  # inches, which a phone shows whole
GAINS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # nats; linear below the first
REACH = 3.0  # octaves of log2(e1/nu) at both ends of the colours


def prediction(found: Sequence[Known]) -> Figure | None:
    """Gain of strength 1 against log2(e1/e2), colour log2(e1/nu); None without a point."""
    points = [
        _Mark(each.cell, each.straightness, arm.gain.difference, each.signal.value)
        for each in found
        if (arm := each.arm(FULL)) is not None and arm.gain is not None
    ]
    return _scatter(points, "Gain of strength 1 against log2(e1/e2), each at its best lr")


def rungs(found: Sequence[Known]) -> Figure | None:
    """As `prediction`, for strengths 0 and 1 at the same learning rate, on one seed."""
    points = []
    for each in found:
        for rung in each.rungs:
            one = rung.diagnostic
            if one is not None and min(one.staleness, one.curvature, one.noise) > 0:
                ratio = Interval(math.log2(one.staleness / one.curvature))
                signal = math.log2(one.staleness / one.noise)
                points.append(_Mark(each.cell, ratio, Interval(rung.gain), signal))
    return _scatter(points, "Gain of strength 1 against log2(e1/e2) at equal learning rates")


@dataclass(frozen=True)
class _Mark:
    """A point of a scatter: log2(e1/e2), the gain in nats, log2(e1/nu)."""

    cell: Cell
    ratio: Interval
    gain: Interval
    signal: float


def _scatter(points: Sequence[_Mark], what: str) -> Figure | None:
    points = [p for p in points if math.isfinite(p.ratio.value) and math.isfinite(p.signal)]
    if not points:
        return None
    norm = Normalize(-REACH, REACH, clip=True)
    kinds = dict.fromkeys((p.cell.model, p.cell.schedule) for p in points)
    marks = dict(zip(kinds, MARKS, strict=False))
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(WIDE, 5.0), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        for p in points:
            ax.errorbar(
                [p.ratio.value], [p.gain.value], _bars(p.gain), _bars(p.ratio),
                color=NOISE(norm(p.signal)), marker=marks[p.cell.model, p.cell.schedule],
                markersize=7, linewidth=0.8,
            )  # fmt: skip
        ax.set_xlabel("log2(e1/e2): staleness over curvature")
        ax.set_ylabel("gain of s = 1, nats")
        ax.set_yscale("symlog", linthresh=GAINS[0])
        ticks = [-gain for gain in reversed(GAINS)] + [0.0, *GAINS]
        low, high = ax.get_ylim()
        shown = [tick for tick in ticks if low <= tick <= high]
        ax.set_yticks(shown, [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in shown])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
        bar = figure.colorbar(
            ScalarMappable(norm, NOISE), ax=ax, location="bottom", shrink=0.8, aspect=30
        )
        bar.set_label("log2(e1/\N{GREEK SMALL LETTER NU}): staleness over noise")
        handles = [
            Line2D([], [], color=INK, marker=mark, linestyle="", label=" ".join(key))
            for key, mark in marks.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    told = (f"{p.cell.name} gain {p.gain.value:+.3f}, ratio {p.ratio.value:+.1f}" for p in points)
    figure.set_label(f"{what}: {'; '.join(told)}")
    return figure


def _bars(interval: Interval) -> list[list[float]]:
    """Lengths of error bars; 0 where an interval is unbounded or unknown."""
    lengths = (interval.value - interval.low, interval.high - interval.value)
    return [[x if math.isfinite(x) else 0.0] for x in lengths]


def strengths(found: Sequence[Known], schedule: str) -> Figure | None:
    """Gain of every constant strength over strength 0, one line per cell; None without a line."""
    own = [each for each in found if each.cell.schedule == schedule and len(each.arms) > 1]
    if not own:
        return None
    models = list(dict.fromkeys(each.cell.model for each in own))
    with mpl.rc_context(THEME):
        high = 2.2 * len(models) + 0.2 * -(-len(own) // 2) + 0.4
        figure = Figure(figsize=(WIDE, high), layout="constrained")
        axes = figure.subplots(len(models), 1, squeeze=False, sharex=True)[:, 0]
        handles = []
        for i, each in enumerate(own):
            ax = axes[models.index(each.cell.model)]
            colour, mark = line_style(i)
            arms = [a for a in each.arms if not a.decay and not a.star]
            y = [0.0 if a.strength == NONE or a.gain is None else a.gain.difference.value
                 for a in arms]  # fmt: skip
            ax.plot([a.strength for a in arms], y, color=colour, marker=mark, markersize=5)
            if each.star is not None:
                ax.axvline(each.star, color=colour, linewidth=0.8, linestyle=":")
            name = each.cell.name.removesuffix(f" {schedule}")
            handles.append(Line2D([], [], color=colour, marker=mark, label=name))
        for ax, model in zip(axes, models, strict=True):
            ax.set_title(model, loc="left")
            ax.axhline(0, color=INK, linewidth=0.8)
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_ylabel("gain, nats")
        axes[-1].set_xlabel("strength s")
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    figure.set_label(f"Gain against strength, {schedule} lr: " + "; ".join(
        f"{each.cell.name}: " + ", ".join(
            f"{a.strength:g} {a.gain.difference.value:+.3f}"
            for a in each.arms if a.gain is not None and not a.decay and not a.star)
        for each in own))  # fmt: skip
    return figure
