"""Three rules of the verdict on made-up studies: that of 0.1, rule B, and the package's."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

import former_rule
from hptransfer.analysis.judgement import Case, judge, verdict
from hptransfer.suite.tables import Thresholds
from simulated import LOOKS, Study

LAST = 1  # the target that is judged
LIMITS = Thresholds()


@dataclass(frozen=True)
class Seen:
    """What a rule made of one study: verdict, seeds and runs at the target, mark (or none)."""

    verdict: str
    seeds: int
    runs: int
    on_edge: bool = False


def former(study: Study) -> Seen:
    word, runs = former_rule.verdict(study, LAST, LIMITS)
    return Seen(word, 3, runs)


def rule_b(study: Study) -> Seen:
    """The t-interval of the seeds' regrets as it is."""

    def word(case: Case) -> str:
        costs = case.seen()
        low, high = bounds(costs.carried)
        passes = high < LIMITS.limit
        flat = max(bounds(costs.down)[1], bounds(costs.up)[1]) < LIMITS.tol
        if low > LIMITS.tol:
            return "drifts"
        return ("insensitive" if flat else "transfers") if passes else "inconclusive"

    return _sequential(study, LAST, word)


def bounds(costs: np.ndarray) -> tuple[float, float]:
    """The t-interval of the mean over seeds, without a widening, nats. `costs`: (1, seeds)."""
    count = costs.shape[1]
    half = float(stdtrit(count - 1, 0.98) * costs[0].std(ddof=1) / np.sqrt(count))
    return float(costs[0].mean()) - half, float(costs[0].mean()) + half


def ours(study: Study) -> Seen:
    seen = stopped(study, LAST)
    case = study.targets[LAST].looks[seen.seeds].case(study.carried, seen.seeds)
    return replace(seen, on_edge=judge(case, LIMITS, LOOKS, study.redrawn).on_edge)


def stopped(study: Study, target: int) -> Seen:
    """Where the sequence of the package's rule ends."""
    return _sequential(study, target, lambda case: verdict(case, LIMITS))


def _sequential(study: Study, target: int, word_of: Callable[[Case], str]) -> Seen:
    """Looks at each number of seeds until the verdict is no longer inconclusive."""
    word, seeds, told = "", 0, study.targets[target].looks[LOOKS[0]]
    for seeds in LOOKS:
        told = study.targets[target].looks[seeds]
        word = word_of(told.case(study.carried, seeds))
        if word != "inconclusive":
            break
    return Seen(word, seeds, told.n_runs)


RULES: dict[str, Callable[[Study], Seen]] = {"former": former, "B": rule_b, "package": ours}
