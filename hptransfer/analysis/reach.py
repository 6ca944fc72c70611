"""Tokens that training takes to a loss, and the batch from which on it takes more."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from hptransfer.analysis.parabola import Interval

OVERHEAD = 1.2  # steps over linear scaling at which a batch is critical
BRACKETED = 4  # batches whose budgets must lie on both sides of the target loss

Losses = Mapping[int, float]  # tokens -> loss, nats


@dataclass(frozen=True)
class Reach:
    """Tokens to a loss; `side`: they lie at it, above the largest or below the least budget."""

    tokens: float
    side: Literal["at", "above", "below"]


def tokens_to(target: float, losses: Losses) -> Reach | None:
    """The tokens at which a loss is first reached; None for fewer than two budgets.

    Between two budgets log tokens is linear in the loss. `target`: nats.
    """
    if len(losses) < 2:
        return None
    budgets = sorted(losses)
    reached = next((i for i, tokens in enumerate(budgets) if losses[tokens] <= target), None)
    if reached is None:
        return Reach(budgets[-1], "above")
    tokens, loss = budgets[reached], losses[budgets[reached]]
    if loss == target:
        return Reach(tokens, "at")
    if reached == 0:
        return Reach(tokens, "below")
    before = budgets[reached - 1]
    share = (losses[before] - target) / (losses[before] - loss) if losses[before] < math.inf else 1
    return Reach(before * (tokens / before) ** share, "at")


@dataclass(frozen=True)
class Relative:
    """Tokens to a loss of another optimizer, whose seeds saw the same batches.

    `of_means`: from mean losses over the seeds. `share`: its tokens over those of the largest
    budget, with a 95% interval. `by_seed`: from the losses of each seed alone.
    """

    of_means: Reach
    share: Interval
    by_seed: dict[int, Reach]


def relative(targets: Losses, budgets: Mapping[int, Losses]) -> Relative | None:
    """The tokens to the mean of the losses `targets`; None for fewer than two budgets.

    The interval is a t-interval of the jackknife's pseudo-values of log tokens, one per seed: a
    seed counts with its target and with its losses together. It is unbounded with one seed, and
    where the mean over the seeds, or over all but one of them, reaches the loss outside the
    budgets, since nothing tells then how far outside. Source: Tukey 1958.
    `targets`: seed -> loss, nats. `budgets`: tokens -> seed -> loss, nats, with all those seeds.
    """

    def reach(seeds: Collection[int]) -> Reach | None:
        losses = {size: _mean(own, seeds) for size, own in budgets.items()}
        return tokens_to(_mean(targets, seeds), losses)

    whole = reach(targets.keys())
    if whole is None:
        return None
    alone = {seed: reach([seed]) for seed in sorted(targets)}
    without = [reach([s for s in targets if s != seed]) for seed in targets if len(targets) > 1]
    return Relative(
        whole,
        _share(whole, without, max(budgets)),
        {seed: own for seed, own in alone.items() if own is not None},
    )


def _mean(losses: Losses, seeds: Collection[int]) -> float:
    return sum(losses[seed] for seed in seeds) / len(seeds)


def _share(whole: Reach, without: list[Reach | None], most: int) -> Interval:
    """Tokens over `most` with the jackknife's interval. `without`: those without each seed."""
    inside = [each.tokens for each in without if each is not None and each.side == "at"]
    count, value = len(without), whole.tokens / most
    if whole.side != "at" or count < 2 or len(inside) < count:
        return Interval(value, -math.inf, math.inf)
    # S v - (S - 1) v_s, up to what is equal for all seeds
    values = (count - 1) * np.log(inside)
    half = float(student.isf(0.025, count - 1) * values.std(ddof=1) / math.sqrt(count))
    return Interval(value, value * math.exp(-half), value * math.exp(half))


@dataclass(frozen=True)
class Critical:
    """The critical batch of an optimizer; `batch` is None where it lies above every batch.

    `target`: the loss, nats. `tokens`: those of the batch that needs least, `cheapest`.
    `n_bracketed`: batches that reach the target between two budgets.
    """

    batch: int | None
    target: float
    tokens: float
    cheapest: int
    n_bracketed: int


def critical_batch(by_batch: Mapping[int, Losses]) -> Critical | None:
    """The smallest batch that takes 20% more steps to a loss than linear scaling allows.

    `by_batch`: batch -> tokens -> loss. Linear scaling starts at the batch that reaches the loss
    on fewest tokens, so a batch is critical whose tokens exceed 1.2 times as many. The loss is the
    lowest one that some batch has on the second largest budget, else on a smaller one. None where
    no such loss has four batches that reach it between two budgets.
    Source: Zhang et al. 2024, arXiv:2410.21676 (the overhead of 20%).
    """
    budgets = sorted({tokens for losses in by_batch.values() for tokens in losses})
    whole = {batch: own for batch, own in by_batch.items() if sorted(own) == budgets}
    for budget in reversed(budgets[:-1]):
        target = min((own[budget] for own in whole.values()), default=math.inf)
        if target == math.inf:
            return None
        reaches = {batch: tokens_to(target, own) for batch, own in whole.items()}
        known = {batch: reach for batch, reach in reaches.items() if reach is not None}
        exact = {batch: reach.tokens for batch, reach in known.items() if reach.side == "at"}
        if len(exact) < BRACKETED or any(reach.side == "below" for reach in known.values()):
            continue
        cheapest = min(exact, key=lambda batch: (exact[batch], batch))
        most = OVERHEAD * exact[cheapest]
        above = [b for b, reach in known.items() if b > cheapest and reach.tokens > most]
        return Critical(min(above, default=None), target, exact[cheapest], cheapest, len(exact))
    return None
