"""The comparison of batch sizes, exact on made-up parabolas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hptransfer.analysis.batch import (
    Tuned,
    critical_batches,
    is_judged,
    rules,
    seed_losses,
    tuned,
)
from hptransfer.analysis.batch_sentences import law_sentence
from hptransfer.analysis.frame import select
from hptransfer.analysis.landscape import laws
from hptransfer.analysis.optimum import optimum
from hptransfer.documents.batches import Rule
from hptransfer.report.batch_tables import batches, rests_on_one_seed
from hptransfer.suite.resolved import Suite
from test_budget import made

LR = "2^-9..2^-3"
SIX: dict[str, Any] = {"targets": [8, 16, 32, 64, 128], "tokens": 819_200, "budgets": [4, 2]}
CURVATURE = 0.1  # nats per octave squared

Level = Callable[[str, int, int, int], float]  # of label, batch, divisor and seed, nats
Center = Callable[[str, int], float]  # log2 lr* of label and batch


def a_suite(**changes: Any) -> Suite:
    labels = {"adamw": {"lr": LR}, "muon": {"lr": LR}}
    return made(
        **{**SIX, "seeds": 3, "max_seeds": 3, "baseline": "adamw", "optimizers": labels, **changes}
    )


def at_sqrt(label: str, batch: int) -> float:
    return -7.0 + 0.5 * float(np.log2(batch / 4))


def by_tokens(label: str, batch: int, divisor: int, seed: int) -> float:
    """Half an octave of tokens costs 0.05 nat, a seed moves all by 0.02."""
    return 2.0 + 0.1 * float(np.log2(divisor)) + 0.02 * seed


def records(
    suite: Suite,
    center: Center = at_sqrt,
    level: Level = by_tokens,
    *,
    fails: Callable[[str, int], bool] = lambda label, batch: False,
    reach: float = 1.0,
) -> pd.DataFrame:
    """Seed 0 on the octaves of -12 to 0 and near lr*, the further seeds within `reach` of lr*."""
    rows = []
    for label in suite.templates:
        for batch in [suite.proxy, *suite.targets]:
            best = center(label, batch)
            near = [best + step for step in (-1.0, -0.5, 0.0, 0.5, 1.0) if abs(step) <= reach]
            tried = [(float(lr), 0) for lr in range(-12, 1)] if reach else []
            points = {*tried, *((lr, seed) for lr in near for seed in range(suite.seeds))}
            runs = [(lr, seed, 1) for lr, seed in sorted(points)]
            runs += [(best, seed, k) for k in suite.budgets for seed in range(suite.seeds)]
            for lr, seed, divisor in runs:
                spec = suite.template(label, batch, divisor).point(lr, seed)
                loss = level(label, batch, divisor, seed) + CURVATURE * (lr - best) ** 2
                done = not fails(label, batch)
                rows.append(
                    {
                        "key": spec.key,
                        "cell": spec.cell,
                        "spec": spec.to_json(),
                        "log2_lr": lr,
                        "seed": seed,
                        "status": "done" if done else "diverged",
                        "loss": loss if done else np.inf,
                        "loss_init": 9.0,
                    }
                )
    return pd.DataFrame(rows)


def table_of(suite: Suite, frame: pd.DataFrame) -> dict[tuple[str, int], Tuned]:
    return {(row.optimizer, row.n): row for row in tuned(suite, frame)}


def test_a_row_has_the_steps_the_optimum_and_the_loss_of_every_seed() -> None:
    suite = a_suite()
    table = table_of(suite, records(suite))
    assert list(table)[:6] == [("adamw", batch) for batch in (4, 8, 16, 32, 64, 128)]
    row = table["adamw", 128]
    assert (row.steps, row.tokens) == (100, 819_200)
    assert row.optimum is not None
    assert row.optimum.log2_lr == pytest.approx(-4.5)
    assert row.losses.to_dict() == pytest.approx({0: 2.0, 1: 2.02, 2: 2.04})
    assert row.loss == pytest.approx(2.02)


def test_the_difference_to_the_best_batch_is_paired_by_seed() -> None:
    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        worse = {4: 0.05, 128: 0.10}.get(batch, 0.0 if batch == 16 else 0.02)
        return by_tokens(label, batch, divisor, seed) + worse * (1 + 0.1 * (seed - 1))

    suite = a_suite()
    table = table_of(suite, records(suite, level=level))
    assert [n for (label, n), row in table.items() if row.is_best and label == "muon"] == [16]
    last = table["muon", 128].difference
    assert last.value == pytest.approx(0.10)
    half = 4.302653 * 0.01 / 3**0.5  # Student's t of 2 degrees at 97.5%
    assert (last.low, last.high) == pytest.approx((0.10 - half, 0.10 + half))
    own = table["muon", 16].difference
    assert (own.value, own.low, own.high) == (0, 0, 0)


def test_a_rule_that_holds_costs_nothing_and_the_others_cost_their_parabola() -> None:
    suite = a_suite(lr_rule=0.75)
    row = table_of(suite, records(suite))["adamw", 64]  # four octaves above the proxy
    assert rules(suite) == {"unchanged": 0.0, "square root": 0.5, "linear": 1.0, "own rule": 0.75}
    assert row.regrets["square root"].log2_lr == -5.0
    assert row.regrets["square root"].cost.value == pytest.approx(0, abs=1e-12)
    assert row.regrets["own rule"].log2_lr == -4.0
    moves: dict[Rule, float] = {"unchanged": -2.0, "linear": 2.0, "own rule": 1.0}
    for rule, octaves in moves.items():
        regret = row.regrets[rule]
        assert regret.cost.value == pytest.approx(CURVATURE * octaves**2), rule
        assert regret.n_seeds == (3 if abs(octaves) <= 1 else 1)
    assert np.isinf(row.regrets["linear"].cost.high), "one seed went so far, and gives no interval"
    assert np.isfinite(row.regrets["own rule"].cost.high)


def test_an_lr_that_nobody_tried_has_no_regret() -> None:
    suite = a_suite()
    frame = records(suite)
    frame = frame[frame["log2_lr"] < -2.5]  # linear from 4 to 128 is 2^-2
    row = table_of(suite, frame)["adamw", 128]
    assert row.regrets["linear"].n_seeds == 0
    assert np.isnan(row.regrets["linear"].cost.value)
    assert row.regrets["square root"].n_seeds == 3


def test_between_two_runs_far_from_the_optimum_a_regret_lies_on_their_line() -> None:
    suite = a_suite(targets=[8], optimizers={"adamw": {"lr": LR}}, budgets=[])
    rows = select(suite, records(suite))
    rows = rows[rows["n"] == 8]
    best = optimum(rows)
    assert best is not None and best.log2_lr == pytest.approx(-6.5)
    far = seed_losses(rows, best, -3.5)
    ends = [2.0 + CURVATURE * (lr + 6.5) ** 2 for lr in (-4, -3)]
    assert far.to_dict() == pytest.approx({0: sum(ends) / 2})
    assert seed_losses(rows, best, -13.0).empty


def test_with_the_number_of_steps_the_rules_turn_round() -> None:
    steps = {"axis": "steps", "proxy": 100, "targets": [200, 400], "steps": 100, "tokens": None}
    suite = a_suite(**steps, budgets=None)
    assert is_judged(suite)
    assert rules(suite) == {"unchanged": 0.0, "square root": -0.5, "linear": -1.0}
    frame = records(suite, center=lambda label, n: -5.0 - 0.5 * float(np.log2(n / 100)))
    row = table_of(suite, frame)["muon", 400]
    assert (row.steps, row.tokens) == (400, 400 * 4 * 64)
    assert row.regrets["square root"].cost.value == pytest.approx(0, abs=1e-12)
    assert row.regrets["unchanged"].cost.value == pytest.approx(CURVATURE)


def test_the_law_of_the_best_lr_has_its_factor_at_the_proxy_and_its_exponent() -> None:
    suite = a_suite()
    found = laws(suite, select(suite, records(suite)))
    law = found["adamw"]
    assert law.exponent.alpha.value == pytest.approx(-0.5), (
        "lr* rises with the square root of the batch"
    )
    assert law.at[4].value == pytest.approx(-7.0)
    assert law.at[128].value == pytest.approx(-4.5)
    assert law_sentence(suite, law).startswith("adamw: lr* = 2^-7.00 (B/4)^0.50 at batch B (factor")
    bent = records(suite, center=lambda label, n: at_sqrt(label, n) + (n == 32))
    law = laws(suite, select(suite, bent))["adamw"]
    fit = np.polyfit(np.arange(6), [-7, -6.5, -6, -4.5, -5, -4.5], 1)
    assert law.exponent.alpha.value == pytest.approx(-fit[0])
    assert law.at[4].value == pytest.approx(fit[1])
    assert law.at[4].high - law.at[4].low > 1, "the optima scatter about the line"


def test_two_optima_give_no_law_and_one_seed_no_interval() -> None:
    suite = a_suite(targets=[8])
    assert laws(suite, select(suite, records(suite))) == {}
    suite = a_suite(seeds=1, max_seeds=1)
    law = laws(suite, select(suite, records(suite)))["adamw"]
    assert law_sentence(suite, law) == (
        "adamw: lr* = 2^-7.00 (B/4)^0.50 at batch B (one seed gives no interval)."
    )


def test_a_suite_with_fixed_steps_is_not_judged() -> None:
    assert not is_judged(made(tokens=None, steps=10))
    assert is_judged(made())


def test_a_rule_by_one_seed_alone_is_marked_in_the_table() -> None:
    suite = a_suite(lr_rule=0.75)
    table = table_of(suite, records(suite))
    row = table["adamw", 64]
    assert [rule for rule in row.regrets if rests_on_one_seed(row, rule)] == ["unchanged", "linear"]
    shown = batches(suite, list(table.values()))
    assert not any(cell.under.startswith(", ") for cells in shown.rows for cell in cells)
    cells = next(cells for cells in shown.rows if [c.text for c in cells[:2]] == ["adamw", "64"])
    under = {name: cell.under for name, cell in zip(shown.columns, cells, strict=True)}
    assert under["lr × (B/B0)^1: regret, nat"] == "one seed alone"
    assert under["lr × (B/B0)^0.75: regret, nat"] == "0.100 to 0.100"
    one = a_suite(seeds=1, max_seeds=1)
    row = table_of(one, records(one))["adamw", 64]
    assert not any(rests_on_one_seed(row, rule) for rule in row.regrets), "nor does lr* by more"


def test_the_critical_batch_comes_from_the_further_budgets() -> None:
    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        overhead = {32: 1.1, 64: 1.3, 128: 1.9}.get(batch, 1.0) if label == "adamw" else 1.0
        return by_tokens(label, batch, divisor, seed) + 0.1 * float(np.log2(overhead))

    suite = a_suite()
    found = critical_batches(list(table_of(suite, records(suite, level=level)).values()))
    adamw, muon = found["adamw"].of_means, found["muon"].of_means
    assert adamw is not None and muon is not None
    assert {own and own.batch for own in found["adamw"].by_seed.values()} == {64}
    assert list(found["adamw"].by_seed) == [0, 1, 2]
    assert (adamw.batch, adamw.n_bracketed) == (64, 6)
    assert adamw.tokens == pytest.approx(819_200 / 2)
    assert muon.batch is None


def test_an_optimizer_that_diverges_at_the_large_batch_keeps_its_other_rows() -> None:
    suite = a_suite()
    frame = records(suite, fails=lambda label, batch: (label, batch) == ("muon", 128))
    table = table_of(suite, frame)
    lost = table["muon", 128]
    assert lost.optimum is None
    assert (lost.n_diverged, len(lost.losses), lost.regrets, lost.relative) == (26, 0, {}, None)
    assert np.isnan(lost.loss) and np.isnan(lost.difference.value)
    assert table["muon", 64].difference.value == pytest.approx(0)
    found = critical_batches(list(table.values()))
    muon = found["muon"].of_means
    assert muon is not None and muon.n_bracketed == 5


def test_a_censored_optimum_is_the_best_of_nothing_and_enters_no_ratio() -> None:
    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        return by_tokens(label, batch, divisor, seed) - (0.5 if batch == 128 else 0.0)

    suite = a_suite()
    frame = records(suite, level=level)
    spent = [spec["batch"] for spec in frame["spec"]]
    frame = frame[(np.array(spent) != 128) | (frame["log2_lr"] <= at_sqrt("", 128))]
    table = table_of(suite, frame)
    row = table["adamw", 128]
    assert row.optimum is not None and row.optimum.censored == "high"
    assert not row.is_best
    assert row.difference.value == pytest.approx(-0.5)
    assert (row.regrets, row.relative) == ({}, None)
    found = critical_batches(list(table.values()))["adamw"].of_means
    assert found is not None and found.n_bracketed == 5


def test_one_batch_alone_is_its_own_best() -> None:
    suite = a_suite(targets=[])
    table = table_of(suite, records(suite))
    assert list(table) == [("adamw", 4), ("muon", 4)]
    row = table["adamw", 4]
    assert row.is_best
    assert {regret.cost.value for regret in row.regrets.values()} == {0.0}
    found = critical_batches(list(table.values()))
    assert {label: own.of_means for label, own in found.items()} == {"adamw": None, "muon": None}


def test_nothing_yet_is_an_empty_table() -> None:
    suite = a_suite()
    frame = records(suite)
    assert tuned(suite, frame.iloc[:0]) == []
    without = frame[[spec["batch"] != 4 for spec in frame["spec"]]]
    assert table_of(suite, without)["adamw", 8].regrets == {}, "the proxy is not tuned yet"
