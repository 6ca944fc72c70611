"""Batch sizes, or numbers of steps, in plain words: critical batches, policies, short runs."""

import math

from hptransfer.analysis.batch import Criticals
from hptransfer.analysis.landscape import Law
from hptransfer.analysis.reach import BRACKETED, OVERHEAD, Critical
from hptransfer.analysis.sentences import axis_name, signed
from hptransfer.suite.budget import SHORT
from hptransfer.suite.resolved import Suite


def unit(suite: Suite) -> str:
    """What a suite counts in `tokens`: tokens of a text, else examples."""
    run = suite.template(next(iter(suite.templates)))
    return "tokens" if "context" in run.model else "examples"


def batch_text(found: Critical | None, largest: int) -> str:
    """`64`, `> 256` where it lies above every batch, a dash where too few batches bracket it."""
    if found is None:
        return "\N{EN DASH}"
    return f"> {largest}" if found.batch is None else str(found.batch)


def critical_sentence(label: str, found: Criticals, largest: int) -> str:
    """The critical batch of an optimizer in words. `largest`: the largest batch of the suite."""
    whole = found.of_means
    if whole is None:
        return (
            f"{label}: no critical batch, since fewer than {BRACKETED} batches reach a common loss "
            "between two budgets."
        )
    text = (
        f"{label}: critical batch {batch_text(whole, largest)} (more than {OVERHEAD:g} times the "
        f"{whole.tokens:,.0f} tokens on which batch {whole.cheapest} reaches {whole.target:.3f} nat"
    )
    alone = ", ".join(batch_text(own, largest) for own in found.by_seed.values())
    return f"{text}; by seed {alone})." if len(found.by_seed) > 1 else f"{text}; one seed)."


def law_name(suite: Suite) -> str:
    """The law of lr* as a formula, with the sign that its rules have: B^r, but T^-a."""
    if suite.axis == "steps":
        return f"lr* = c (T/{suite.proxy})^−a"
    return f"lr* = c (B/{suite.proxy})^r"


def law_sentence(suite: Suite, law: Law) -> str:
    """The law of an optimizer's best lr in words, with its intervals."""
    fit, c = law.exponent, law.at[suite.proxy]
    power = law.power
    n, meant = ("T", "T steps") if suite.axis == "steps" else ("B", "batch B")
    formula = f"lr* = 2^{c.value:.2f} ({n}/{suite.proxy})^{signed(power.value, 2)}"
    text = f"{fit.optimizer}: {formula} at {meant}"
    if not math.isfinite(power.high - power.low):
        return f"{text} (one seed gives no interval)."
    left = f"; left out: {', '.join(map(str, fit.left_out))}, censored" if fit.left_out else ""
    return (
        f"{text} (factor 2^{c.low:.2f} to 2^{c.high:.2f}, exponent {signed(power.low, 2)} to "
        f"{signed(power.high, 2)}, {fit.n_values} values{left})."
    )


def momentum_policy(suite: Suite) -> str:
    """What a batch does to the decay rates of the averages, in words."""
    if suite.momentum == "per_step":
        return "Momentum and second moments have the same decay rates per step at every batch."
    return (
        "Momentum and second moments have the same memory in tokens at every batch: a decay rate "
        f"beta holds at batch {suite.batch} and is beta^(B / {suite.batch}) at batch B."
    )


def few_steps(suite: Suite) -> str:
    """Which axis values have runs too short for an lr to mean much, in words; "" for none."""
    if suite.axis not in ("batch_size", "steps"):
        return ""
    label = next(iter(suite.templates))
    steps = {n: suite.template(label, n).steps for n in suite.axis_values}
    short = {n: count for n, count in steps.items() if count < SHORT}
    if not short:
        return ""
    told = ", ".join(
        str(n) if suite.axis == "steps" else f"{count} at {n}" for n, count in short.items()
    )
    where = "steps" if suite.axis == "steps" else f"steps by {axis_name(suite)}"
    return f"fewer than {SHORT} {where} ({told}), where warm-up and decay take most of a run"
