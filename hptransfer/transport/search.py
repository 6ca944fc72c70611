"""The learning rates of an arm: the bracket on one seed, then further seeds at the best three."""

from typing import TYPE_CHECKING

from hptransfer.analysis.statuses import finished
from hptransfer.search import bracket
from hptransfer.search.trials import Point, Trials
from hptransfer.suite.resolved import Suite

if TYPE_CHECKING:
    import pandas as pd


def propose(suite: Suite, label: str, n: int, rows: "pd.DataFrame") -> list[tuple[Point, int]]:
    """(point, seed) pairs that an arm still lacks; [] when finished.

    As search.proxy.propose, with further seeds at the best half octave and its two neighbours
    alone. `rows`: the rows of (label, n).
    """
    del n  # the rows are of one axis value already
    trials = Trials.of(finished(rows))
    start, limits = bracket.grid_and_limits(suite, label)
    search = bracket.Search(start, limits, suite.setting(label, "trials"), halves=1)
    missing = trials.missing(search.stages(trials, suite.seeds))
    if not missing and trials.untold():
        missing = trials.missing(search.stages(trials, suite.seeds))
    return [((lr, {}), seed) for (lr, _), seed in missing]
