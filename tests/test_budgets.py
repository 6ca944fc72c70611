"""The runs on parts of the tokens, planned and found again."""

from typing import Any

import pandas as pd

from hptransfer.analysis.frame import belonging, select
from hptransfer.search.plan import forecast, plan
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite
from test_budget import made

ONE: dict[str, Any] = {
    "optimizers": {"adamw": {"lr": "2^-8..2^-3"}},
    "seeds": 1,
    "max_seeds": 1,
}
BEST = {4: -6.0, 8: -5.5, 16: -5.0}  # octaves, by batch


def answered(specs: list[RunSpec], **changes: object) -> pd.DataFrame:
    rows = [
        {
            "key": spec.key,
            "cell": spec.cell,
            "spec": spec.to_json(),
            "log2_lr": spec.log2_lr,
            "seed": spec.seed,
            "status": "done",
            "loss": 2 + 0.1 * (spec.log2_lr - BEST[spec.batch]) ** 2,
            "loss_init": 5.0,
            **changes,
        }
        for spec in specs
    ]
    return pd.DataFrame(rows)


def finished_suite(suite: Suite) -> list[RunSpec]:
    """Every run until nothing is missing."""
    empty = answered([suite.template("adamw")]).iloc[:0]
    done: list[RunSpec] = []
    for _ in range(30):
        todo = plan(suite, answered(done) if done else empty)
        if not todo:
            return done
        done += todo
    raise AssertionError("the plan does not end")


def test_the_best_lr_of_every_batch_runs_on_each_part_of_the_tokens_with_its_own_steps() -> None:
    suite = made(budgets=[4, 2], **{**ONE, "seeds": 2, "max_seeds": 2})
    runs = finished_suite(suite)
    whole = {4: 400, 8: 200, 16: 100}
    shorter = [run for run in runs if run.steps != whole[run.batch]]
    assert {(run.batch, run.steps, run.log2_lr, run.seed) for run in shorter} == {
        (batch, steps // divisor, BEST[batch], seed)
        for batch, steps in whole.items()
        for divisor in (4, 2)
        for seed in (0, 1)
    }
    assert len({run.key for run in runs}) == len(runs)
    assert set(suite.names(runs)) == {run.key for run in runs}


def test_runs_on_a_part_of_the_tokens_take_no_part_in_the_search() -> None:
    suite = made(budgets=[4, 2], **ONE)
    runs = finished_suite(suite)
    frame = answered(runs)
    assert len(belonging(suite, frame)) == len(runs)
    parts = [set(select(suite, frame, divisor)["key"]) for divisor in (1, 2, 4)]
    assert set.union(*parts) == set(frame["key"])
    assert sum(len(part) for part in parts) == len(runs)
    without = made(**ONE)
    assert {run.key for run in finished_suite(without)} == set(select(suite, frame)["key"])


def test_the_forecast_counts_the_runs_on_parts_of_the_tokens() -> None:
    suite = made(budgets=[4, 2], **ONE)
    expected = forecast(suite, answered([suite.template("adamw")]).iloc[:0])
    assert sum(run.steps < {4: 400, 8: 200, 16: 100}[run.batch] for run in expected) == 6


def test_a_failed_run_on_a_part_of_the_tokens_is_planned_again() -> None:
    suite = made(budgets=[2], **ONE)
    runs = finished_suite(suite)
    assert plan(suite, answered(runs)) == []
    lost = next(run for run in runs if run.steps == 50)
    others = answered([run for run in runs if run is not lost])
    failed = answered([lost], status="failed", loss=float("nan"))
    assert plan(suite, pd.concat([others, failed])) == [lost]
