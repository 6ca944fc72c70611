"""Verdicts and what stands beside them in plain words."""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from hptransfer.analysis import former
from hptransfer.analysis.carried import Transfer
from hptransfer.analysis.judgement import MOST_SEEDS, Source
from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.points import Spread
from hptransfer.analysis.question import Question


def power_of_two(log2_lr: float) -> str:
    """-4.125 -> 2^-4.125."""
    return f"2^{log2_lr:g}"


def signed(value: float, digits: int = 3) -> str:
    """A number with a true minus sign; no minus before a rounded zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "\N{MINUS SIGN}")


def axis_name(suite: Question) -> str:
    """The axis in words: `batch size`."""
    return suite.axis.replace("_", " ")


def place(suite: Question, n: int) -> str:
    """An axis value in words: `width 64`, but `64 steps`."""
    return f"{n} steps" if suite.axis == "steps" else f"{axis_name(suite)} {n}"


def span(suite: Question, last: int) -> str:
    """From the proxy to an axis value, in words: `width 64 to 512`, but `100 to 800 steps`."""
    return place(suite, suite.proxy).replace(str(suite.proxy), f"{suite.proxy} to {last}")


def references(suite: Question) -> str:
    """What n-gram tables of the same text reach, in words; "" where it is not known."""
    if not suite.ngrams:
        return ""
    told = ", ".join(f"{loss:.2f} nat with n = {n}" for n, loss in suite.ngrams.items())
    return (
        f"For comparison: an n-gram table of the training text has a held-out loss of {told}. "
        "A model above the largest n has hardly used its hidden matrices."
    )


def enough_points(spreads: list[Spread]) -> str:
    """How many learning rates near the minimum are enough for each optimizer; "" without one."""
    by_number: dict[str, list[str]] = {}
    for label in dict.fromkeys(each.optimizer for each in spreads):
        most_first = sorted(
            (each for each in spreads if each.optimizer == label),
            key=lambda each: each.n_points,
            reverse=True,
        )
        enough = list(takewhile(lambda each: each.enough, most_first))
        number = "all that were tried, or more,"
        if enough:
            number = str(enough[-1].n_points)
        elif np.isnan(most_first[-1].seeds):
            number = "an unknown number (one seed)"
        by_number.setdefault(number, []).append(label)
    if not by_number:
        return ""
    told = "; ".join(f"{number} for {', '.join(labels)}" for number, labels in by_number.items())
    return (
        "So many learning rates near the minimum are enough that the choice among them moves lr* "
        f"less than the seeds do: {told}."
    )


def describe_hp(hp: dict[str, float]) -> str:
    """Searched hyperparameters in words, empty if none."""
    return ", ".join(f"{key} = {value:g}" for key, value in hp.items())


def rule(suite: Question) -> list[tuple[str, str]]:
    """The verdict rule in words, in the order in which it is applied."""
    tol, limit = (f"{x:g} {suite.unit}" for x in (suite.thresholds.tol, suite.thresholds.limit))
    before = [
        ("diverged", "every run at the proxy, or every one at the target, diverged"),
        ("censored", "an optimum lies at an edge of the tried range, or a neighbour was not tried"),
        ("unverified", "carried to the target, but the optimum there was not measured"),
        ("incomplete", "runs that the verdict needs are missing"),
    ]
    if former.applies(suite):
        return before + former.rule(suite.thresholds)
    return [
        *before,
        ("drifts", f"the regret is shown to be above {tol}"),
        (
            "insensitive",
            f"the regret is shown to be below {limit}, but so is the cost of an octave down "
            f"and of one up to be below {tol}: any lr nearby would have passed",
        ),
        ("transfers", f"the regret is shown to be below {limit}"),
        ("inconclusive", "neither is shown: more seeds, or a larger limit, would decide"),
    ]


def sentence(suite: Question, transfer: Transfer) -> str:
    """The verdict of one transfer in plain words, numbers included."""
    start = f"{transfer.optimizer}: {transfer.verdict}"
    match transfer.verdict:
        case "diverged":
            return f"{start}. {_diverged(suite, transfer)}"
        case "incomplete":
            return f"{start}. {_incomplete(suite, transfer)}"
        case "censored":
            optima = ((suite.proxy, transfer.at_proxy), (transfer.n, transfer.at_target))
            told = [_censored(suite, n, best) for n, best in optima if best and best.censored]
            if transfer.at_proxy is not None:
                told += _edges(place(suite, suite.proxy), transfer.at_proxy)
            return f"{start}. {' '.join(told)}"
        case "unverified":
            return f"{start}. {_unverified(suite, transfer)}"
        case _:
            return f"{start}{_judged(suite, transfer)}"


def _seeds(count: int) -> str:
    return f"{count} seed" + ("s" if count != 1 else "")


def _tuned(suite: Question, transfer: Transfer) -> str:
    """`The lr tuned at width 32 (2^-6)`."""
    assert transfer.carried.log2_lr is not None
    lr = suite.lr_text(transfer.carried.log2_lr)
    return f"The lr tuned at {place(suite, suite.proxy)} ({lr})"


def _diverged(suite: Question, transfer: Transfer) -> str:
    n = suite.proxy if transfer.at_proxy is None else transfer.n
    return (
        f"Every run at {place(suite, n)} diverged. Lower the range of learning rates, "
        f"{suite.lower_lr(transfer.optimizer)}."
    )


def _incomplete(suite: Question, transfer: Transfer) -> str:
    """Which runs are missing."""
    carried, own = transfer.carried, transfer.own
    if carried.log2_lr is None:
        return f"No finished run at {place(suite, suite.proxy)}."
    if why := UNKNOWN.get(transfer.source):
        return f"{_tuned(suite, transfer)} {why.format(place(suite, transfer.n))}."
    if own.log2_lr is None:
        return f"{_tuned(suite, transfer)} was not carried to {place(suite, transfer.n)} yet."
    there = f"at {place(suite, transfer.n)}"
    tuned, best = suite.lr_text(carried.log2_lr), suite.lr_text(own.log2_lr)
    n_carried, n_own = len(carried.losses), len(own.losses)
    if n_carried and n_own:
        return (
            f"No seed ran {there} with both the carried lr ({tuned}) "
            f"and the best lr there ({best})."
        )
    if n_carried:
        return (
            f"No seed ran {there} with the best lr there ({best}); "
            f"{_seeds(n_carried)} ran with the carried lr ({tuned})."
        )
    if n_own:
        return (
            f"No seed ran {there} with the carried lr ({tuned}); "
            f"{_seeds(n_own)} ran with the best lr there ({best})."
        )
    if tuned == best:
        return f"No seed ran {there} with {tuned}."
    return (
        f"No seed ran {there}, neither with the carried lr ({tuned}) "
        f"nor with the best lr there ({best})."
    )


def _unverified(suite: Question, transfer: Transfer) -> str:
    return (
        f"{_tuned(suite, transfer)} gives {transfer.carried.mean:.3f} {suite.unit} at "
        f"{place(suite, transfer.n)} ({_seeds(transfer.n_seeds)}); the optimum there was "
        f"not measured, which a verification does.{_lost(transfer)}"
    )


def _lost(transfer: Transfer) -> str:
    lost = transfer.carried.n_diverged
    return f" {lost} of its runs there diverged and count as the loss at init." if lost else ""


def _edges(where: str, best: Optimum) -> list[str]:
    """A sentence for each tuned hyperparameter whose best value lies at an edge."""
    return [
        f"The best {name} at {where} ({best.hp[name]:g}) is the "
        f"{'smallest' if edge == 'low' else 'largest'} one tried: widen its range there."
        for name, edge in best.hp_edges.items()
    ]


def _censored(suite: Question, n: int, best: Optimum) -> str:
    where, lr = place(suite, n), suite.lr_text(best.log2_lr)
    if best.censored == "gap":
        return (
            f"The best lr at {where} ({lr}) has a neighbour more than one "
            "octave away: try the octaves beside it."
        )
    side = {"low": "smallest", "high": "largest"}[str(best.censored)]
    return f"The best lr at {where} ({lr}) is the {side} one tried: widen the range there."


def _judged(suite: Question, transfer: Transfer) -> str:
    marks = [f"indicative: {_seeds(transfer.n_seeds)}"] if transfer.indicative else []
    marks += ["on the edge: rounding decides"] if transfer.on_edge else []
    mark = f" ({', '.join(marks)})" if marks else ""
    text = f"{mark}. {_regret(suite, transfer)}; {_drift(suite, transfer)}."
    judged = transfer.judgement
    if judged and transfer.verdict == "insensitive" and np.isfinite(judged.octave_down):
        text += (
            f" One octave down costs at most {signed(judged.octave_down)} {suite.unit} and one up "
            f"{signed(judged.octave_up)}, so any lr nearby would have passed."
        )
    if judged and transfer.verdict == "inconclusive":
        one = transfer.n_seeds < 2
        text += " One seed cannot decide it." if one else f" {_wanted(judged.seeds_needed)}"
    return text + _lost(transfer)


def _wanted(seeds: int | None) -> str:
    if seeds is None:
        return f"Not even {MOST_SEEDS:,} seeds would decide: widen tol and limit."
    return f"By the spread seen, about {seeds} seeds would decide."


def _regret(suite: Question, transfer: Transfer) -> str:
    regret, where = transfer.regret, place(suite, transfer.n)
    seeds = f"n = {_seeds(transfer.n_seeds)}{KNOWN.get(transfer.source, '')}"
    if np.isinf(regret.value):
        return f"{_tuned(suite, transfer)} diverges at {where} ({seeds})"
    costs = f"{_tuned(suite, transfer)} costs {signed(regret.value)} {suite.unit} at {where}"
    if np.isinf(regret.high):
        return f"{costs} (one seed gives no interval, {seeds})"
    return f"{costs} (interval {signed(regret.low)} to {signed(regret.high)}, {seeds})"


def _drift(suite: Question, transfer: Transfer) -> str:
    drift, limit = transfer.drift, suite.thresholds.drift
    moved = f"the optimum moved by {signed(drift.value, 1)} octaves"
    if not np.isfinite(drift.low):
        known = transfer.at_proxy and transfer.at_target
        few = known and suite.looks_at(transfer.n)[0] == 1
        return f"{moved} (one seed gives no interval)" if few else moved
    text = f"{moved} ({signed(drift.low, 1)} to {signed(drift.high, 1)})"
    within = -limit < drift.low and drift.high < limit
    return f"{text}, shown to be within {limit:g}" if within else text


KNOWN: dict[Source, str] = {
    "parabola": "; no run there, the fitted parabola gives its loss",
    "interpolation": "; no run there, its loss is interpolated between its neighbours",
    "between divergences": "; no run there, both of its neighbours diverged",
}
"""How the loss at the carried lr is known, if not by runs there -> what a sentence adds."""

UNKNOWN: dict[Source, str] = {
    "below": "lies below every lr tried at {}: try it there",
    "above": "lies above every lr tried at {}: try it there",
    "partly diverged": "diverged on some seeds at {}: give the loss at init, which then counts",
    "beside a divergence": "lies beside an lr that diverged at {}, so nothing tells its loss: try "
    "it there, or give the loss at init, which then counts",
}
"""Why the loss at the carried lr is not known -> the same in words, with a place."""


@dataclass(frozen=True)
class Control:
    """Whether the suite showed that it can see a drift, and the line that says so."""

    shown: bool
    sentence: str


def negative_control(suite: Question, transfers: list[Transfer]) -> Control:
    """The negative control, judged at its largest target."""
    label = suite.negative_control
    if label is None:
        return Control(
            False,
            f"This {suite.kind} names no negative control, so nothing shows that it would notice a "
            "drift.",
        )
    own = [transfer for transfer in transfers if transfer.optimizer == label]
    if not own:
        text = f"Negative control: {label} was not judged; resolving power is not shown."
        return Control(False, text)
    last = max(own, key=lambda transfer: transfer.n)
    across = span(suite, last.n)
    if last.verdict == "drifts":
        return Control(
            True,
            f"Negative control: {label} drifts from {across}, as it must, so this {suite.kind} can "
            "see a drift of that size.",
        )
    return Control(
        False,
        f"Negative control failed: {label} came out as {last.verdict} from {across}, not as "
        f"drifts. This {suite.kind} has not shown that it can tell drift from transfer; read no "
        "'transfers' below as evidence.",
    )
