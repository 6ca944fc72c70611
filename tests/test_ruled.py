"""The runs at the lrs of rules, on the seeds whose search did not go there."""

from typing import Any

import numpy as np
import pandas as pd

from frames import record, to_frame
from hptransfer.analysis.batch import tuned
from hptransfer.search.plan import plan
from hptransfer.suite.resolved import Suite
from test_budget import made


def a_suite(**changes: Any) -> Suite:
    table = {"lr": "2^-9..2^-3"}
    return made(
        **{
            "targets": [64], "tokens": 409_600, "lr_rule": 2.0, "optimizers": {"adamw": table},
            **changes,
        }
    )  # fmt: skip


def whole(suite: Suite) -> pd.DataFrame:
    """Records of the whole suite, whose best lr is 2^-7.1 at every batch."""
    records: list[dict[str, Any]] = []
    while todo := plan(suite, to_frame(records)):
        records += [record(s, s.axis_value(suite.axis), -7.1, cliff=30) for s in todo]
    return to_frame(records)


def test_a_rule_within_the_start_range_is_judged_by_every_seed_and_one_beyond_is_not() -> None:
    """From batch 4 to 64 the square root leads 2 octaves up, linear 4, and the own rule 8."""
    suite = a_suite()
    frame = whole(suite)
    regrets = {row.n: row.regrets for row in tuned(suite, frame)}[64]
    assert {rule: each.n_seeds for rule, each in regrets.items()} == {
        "unchanged": 3, "square root": 3, "linear": 3, "own rule": 0,
    }  # fmt: skip
    assert max(frame["log2_lr"]) <= -3
    start = regrets["unchanged"].log2_lr
    for rule, octaves in (("square root", 2), ("linear", 4)):
        at = frame[(frame["batch"] == 64) & (frame["log2_lr"] == start + octaves)]
        assert sorted(at["seed"]) == [0, 1, 2], rule
        cost = 0.08 * (start + octaves + 7.1) ** 2
        assert abs(regrets[rule].cost.value - cost) < 0.01  # type: ignore[index]
        assert np.isfinite(regrets[rule].cost.high)  # type: ignore[index]


def test_a_rule_near_the_optimum_asks_for_no_run_of_its_own() -> None:
    suite = a_suite(lr_rule=0.05, targets=[8])
    without = a_suite(lr_rule=None, targets=[8])
    assert set(whole(suite)["key"]) == set(whole(without)["key"])


def test_the_runs_of_rules_come_after_the_search_and_change_nothing_of_it() -> None:
    suite = a_suite()
    frame = whole(suite)
    at_rules = (frame["log2_lr"] > -5.5) & (frame["batch"] == 64)
    assert at_rules.sum() == 6
    lacking = plan(suite, frame[~at_rules])
    assert {spec.key for spec in lacking} == set(frame[at_rules]["key"])
    assert plan(suite, frame) == []


def test_a_suite_that_compares_no_batches_asks_for_no_such_run() -> None:
    steps = a_suite(tokens=None, steps=100)
    carried = whole(steps)
    assert max(carried[carried["batch"] == 64]["log2_lr"]) < -5.5
