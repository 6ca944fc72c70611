"""Tokens that training takes to a loss, and the batch from which on it takes more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
