"""What weakens a sweep: findings that whoever made it can act on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hptransfer.analysis.curve import Curve, curve
from hptransfer.analysis.frame import groups, searches
from hptransfer.analysis.optimum import Optimum, near, optimum
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import axis_name, place, signed
from hptransfer.analysis.statuses import count, finished
from hptransfer.documents.analysis import Kind

ENOUGH = 4  # points of a fit; a parabola through three leaves none to show that it fits
WIDE = 1.0  # octaves between neighbours
CLOSE = 0.015  # octaves, about 1%
FLAT_RANGE = 2.0  # octaves over which a loss that does not change says something


@dataclass(frozen=True)
class Finding:
    """One weakness of the runs of a label, and what to do. `values`: axis values concerned."""

    kind: Kind
    label: str
    values: tuple[int, ...]
    sentence: str


@dataclass(frozen=True, eq=False)
class _Searched:
    """One curve of the sweep and its optimum."""

    label: str
    n: int
    rows: pd.DataFrame
    points: Curve
    best: Optimum | None


def findings(question: Question, rows: pd.DataFrame, together: Sequence[str] = ()) -> list[Finding]:
    """All of them: by label, the graver before the others. `together`: columns that change with n.

    `rows`: those of the question, with a column progress, NaN where it is not known.
    """
    found = [
        Finding(
            "together",
            "",
            (),
            f"{', '.join(together)} change{'s' if len(together) == 1 else ''} with the "
            f"{axis_name(question)}: a drift may come from any of them.",
        )
    ] * bool(together)
    parts, every = groups(rows), searches(question, rows)
    for label in question.templates:
        curves = [_searched(question, label, n, part) for n, part in every.get(label, {}).items()]
        found += _lacking(question, label, [each.n for each in curves])
        for check in (_edges, _gaps, _flat, _coarse, _few, _unequal_grids, _close):
            found += check(question, label, curves)
        own = {n: part for (other, n), part in parts.items() if other == label}
        found += [*_seeds(question, label, curves), *_unfinished(question, label, own)]
        found += _shorter(question, label, own)
    return found


def _searched(question: Question, label: str, n: int, rows: pd.DataFrame) -> _Searched:
    return _Searched(label, n, rows, curve(rows), optimum(rows, question.grid(label)))


def _at(question: Question, values: Sequence[int]) -> str:
    """`at width 64, 128`."""
    rest = "".join(f", {n}" for n in values[1:])
    return f"at {place(question, values[0])}{rest}"


def _finding(
    kind: Kind, question: Question, label: str, curves: Sequence[_Searched], told: str
) -> list[Finding]:
    """One finding over these curves; [] without one. `told`: what follows label and place."""
    if not curves:
        return []
    values = tuple(each.n for each in curves)
    return [Finding(kind, label, values, f"{label} {_at(question, values)}: {told}")]


def _lacking(question: Question, label: str, there: Sequence[int]) -> list[Finding]:
    missing = tuple(n for n in question.axis_values if n not in there)
    if not missing:
        return []
    return [Finding("missing", label, missing, f"{label} has no run {_at(question, missing)}.")]


def _edges(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    found = []
    for side, word, cure in (("low", "smallest", "smaller"), ("high", "largest", "larger")):
        own = [each for each in curves if each.best and each.best.censored == side]
        lrs = ", ".join(dict.fromkeys(question.lr_text(x.best.log2_lr) for x in own if x.best))
        told = f"the best lr ({lrs}) is the {word} one tried; try {cure} ones."
        found += _finding("edge", question, label, own, told)
    return found


def _gaps(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    own = [each for each in curves if each.best and each.best.censored == "gap"]
    told = "a neighbour of the best lr was left out; try the rates between."
    return _finding("gap", question, label, own, told)


def _flat(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    def flat(each: _Searched) -> bool:
        inside = np.isfinite(each.points.mean)
        x, y = each.points.x[inside], each.points.mean[inside]
        tol = question.thresholds.tol
        return len(x) > 2 and x[-1] - x[0] >= FLAT_RANGE and bool(y.max() - y.min() < tol)

    own = [each for each in curves if flat(each)]
    told = (
        f"the loss changes by less than {question.thresholds.tol:g} {question.unit} over all "
        "learning rates, so any of them transfers and the verdict says nothing; check that the lr "
        "reaches the update (a clipped or normalised update may hide it)."
    )
    return _finding("flat", question, label, own, told)


def _inside(curves: Sequence[_Searched]) -> list[_Searched]:
    """Curves with an optimum between two points."""
    return [each for each in curves if each.best and not each.best.censored]


def _coarse(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    grid = question.grid(label)

    def step(each: _Searched) -> float:
        return grid.step(each.points.x, int(np.argmin(each.points.mean)))

    own = [each for each in _inside(curves) if step(each) > WIDE * (1 + CLOSE)]
    widest = max(map(step, own), default=0.0)
    told = (
        f"learning rates lie up to {widest:.1f} octaves apart at the optimum, so its place is "
        "uncertain by about as much; try factors of 2 or less there."
    )
    return _finding("coarse", question, label, own, told)


def _few(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    def used(each: _Searched) -> int:
        known = near(each.points, question.grid(label))
        return 0 if known is None else len(known.x)

    own = [each for each in _inside(curves) if used(each) < ENOUGH]
    told = (
        f"fewer than {ENOUGH} learning rates fit the parabola, so nothing shows that it fits; try "
        "more near the optimum."
    )
    return _finding("few points", question, label, own, told)


def _unequal_grids(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    tried = {each.n: frozenset(each.points.x.tolist()) for each in curves}
    if len(set(tried.values())) < 2:
        return []
    told = ", ".join(
        f"{len(x)} from {2.0 ** min(x):.3g} to {2.0 ** max(x):.3g} at {n}" for n, x in tried.items()
    )
    told = f"{label}: not every {axis_name(question)} has the same learning rates ({told})."
    return [Finding("unequal grids", label, tuple(tried), told)]


def _close(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    own = [each for each in curves if (np.diff(each.points.x) < CLOSE).any()]
    told = "two learning rates differ by less than 1%; if they are one, write it alike."
    return _finding("close rates", question, label, own, told)


def _seeds(question: Question, label: str, curves: Sequence[_Searched]) -> list[Finding]:
    counts = {each.n: each.points.grid.shape[1] for each in curves if each.points.grid.size}
    if not counts:
        return []
    if max(counts.values()) == 1:
        told = (
            f"{label}: one seed, so no verdict is more than indicative; run the learning rates "
            "near the optimum on three."
        )
        return [Finding("one seed", label, tuple(counts), told)]
    uneven = [each for each in curves if np.isnan(each.points.grid).any()]
    told = "not every lr ran on every seed; those that did decide."
    found = _finding("unequal seeds", question, label, uneven, told)
    if len(set(counts.values())) > 1:
        by_n = ", ".join(f"{count} at {n}" for n, count in counts.items())
        told = f"{label}: the number of seeds differs ({by_n})."
        found.append(Finding("unequal seeds", label, tuple(counts), told))
    return found


def _unfinished(question: Question, label: str, parts: dict[int, pd.DataFrame]) -> list[Finding]:
    lost = {n: count(part, "failed") for n, part in parts.items()}
    lost = {n: number for n, number in sorted(lost.items()) if number}
    if not lost:
        return []
    told = ", ".join(f"{number} at {place(question, n)}" for n, number in lost.items())
    sentence = f"{label}: unfinished runs are left out ({told}); finish them."
    return [Finding("unfinished", label, tuple(lost), sentence)]


def _shorter(question: Question, label: str, parts: dict[int, pd.DataFrame]) -> list[Finding]:
    """Runs that stopped before the others of their curve did, with the lr not yet decayed."""
    short: dict[int, tuple[int, float]] = {}
    for n, part in sorted(parts.items()):
        done = finished(part)
        ends = done.loc[done["status"] == "done", "progress"].to_numpy(float)
        if len(ends) and not np.isnan(ends).all():
            early = int((ends < np.nanmax(ends)).sum())
            if early:
                short[n] = early, float(np.nanmin(ends) / np.nanmax(ends))
    if not short:
        return []
    told = ", ".join(f"{number} at {place(question, n)}" for n, (number, _) in short.items())
    least = min(share for _, share in short.values())
    sentence = (
        f"{label}: runs stopped early ({told}, the first after {signed(100 * least, 0)}% of the "
        "longest), before the lr has decayed as far; compare runs of one length."
    )
    return [Finding("shorter", label, tuple(short), sentence)]
