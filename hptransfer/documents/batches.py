"""The comparison of batch sizes at equal tokens, or of numbers of steps, in metrics.json."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.values import Interval, Optimum

Rule = Literal["unchanged", "square root", "linear", "own rule"]
"""A rule that carries a learning rate along the axis; the own rule is the suite's `lr_rule`."""


@dataclass(frozen=True)
class CarriedByRule:
    """The learning rate that a rule makes of the proxy's, at one axis value."""

    rule: Rule
    """Name of the rule; the own rule is the suite's `lr_rule`."""
    exponent: float
    """r of lr = lr at the proxy * (axis value / proxy)^r."""
    log2_lr: float
    """log2 of that learning rate, in octaves, rounded to 1/8."""
    regret: Interval
    """What it costs against the best one, seed by seed, with the 95% interval, in nats."""
    n_seeds: int
    """Seeds behind the regret; 0 where no seed tried learning rates around it."""


Side = Literal["at", "above", "below"]
"""A loss is reached at a number of tokens, above the largest budget, or below the smallest."""


@dataclass(frozen=True)
class TokensOfSeed:
    """The tokens to the baseline's loss by one seed alone."""

    seed: int
    """The seed, of both optimizers."""
    relative: float
    """Tokens over all tokens of a run; at a side other than `at` the nearest budget."""
    side: Side
    """Where the loss is reached."""


@dataclass(frozen=True)
class TokensToLoss:
    """The training tokens at which an optimizer has a loss, from means over shared seeds."""

    tokens: float
    """Tokens, between two budgets that were trained; else the nearest budget."""
    relative: Interval
    """`tokens` over all tokens of a run, with the 95% interval over the seeds. Its bounds are null
    with one seed, and where a mean without one of the seeds reaches the loss outside the budgets;
    a bound outside the budgets is an extrapolation."""
    side: Side
    """Where the loss is reached."""
    by_seed: list[TokensOfSeed]
    """The same from the losses of every seed alone."""


@dataclass(frozen=True)
class BudgetLoss:
    """The loss on one budget of tokens, at the best learning rate on all of them."""

    tokens: int
    """Training tokens."""
    loss: float | None
    """Mean over the seeds, in nats."""
    n_seeds: int
    """Seeds that ran."""


@dataclass(frozen=True)
class TunedValue:
    """One optimizer at one batch size, or number of steps, with its lr tuned there."""

    optimizer: str
    """Label."""
    axis_value: int
    """Batch size or number of steps."""
    steps: int
    """Training steps of a run."""
    tokens: int
    """Training tokens of a run, or examples."""
    optimum: Optimum | None
    """The best learning rate; null where no run gave a finite loss."""
    log2_lr_of_law: Interval
    """log2 lr of the law lr* = c (axis value / proxy)^-a there, with its 95% interval, in octaves;
    at the proxy it is log2 c, and `exponents` holds a. Null with fewer than three optima."""
    loss: float | None
    """Mean over the seeds at the best learning rate, in nats."""
    n_seeds: int
    """Seeds behind the loss."""
    n_diverged: int
    """Runs of the search that diverged."""
    is_best: bool
    """No other axis value has a lower loss under this optimizer, on the seeds that they share. A
    value of one seed is not chosen where others have more. False where the values differ in their
    tokens: more of them are better."""
    above_best: Interval
    """Loss above that of the best axis value, seed by seed, with the 95% interval, in nats. Null
    where the values differ in their tokens."""
    carried: list[CarriedByRule]
    """One per rule; empty where an optimum is not known or censored."""
    tokens_to_baseline_loss: TokensToLoss | None
    """Tokens to the loss of the suite's baseline on all tokens at the same batch."""
    budgets: list[BudgetLoss]
    """All budgets that ran, rising."""


@dataclass(frozen=True)
class CriticalOfSeed:
    """The critical batch by one seed alone."""

    seed: int
    """The seed."""
    is_bracketed: bool
    """At least four batches reach a common loss between two budgets."""
    batch: int | None
    """The critical batch; null where it lies above every batch, or is not bracketed."""


@dataclass(frozen=True)
class CriticalBatch:
    """The smallest batch whose steps to a loss exceed linear scaling by 20%."""

    optimizer: str
    """Label."""
    is_bracketed: bool
    """At least four batches reach a common loss between two budgets; else all below is null."""
    batch: int | None
    """The critical batch; null where it lies above every batch."""
    target_loss: float | None
    """The common loss, in nats."""
    tokens: float | None
    """Tokens on which the cheapest batch reaches it."""
    cheapest_batch: int | None
    """The batch that reaches it on fewest tokens."""
    n_batches: int
    """Batches that reach it between two budgets."""
    by_seed: list[CriticalOfSeed]
    """The same from the losses of every seed alone."""
