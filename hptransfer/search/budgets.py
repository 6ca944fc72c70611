"""The runs of a suite on parts of its tokens, at the best learning rate of the whole."""

from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite


def further_budgets(
    suite: Suite, label: str, n: int, log2_lr: float, hp: dict[str, float]
) -> list[RunSpec]:
    """The runs at axis value `n` on tokens / k for every k of the suite's budgets, seeds 0 on.

    Each has a whole schedule of its own: the loss in the middle of a longer run is that of a
    learning rate that has not decayed yet. `log2_lr`, `hp`: the best setting on all tokens.
    """
    return [
        suite.template(label, n, divisor).point(log2_lr, seed, **hp)
        for divisor in suite.budgets
        for seed in range(suite.seeds)
    ]
