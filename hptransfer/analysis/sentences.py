"""Verdicts and what stands beside them in plain words."""

from dataclasses import dataclass

import numpy as np

from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.transfer import Transfer
from hptransfer.suite.ranges import LR_OCTAVES
from hptransfer.suite.resolved import Suite


def power_of_two(log2_lr: float) -> str:
    """-4.125 -> 2^-4.125."""
    return f"2^{log2_lr:g}"


def signed(value: float, digits: int = 3) -> str:
    """A number with a true minus sign; no minus before a rounded zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "\N{MINUS SIGN}")


def axis_name(suite: Suite) -> str:
    """The axis in words: `batch size`."""
    return suite.axis.replace("_", " ")


def references(suite: Suite) -> str:
    """What n-gram tables of the same text reach, in words; "" where it is not known."""
    if not suite.ngrams:
        return ""
    told = ", ".join(f"{loss:.2f} nat with n = {n}" for n, loss in suite.ngrams.items())
    return (
        f"For comparison: an n-gram table of the training text has a held-out loss of {told}. "
        "A model above the largest n has hardly used its hidden matrices."
    )


def describe_hp(hp: dict[str, float]) -> str:
    """Searched hyperparameters in words, empty if none."""
    return ", ".join(f"{key} = {value:g}" for key, value in hp.items())


def rule(suite: Suite) -> list[tuple[str, str]]:
    """The verdict rule in words, in the order in which it is applied."""
    tol, drift = suite.thresholds.tol, suite.thresholds.drift
    return [
        ("diverged", "every run at the proxy, or every one at the target, diverged"),
        ("censored", "an optimum lies at an edge of the tried range, or a neighbour was not tried"),
        ("unverified", "carried to the target, but the optimum there was not measured"),
        ("incomplete", "runs that the verdict needs are missing"),
        (
            "drifts",
            f"the regret's 95% interval lies above 0, the regret is above {tol:g} nat, "
            f"and the optimum moved by more than {drift:g} octaves",
        ),
        (
            "inconclusive",
            f"the regret's upper bound is above {2 * tol:g} nat, "
            f"and the optimum moved by more than {drift:g} octaves",
        ),
        ("transfers", "anything else"),
    ]


def sentence(suite: Suite, transfer: Transfer) -> str:
    """The verdict of one transfer in plain words, numbers included."""
    start = f"{transfer.optimizer}: {transfer.verdict}"
    match transfer.verdict:
        case "diverged":
            return f"{start}. {_diverged(suite, transfer)}"
        case "incomplete":
            return f"{start}. {_incomplete(suite, transfer)}"
        case "censored":
            optima = ((suite.proxy, transfer.at_proxy), (transfer.n, transfer.at_target))
            told = [_censored(axis_name(suite), n, o) for n, o in optima if o and o.censored]
            if transfer.at_proxy is not None:
                told += _edges(axis_name(suite), suite.proxy, transfer.at_proxy)
            return f"{start}. {' '.join(told)}"
        case "unverified":
            return f"{start}. {_unverified(suite, transfer)}"
        case _:
            return f"{start}{_judged(suite, transfer)}"


def _seeds(count: int) -> str:
    return f"{count} seed" + ("s" if count != 1 else "")


def _tuned(suite: Suite, transfer: Transfer) -> str:
    """`The lr tuned at width 32 (2^-6)`."""
    assert transfer.carried.log2_lr is not None
    lr = power_of_two(transfer.carried.log2_lr)
    return f"The lr tuned at {axis_name(suite)} {suite.proxy} ({lr})"


def _diverged(suite: Suite, transfer: Transfer) -> str:
    n = suite.proxy if transfer.at_proxy is None else transfer.n
    low, high = suite.start_grid(transfer.optimizer)
    lower = max(low - (high - low), int(LR_OCTAVES[0]))
    return (
        f"Every run at {axis_name(suite)} {n} diverged. Lower the range of learning rates, "
        f'for instance lr = "2^{lower}..2^{max(low, lower + 1)}".'
    )


def _incomplete(suite: Suite, transfer: Transfer) -> str:
    """Which runs are missing."""
    axis, carried, own = axis_name(suite), transfer.carried, transfer.own
    if carried.log2_lr is None:
        return f"No finished run at {axis} {suite.proxy}."
    if own.log2_lr is None:
        return f"{_tuned(suite, transfer)} was not carried to {axis} {transfer.n} yet."
    place = f"at {axis} {transfer.n}"
    tuned, best = power_of_two(carried.log2_lr), power_of_two(own.log2_lr)
    n_carried, n_own = len(carried.losses), len(own.losses)
    if n_carried and n_own:
        return (
            f"No seed ran {place} with both the carried lr ({tuned}) "
            f"and the best lr there ({best})."
        )
    if n_carried:
        return (
            f"No seed ran {place} with the best lr there ({best}); "
            f"{_seeds(n_carried)} ran with the carried lr ({tuned})."
        )
    if n_own:
        return (
            f"No seed ran {place} with the carried lr ({tuned}); "
            f"{_seeds(n_own)} ran with the best lr there ({best})."
        )
    if tuned == best:
        return f"No seed ran {place} with {tuned}."
    return (
        f"No seed ran {place}, neither with the carried lr ({tuned}) "
        f"nor with the best lr there ({best})."
    )


def _unverified(suite: Suite, transfer: Transfer) -> str:
    return (
        f"{_tuned(suite, transfer)} gives {transfer.carried.mean:.3f} nat at "
        f"{axis_name(suite)} {transfer.n} ({_seeds(transfer.n_seeds)}); the optimum there was "
        f"not measured, which a verification does.{_lost(transfer)}"
    )


def _lost(transfer: Transfer) -> str:
    lost = transfer.carried.n_diverged
    return f" {lost} of its runs there diverged and count as the loss at init." if lost else ""


def _edges(axis: str, n: int, best: Optimum) -> list[str]:
    """A sentence for each tuned hyperparameter whose best value lies at an edge."""
    return [
        f"The best {name} at {axis} {n} ({best.hp[name]:g}) is the "
        f"{'smallest' if edge == 'low' else 'largest'} one tried: widen its range there."
        for name, edge in best.hp_edges.items()
    ]


def _censored(axis: str, n: int, best: Optimum) -> str:
    lr = power_of_two(best.log2_lr)
    if best.censored == "gap":
        return (
            f"The best lr at {axis} {n} ({lr}) has a neighbour more than one "
            "octave away: try the octaves beside it."
        )
    side = {"low": "smallest", "high": "largest"}[str(best.censored)]
    return f"The best lr at {axis} {n} ({lr}) is the {side} one tried: widen the range there."


def _judged(suite: Suite, transfer: Transfer) -> str:
    indicative = f" (indicative: {_seeds(transfer.n_seeds)})" if transfer.indicative else ""
    text = f"{indicative}. {_regret(suite, transfer)}; {_drift(suite, transfer)}."
    thresholds = suite.thresholds
    if transfer.verdict == "transfers" and transfer.regret.low > thresholds.tol:
        text += (
            f" The regret is above {thresholds.tol:g} nat although the optimum moved by no "
            f"more than {thresholds.drift:g} octaves."
        )
    return text + _lost(transfer)


def _regret(suite: Suite, transfer: Transfer) -> str:
    regret, floor = transfer.regret, transfer.noise_floor
    tuned, place = _tuned(suite, transfer), f"at {axis_name(suite)} {transfer.n}"
    noise = f"noise floor {floor:.3f}" if np.isfinite(floor) else "noise floor unknown"
    seeds = f"n = {_seeds(transfer.n_seeds)}"
    if regret.low == regret.high == 0:
        return (
            f"{tuned} is, to 1/8 octave, the best one {place} too, so the regret is "
            f"exactly 0 ({noise}, {seeds})"
        )
    costs = f"{tuned} costs {signed(regret.value)} nat {place}"
    if np.isinf(regret.high):
        return f"{costs} (one seed gives no interval, {seeds})"
    interval = f"{signed(regret.low)} to {signed(regret.high)}"
    return f"{costs} (95% interval {interval}, {noise}, {seeds})"


def _drift(suite: Suite, transfer: Transfer) -> str:
    drift = transfer.drift
    moved = f"the optimum moved by {signed(drift.value, 1)} octaves"
    if np.isfinite(drift.low):
        return f"{moved} ({signed(drift.low, 1)} to {signed(drift.high, 1)})"
    return f"{moved} (one seed gives no interval)" if suite.seeds == 1 else moved


@dataclass(frozen=True)
class Control:
    """Whether the suite showed that it can see a drift, and the line that says so."""

    shown: bool
    sentence: str


def negative_control(suite: Suite, transfers: list[Transfer]) -> Control:
    """The negative control, judged at its largest target."""
    label = suite.negative_control
    if label is None:
        return Control(
            False,
            "This suite names no negative control, so nothing shows that it would notice a drift.",
        )
    own = [transfer for transfer in transfers if transfer.optimizer == label]
    if not own:
        text = f"Negative control: {label} was not judged; resolving power is not shown."
        return Control(False, text)
    last = max(own, key=lambda transfer: transfer.n)
    span = f"{axis_name(suite)} {suite.proxy} to {last.n}"
    if last.verdict == "drifts":
        return Control(
            True,
            f"Negative control: {label} drifts from {span}, as it must, so this suite can see a "
            "drift of that size.",
        )
    return Control(
        False,
        f"Negative control failed: {label} came out as {last.verdict} from {span}, not as "
        "drifts. This suite has not shown that it can tell drift from transfer; read no "
        "'transfers' below as evidence.",
    )
