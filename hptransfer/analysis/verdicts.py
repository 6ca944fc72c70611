"""Did the learning rate transfer: drift, paired regret, verdict and its sentence."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from hptransfer.analysis.metrics import Groups, Optimum, clipped, groups, optimum
from hptransfer.spec import canonical
from hptransfer.suite.claim import Suite, Thresholds
from hptransfer.suite.ranges import LR_OCTAVES, octave_range

NAN = float("nan")
ENOUGH_SEEDS = 3  # with fewer fresh seeds a verdict is called indicative

COLUMNS = (
    "optimizer", "proxy", "n", "verdict", "indicative", "sentence",
    "lr_star_proxy", "se_proxy", "lr_star_n", "se_n", "lr_carried", "lr_own", "hp",
    "drift", "drift_low", "drift_high",
    "regret", "regret_low", "regret_high", "relative_regret", "noise_floor", "n_seeds",
    "best_loss", "carried_loss", "seconds_per_step", "peak_memory", "lanes_max",
    "tokens_per_second", "flops_per_second", "n_diverged", "n_failed",
    "tuning_flops", "tuning_seconds", "direct_flops", "direct_seconds",
    "saving_flops", "saving_seconds",
)  # fmt: skip


def targets(suite: Suite, rows: pd.DataFrame) -> list[int]:
    """The suite's targets and every other axis value with fresh-seed runs."""
    fresh = rows.loc[rows["stage"] == "fresh", "n"].unique()
    return sorted({*suite.targets, *map(int, fresh)} - {suite.proxy})


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95% t-interval; unbounded for one value, NaN for none."""
    count = len(values)
    if count == 0:
        return NAN, NAN, NAN
    mean = float(np.mean(values))
    if count == 1:
        return mean, -np.inf, np.inf
    half = float(stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def decide(regret: float, low: float, high: float, drift: float, limits: Thresholds) -> str:
    """`drifts`, `inconclusive` or `transfers`, once both optima and the regret are measured."""
    moved = abs(drift) > limits.drift
    if moved and low > 0 and regret > limits.tol:
        return "drifts"
    if moved and high > 2 * limits.tol:
        return "inconclusive"
    return "transfers"


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


def pairs(suite: Suite, rows: pd.DataFrame) -> pd.DataFrame:
    """One row an (optimizer, target n): drift, regret, cost, verdict and its sentence.

    regret = mean over fresh seeds of L_n(lr carried) - L_n(lr*(n)), both rounded to 1/8 octave and
    paired by seed, a diverged run counting as the loss at init. NaN where not measured.
    """
    parts = groups(rows)
    optima = {(o, n): optimum(part) for (o, n, stage), part in parts.items() if stage == "search"}
    table = [
        _pair(suite, parts, optima, label, n)
        for label in suite.templates
        for n in targets(suite, rows)
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))


def _at(fresh: pd.DataFrame | None, log2_lr: float, hp_point: str) -> "pd.Series[float]":
    """Clipped losses by seed of the fresh runs at one point."""
    if fresh is None:
        return pd.Series(dtype=float)
    kept = fresh[
        (fresh["log2_lr"] == log2_lr)
        & (fresh["hp_point"] == hp_point)
        & (fresh["status"] != "failed")
    ]
    return pd.Series(clipped(kept), index=kept["seed"].to_numpy())


def _pair(
    suite: Suite,
    parts: Groups,
    optima: dict[tuple[str, int], Optimum | None],
    label: str,
    n: int,
) -> dict[str, Any]:
    made: dict[str, Any] = dict.fromkeys(COLUMNS, NAN)
    search = {at: parts.get((label, at, "search")) for at in (suite.proxy, n)}
    fresh = parts.get((label, n, "fresh"))
    here, there = optima.get((label, suite.proxy)), optima.get((label, n))
    if here and here.hp and there:  # searched values are carried as they are, only the lr may move
        tried = search[n]
        assert tried is not None
        there = optimum(tried[tried["hp_point"] == canonical(here.hp)])
    made |= {"optimizer": label, "proxy": suite.proxy, "n": n, "hp": "{}", "n_seeds": 0}
    made |= _cost(search[suite.proxy], [p for p in (search[n], fresh) if p is not None])
    carried = own = pd.Series(dtype=float)
    if here:
        made |= {"lr_star_proxy": here.log2_lr, "se_proxy": here.se, "hp": canonical(here.hp)}
        made["lr_carried"] = suite.clip_lr(label, here.log2_lr)
        carried = _at(fresh, made["lr_carried"], made["hp"])
        made["carried_loss"] = float(carried.mean())
        made["n_seeds"] = len(carried)
    if there:
        made |= {"lr_star_n": there.log2_lr, "se_n": there.se}
        made["lr_own"] = suite.clip_lr(label, there.log2_lr)
        own = _at(fresh, made["lr_own"], canonical(there.hp))
        made["best_loss"] = float(own.mean()) if len(own) else there.loss
    if len(own) > 1:
        made["noise_floor"] = float(own.std(ddof=1) / np.sqrt(len(own)))
    if here and there:
        made["drift"] = there.log2_lr - here.log2_lr
        half = 1.96 * float(np.hypot(here.se, there.se))
        if min(here.seeds, there.seeds) > 1:  # else nothing is known of the seeds' part in it
            made |= {"drift_low": made["drift"] - half, "drift_high": made["drift"] + half}
        difference = (carried - own).dropna()
        made["n_seeds"] = len(difference)
        made["regret"], made["regret_low"], made["regret_high"] = mean_interval(
            difference.to_list()
        )
        if made["lr_own"] == made["lr_carried"] and here.hp == there.hp and len(difference):
            made |= {"regret": 0.0, "regret_low": 0.0, "regret_high": 0.0}
        made["relative_regret"] = made["regret"] / float(own.mean()) if len(own) else NAN
    verdict = _verdict(suite, made, search, n, here, there)
    judged = verdict in ("drifts", "inconclusive", "transfers")
    made |= {"verdict": verdict, "indicative": judged and made["n_seeds"] < ENOUGH_SEEDS}
    lost = 0 if fresh is None or not here else len(fresh[(fresh["log2_lr"] == made["lr_carried"])
                                                  & (fresh["status"] == "diverged")])  # fmt: skip
    made["sentence"] = _sentence(suite, made, here, there, lost)
    return made


def _cost(proxy: pd.DataFrame | None, at_n: list[pd.DataFrame]) -> dict[str, Any]:
    """Tuning at the proxy against as many trials at n, priced at the mean finished run there."""
    every = pd.concat(at_n) if at_n else None
    made: dict[str, Any] = {"n_diverged": 0, "n_failed": 0}
    if every is not None:
        counts = every["status"].value_counts()
        made["n_diverged"] = int(counts.get("diverged", 0))
        made["n_failed"] = int(counts.get("failed", 0))
        done = every[every["status"] == "done"]
        if len(done):
            seconds = float(done["seconds"].sum())
            made["seconds_per_step"] = float((done["seconds"] / done["steps"]).mean())
            made["peak_memory"] = float(done["peak_memory"].max()) or NAN  # 0: unknown
            made["lanes_max"] = int(done["lanes"].max())
            made["tokens_per_second"] = float(done["tokens"].sum()) / seconds if seconds else NAN
            made["flops_per_second"] = float(done["flops"].sum()) / seconds if seconds else NAN
            if proxy is not None:
                made["direct_flops"] = float(done["flops"].mean()) * len(proxy)
                made["direct_seconds"] = float(done["seconds"].mean()) * len(proxy)
    if proxy is not None:
        for unit in ("flops", "seconds"):
            spent = float(proxy[unit].sum())
            made[f"tuning_{unit}"] = spent
            made[f"saving_{unit}"] = made.get(f"direct_{unit}", NAN) / spent if spent else NAN
    return made


def _all_diverged(part: pd.DataFrame | None) -> bool:
    return part is not None and bool((part["status"] == "diverged").all())


def _verdict(
    suite: Suite,
    made: dict[str, Any],
    search: dict[int, pd.DataFrame | None],
    n: int,
    here: Optimum | None,
    there: Optimum | None,
) -> str:
    if here is None:
        return "diverged" if _all_diverged(search[suite.proxy]) else "incomplete"
    if there is None and _all_diverged(search[n]):
        return "diverged"
    if here.censored or (there and there.censored):
        return "censored"
    if there is None:
        return "unverified" if made["n_seeds"] else "incomplete"
    if not made["n_seeds"]:
        return "incomplete"
    return decide(
        made["regret"], made["regret_low"], made["regret_high"], made["drift"], suite.thresholds
    )


def power(log2_lr: float) -> str:
    """-4.125 -> 2^-4.125."""
    return f"2^{log2_lr:g}"


def signed(value: float, digits: int = 3) -> str:
    """A number with a true minus sign; no minus before a rounded zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "\N{MINUS SIGN}")


def axis_word(suite: Suite) -> str:
    return suite.axis.replace("_", " ")


def _sentence(
    suite: Suite, made: dict[str, Any], here: Optimum | None, there: Optimum | None, lost: int
) -> str:
    """The verdict of one pair in plain words, numbers included."""
    axis, proxy, n = axis_word(suite), suite.proxy, made["n"]
    start = f"{made['optimizer']}: {made['verdict']}"
    seeds = f"{made['n_seeds']} fresh seed" + ("s" if made["n_seeds"] != 1 else "")
    match made["verdict"]:
        case "diverged":
            at = proxy if here is None else n
            low, high = octave_range(suite.optimizers[made["optimizer"]].lr)
            lower = max(low - (high - low), int(LR_OCTAVES[0]))
            return (
                f"{start}. Every run at {axis} {at} diverged. Lower the range of learning rates, "
                f'for instance lr = "2^{lower}..2^{max(low, lower + 1)}".'
            )
        case "incomplete":
            if here is None:
                what = f"no finished run at {axis} {proxy}"
            elif there is None:
                what = f"the lr tuned at {axis} {proxy} ({power(made['lr_carried'])}) was not "
                what += f"carried to {axis} {n} yet"
            else:
                rates = sorted({power(made["lr_carried"]), power(made["lr_own"])})
                what = f"no fresh seed ran at {axis} {n} with {' and '.join(rates)}"
            return f"{start}. {what[0].upper()}{what[1:]}."
        case "censored":
            found = [(at, o) for at, o in ((proxy, here), (n, there)) if o and o.censored]
            return f"{start}. " + " ".join(_censored(axis, at, best) for at, best in found)
        case "unverified":
            return (
                f"{start}. The lr tuned at {axis} {proxy} ({power(made['lr_carried'])}) gives "
                f"{made['carried_loss']:.3f} nat at {axis} {n} ({seeds}); the optimum there was "
                f"not measured, which a verification does.{_lost(lost)}"
            )
        case _:
            return _judged(suite, made, start, seeds) + _lost(lost)


def _lost(lost: int) -> str:
    if not lost:
        return ""
    return f" {lost} of its fresh runs diverged and count as the loss at init."


def _censored(axis: str, at: int, best: Optimum) -> str:
    if best.censored == "gap":
        return (
            f"The best lr at {axis} {at} ({power(best.log2_lr)}) has a neighbour more than one "
            "octave away: try the octaves beside it."
        )
    side = {"low": "smallest", "high": "largest"}[str(best.censored)]
    return (
        f"The best lr at {axis} {at} ({power(best.log2_lr)}) is the {side} one tried: "
        f"widen the range there."
    )


def _judged(suite: Suite, made: dict[str, Any], start: str, seeds: str) -> str:
    axis, proxy, n = axis_word(suite), suite.proxy, made["n"]
    if made["indicative"]:
        start += f" (indicative: {seeds})"
    floor = made["noise_floor"]
    noise = f"noise floor {floor:.3f}" if np.isfinite(floor) else "noise floor unknown"
    tuned = f"The lr tuned at {axis} {proxy} ({power(made['lr_carried'])})"
    if made["regret_low"] == made["regret_high"] == 0:
        cost = (
            f"{tuned} is, to 1/8 octave, the best one at {axis} {n} too, so the regret is "
            f"exactly 0 ({noise}, n = {seeds})"
        )
    elif np.isinf(made["regret_high"]):
        cost = (
            f"{tuned} costs {signed(made['regret'])} nat at {axis} {n} "
            f"(one seed gives no interval, n = {seeds})"
        )
    else:
        cost = (
            f"{tuned} costs {signed(made['regret'])} nat at {axis} {n} (95% interval "
            f"{signed(made['regret_low'])} to {signed(made['regret_high'])}, {noise}, n = {seeds})"
        )
    moved = f"the optimum moved by {signed(made['drift'], 1)} octaves"
    if np.isfinite(made["drift_low"]):
        moved += f" ({signed(made['drift_low'], 1)} to {signed(made['drift_high'], 1)})"
    elif suite.seeds == 1:
        moved += " (one search seed gives no interval)"
    text = f"{start}. {cost}; {moved}."
    if made["verdict"] == "transfers" and made["regret_low"] > suite.thresholds.tol:
        text += (
            f" The regret is above {suite.thresholds.tol:g} nat although the optimum moved by no "
            f"more than {suite.thresholds.drift:g} octaves."
        )
    return text


def negative_control(suite: Suite, table: pd.DataFrame) -> tuple[bool, str]:
    """Whether the suite showed that it can see a drift, and the line that says so."""
    label = suite.negative_control
    if label is None:
        return False, (
            "This suite names no negative control, so nothing shows that it would notice a drift."
        )
    mine = table[table["optimizer"] == label]
    if mine.empty:
        return False, f"Negative control: {label} was not judged; resolving power is not shown."
    last = mine.sort_values("n").iloc[-1]
    at = f"{axis_word(suite)} {suite.proxy} to {last['n']}"
    if last["verdict"] == "drifts":
        return True, (
            f"Negative control: {label} drifts from {at}, as it must, so this suite can see a "
            "drift of that size."
        )
    return False, (
        f"Negative control failed: {label} came out as {last['verdict']} from {at}, not as "
        "drifts. This suite has not shown that it can tell drift from transfer; read no "
        "'transfers' below as evidence."
    )


def describe_hp(hp: str) -> str:
    """The searched hyperparameters of a row in words, empty if none."""
    return ", ".join(f"{key} = {value:g}" for key, value in json.loads(hp).items())
