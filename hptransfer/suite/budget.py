"""A fixed number of training tokens: the steps that it gives a batch, and the decay of averages."""

from dataclasses import replace
from math import lcm
from typing import Literal

from hptransfer.errors import InputError
from hptransfer.spec import MOST, RunSpec

Momentum = Literal["per_step", "per_token"]

SHORT = 100  # steps; below it warm-up and decay take most of a run
DIGITS = 12  # of a rescaled decay rate, so that every machine gives a run the same key


def check(
    *, on_batches: bool, steps: int | None, tokens: int | None, budgets: list[int], momentum: str
) -> None:
    """Raises InputError for fields of a budget that do not fit together.

    `on_batches`: whether the axis is the batch size.
    """
    if tokens is None:
        if steps is None:
            raise InputError("steps: missing", "every suite needs it; see hptransfer list suites")
        for key, given in (("budgets", budgets), ("momentum", momentum != "per_step")):
            if given:
                raise InputError(f"{key}: needs a token budget", "for instance tokens = 1638400")
        return
    if not on_batches:
        raise InputError(
            "tokens: a budget belongs to the axis batch_size", "take the line out, and name steps"
        )
    if steps is not None:
        raise InputError(
            "steps: tokens decides them, tokens / (batch * context) at every batch",
            "give one of the two",
        )
    for divisor in budgets:
        if divisor < 2:
            raise InputError(
                f"budgets: got {divisor}, needs divisors of tokens from 2 on",
                "for instance budgets = [4, 2]",
            )
    if len(set(budgets)) < len(budgets):
        raise InputError(f"budgets: got {budgets}, one of them twice", "name each of them once")


def check_batches(tokens: int, batches: list[int], context: int, budgets: list[int]) -> None:
    """Raises InputError where a batch, or one of its further budgets, has no whole steps."""
    divisor = lcm(*budgets) if budgets else 1
    for batch in batches:
        step = batch * context * divisor
        part = f" / {divisor}" if divisor > 1 else ""
        if step > tokens:
            enough = batch * context * SHORT * divisor
            raise InputError(
                f"tokens: {tokens:,}{part} is less than one step of batch {batch} "
                f"({batch * context:,} tokens)",
                f"tokens = {enough} gives {SHORT} steps" if enough <= MOST else "a smaller batch",
            )
        if tokens % step:
            whole = lcm(*(each * context * divisor for each in batches))
            near = max(whole, round(tokens / whole) * whole)
            raise InputError(
                f"tokens: {tokens:,}{part} is {tokens / step:.2f} steps of batch {batch} "
                f"({batch * context:,} tokens), needs a whole number",
                f"for instance tokens = {near}" if near <= MOST else "batches of powers of two",
            )


def check_data(batch: int, examples: int | None, key: str) -> None:
    """Raises InputError for a batch of more examples than the data has; None: not known.

    `key`: field of the suite that names the batch.
    """
    if examples is not None and batch > examples:
        raise InputError(
            f"{key}: batch {batch} is larger than the training part, which has {examples:,} "
            "examples",
            "a smaller batch, or more data",
        )


def check_decay_rates(
    where: str,
    rates: dict[str, tuple[float, float]],
    limits: dict[str, tuple[float, float]],
    batches: tuple[int, int],
) -> None:
    """Raises InputError where a rescaled decay rate leaves the limits of its optimizer.

    `rates`: field -> its value at the first and at the second of `batches`.
    """
    for name, (stated, value) in rates.items():
        low, high = limits.get(name, (0.0, 1.0))
        if not low <= value <= high:
            raise InputError(
                f"{where}.{name}: {stated} at batch {batches[0]} is {value} at batch "
                f"{batches[1]}, allowed: {low} to {high}",
                'a smaller `batch`, or momentum = "per_step"',
            )


def steps_of(tokens: int, batch: int, context: int) -> int | None:
    """Steps of a batch in a budget; None where they are no whole number from 1 on."""
    steps, rest = divmod(tokens, batch * context)
    return None if rest or not steps else steps


def spent(run: RunSpec, tokens: int) -> RunSpec | None:
    """A run with the steps that spend the tokens; None where they are no whole number."""
    steps = steps_of(tokens, run.batch, run.model.get("context", 1))
    return None if steps is None else replace(run, steps=steps)


def per_token(run: RunSpec, names: tuple[str, ...], batch: int) -> RunSpec:
    """A run whose averages forget as fast per token as those of a run at `batch` do.

    beta -> beta^(run.batch / batch) for the decay rates `names` in its hyperparameters.
    """
    power = run.batch / batch
    rescaled = {name: round(run.hp[name] ** power, DIGITS) for name in names}
    return replace(run, hp={**run.hp, **rescaled})
