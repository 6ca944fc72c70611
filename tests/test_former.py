"""The rule of 0.1, for the records that it judged."""

import math
from dataclasses import replace

import numpy as np
import pytest

from frames import half_octaves, make_suite, record, to_frame
from hptransfer.analysis.former import decide, judge
from hptransfer.analysis.frame import select
from hptransfer.analysis.parabola import Interval
from hptransfer.analysis.transfer import transfers
from hptransfer.spec import FIRST_SCHEMA
from hptransfer.suite.ranges import value_range
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


def test_with_searched_values_the_target_too_has_the_optimum_of_that_rule() -> None:
    """Searched values are carried unchanged, so the optimum at the target is sought anew."""
    suite = make_suite("muon")
    table = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    older = {label: replace(run, schema=FIRST_SCHEMA) for label, run in suite.templates.items()}
    suite = suite.model_copy(update={"optimizers": {"muon": table}, "templates": older})
    rows = [
        record(suite.template("muon", n).point(at, 0, beta=beta), n, -5.2, noise=0)
        for n in (32, 128)
        for beta in (0.9, 0.8)
        for at in half_octaves(-5)
    ]
    [row] = transfers(suite, select(suite, to_frame(rows)))
    assert row.at_target is not None
    assert row.at_target.log2_lr == pytest.approx(-5.2, abs=0.01)
    assert row.at_target.vertex is None, "the rule of 0.1 knew no interval"
    assert (row.drift.low, row.drift.high) == pytest.approx((math.nan, math.nan), nan_ok=True)
