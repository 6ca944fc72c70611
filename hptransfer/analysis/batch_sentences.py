"""Batch sizes, or numbers of steps, in plain words: critical batches, policies, short runs."""

from hptransfer.analysis.reach import BRACKETED, OVERHEAD, Critical
from hptransfer.analysis.sentences import axis_name
from hptransfer.suite.budget import SHORT
from hptransfer.suite.resolved import Suite


def critical_sentence(label: str, found: Critical | None) -> str:
    """The critical batch of an optimizer in words."""
    if found is None:
        return (
            f"{label}: no critical batch, since fewer than {BRACKETED} batches reach a common loss "
            "between two budgets."
        )
    start = f"{label}: critical batch {found.batch}"
    if found.batch is None:
        start = f"{label}: the critical batch lies above all that were tried"
    return (
        f"{start} (more than {OVERHEAD:g} times the {found.tokens:,.0f} tokens on which batch "
        f"{found.cheapest} reaches {found.target:.3f} nat)."
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
    steps = {n: suite.template(label, n).steps for n in sorted({suite.proxy, *suite.targets})}
    short = {n: count for n, count in steps.items() if count < SHORT}
    if not short:
        return ""
    told = ", ".join(
        str(n) if suite.axis == "steps" else f"{count} at {n}" for n, count in short.items()
    )
    where = "steps" if suite.axis == "steps" else f"steps by {axis_name(suite)}"
    return (
        f"{suite.name}: fewer than {SHORT} {where} ({told}), where warm-up and decay take most of "
        "a run"
    )
