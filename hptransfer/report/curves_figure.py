"""The figure of the training curves: training loss against step at the carried learning rate."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hptransfer.analysis.carried import targets
from hptransfer.analysis.frame import groups, searches
from hptransfer.analysis.optimum import optimum
from hptransfer.analysis.sentences import place
from hptransfer.report.svg import LABELS, THEME
from hptransfer.suite.resolved import Suite

SEEDS_DRAWN = 8  # thin lines per optimizer; the mean is over all seeds


def curves(suite: Suite, rows: pd.DataFrame) -> Figure:
    """Training loss against step at the carried lr and the largest target, a thin line a seed.

    The mean over seeds is thick. A transported method's curve is taken at Y.
    """
    n = max(targets(suite, rows), default=suite.proxy)
    with mpl.rc_context(THEME):
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        ax = figure.subplots()
        ends, useful = [], []
        for i, (label, paths) in enumerate(_paths(suite, rows, n).items()):
            mean = _draw(ax, label, paths, LABELS[i % len(LABELS)])
            if len(mean):
                ends.append(f"{label} {mean[-1, 1]:.3f}")
                useful.extend(mean[len(mean) // 10 :, 1])
        if useful:
            bottom, top = min(useful), float(np.quantile(useful, 0.98))
            ax.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
        ax.set_xlabel("step")
        ax.set_ylabel("training loss, nat")
        ax.set_title(f"{place(suite, n)}, lr carried from {suite.proxy}", loc="left")
        if ends:
            figure.legend(loc="outside lower center")
        sns.despine(ax=ax)
    end = ", ".join(ends) or "no runs yet"
    figure.set_label(
        f"Training loss against step at {place(suite, n)} with the carried learning rate. "
        f"Last values: {end}."
    )
    return figure


def _paths(suite: Suite, rows: pd.DataFrame, n: int) -> dict[str, list[np.ndarray]]:
    """Label -> training curves of the runs at the carried lr, each (points, 2)."""
    parts, by_label = groups(rows), searches(suite, rows)
    paths: dict[str, list[np.ndarray]] = {label: [] for label in suite.templates}
    for label in paths:
        search = by_label.get(label, {}).get(suite.proxy)
        best = None if search is None else optimum(search)
        own = parts.get((label, n))
        if best is not None and own is not None:
            carried = own[own["log2_lr"] == suite.clip_lr(label, best.log2_lr)]
            paths[label] = [np.array(c, float) for c in carried["curve"] if len(c) > 1]
    return paths


def _draw(ax: Axes, label: str, paths: list[np.ndarray], colour: str) -> np.ndarray:
    """Draw the seeds thin, their mean thick; the mean, (points, 2), empty if all diverged."""
    for path in paths[:SEEDS_DRAWN]:
        ax.plot(path[:, 0], path[:, 1], color=colour, linewidth=0.6, alpha=0.5)
    finite = [path for path in paths if np.isfinite(path).all()]
    longest = max((len(path) for path in finite), default=0)
    if not longest:
        return np.empty((0, 2))
    mean = np.mean([path for path in finite if len(path) == longest], axis=0)
    ax.plot(mean[:, 0], mean[:, 1], color=colour, linewidth=2, label=label)
    return mean
