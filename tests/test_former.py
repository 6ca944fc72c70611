"""The rule of 0.1, for the records that it judged."""

import math

import numpy as np
import pytest

from hptransfer.analysis.former import decide, judge
from hptransfer.analysis.parabola import Interval
from hptransfer.suite.tables import Thresholds


@pytest.mark.parametrize(
    ("regret", "low", "high", "drift", "verdict"),
    [
        (0.05, 0.02, 0.08, -1.0, "drifts"),
        (0.05, 0.02, 0.08, -0.5, "transfers"),
        (0.005, 0.002, 0.008, -1.0, "transfers"),
        (0.02, -0.01, 0.05, 1.0, "inconclusive"),
        (0.005, 0.001, 0.021, 1.0, "inconclusive"),
        (0.005, -0.005, 0.019, 1.0, "transfers"),
        (0.0, -math.inf, math.inf, 1.0, "inconclusive"),
        (-0.02, -0.05, 0.01, 2.0, "transfers"),
    ],
)
def test_the_rule_of_the_verdict(
    regret: float, low: float, high: float, drift: float, verdict: str
) -> None:
    assert decide(Interval(regret, low, high), drift, Thresholds()) == verdict


def test_what_that_rule_did_not_know_is_no_number() -> None:
    seen = judge(np.array([0.1, 0.11, 0.12]), -1.0, Thresholds())
    assert seen is not None
    assert seen.verdict == "drifts"
    assert math.isnan(seen.kept)
    assert not seen.on_edge
    assert judge(np.array([]), -1.0, Thresholds()) is None
