"""The runs at learning rates that a rule makes of the proxy's, where the search did not go."""

import pandas as pd

from hptransfer.analysis import batch
from hptransfer.analysis.optimum import optimum
from hptransfer.search.trials import Point
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite


def ruled(suite: Suite, label: str, n: int, rows: pd.DataFrame, carried: Point) -> list[RunSpec]:
    """The runs at axis value `n` on every seed for each rule whose cost some seed cannot tell.

    A search takes its further seeds near the optimum alone, so the cost of a rule that leads
    further away would rest on seed 0 and on a line between two of its runs. A learning rate
    outside the suite's start range gets no runs: there they would show that a rule fails, which
    one seed shows too.
    `rows`: the finished search at (label, n). `carried`: log2 lr and the other hyperparameters.
    [] for a suite without such rules, and where the optimum is not known or censored.
    """
    best = optimum(rows) if batch.is_judged(suite) else None
    if best is None or best.censored:
        return []
    start, hp = carried
    low, high = suite.start_grid(label)
    seeds = range(suite.looks_at(n)[0])
    lrs = {batch.by_rule(suite, start, n, exponent) for exponent in batch.rules(suite).values()}
    return [
        suite.template(label, n).point(lr, seed, **hp)
        for lr in sorted(lrs)
        if low <= lr <= high and not set(seeds) <= set(batch.seed_losses(rows, best, lr).index)
        for seed in seeds
    ]
