"""The runs of a suite on parts of its tokens, at the best learning rate of the whole."""

import pandas as pd

from hptransfer.analysis.optimum import optimum
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite


def further_budgets(suite: Suite, label: str, n: int, rows: pd.DataFrame) -> list[RunSpec]:
    """The runs at axis value `n` on tokens / k for every k of the suite's budgets.

    They have the best setting of the finished search `rows`, each with the first seeds of `n` and
    a whole schedule of its own: the loss in the middle of a longer run is that of a learning rate
    that has not decayed yet. [] where no run of the search gave a finite loss.
    """
    best = optimum(rows) if suite.budgets else None
    if best is None:
        return []
    log2_lr = suite.clip_lr(label, best.log2_lr)
    return [
        suite.template(label, n, divisor).point(log2_lr, seed, **best.hp)
        for divisor in suite.budgets
        for seed in range(suite.looks_at(n)[0])
    ]
