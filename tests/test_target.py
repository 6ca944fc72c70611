"""The runs at a target: five half octaves and the carried lr, on more seeds while undecided."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from frames import make_suite, record, to_frame
from hptransfer.analysis.curve import curve
from hptransfer.analysis.frame import select
from hptransfer.errors import InputError
from hptransfer.search import target
from hptransfer.search.plan import forecast, plan
from hptransfer.search.target import Looks
from hptransfer.spec import canonical
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import parse_suite
from hptransfer.suite.resolved import Suite

CARRIED = -5.625
Loss = Callable[[float, int], float]


def suite_of(**changes: object) -> Suite:
    return make_suite("muon", **changes)


def runs(suite: Suite, known: dict[tuple[float, int], float]) -> pd.DataFrame:
    spec = suite.template("muon", 128)
    made = [
        {**record(spec.point(lr, seed), 128, -6.0), "loss": loss, "status": "done"}
        for (lr, seed), loss in known.items()
    ]
    return to_frame(made).assign(hp_point=canonical({}))


def told(
    suite: Suite, loss: Loss, looks: Looks | None = None, order: int = 0
) -> dict[tuple[float, int], float]:
    """All runs at a target, with one answer at a time, in random order."""
    lot, known = np.random.default_rng(order), {}
    looks = looks or Looks(suite.looks)
    for _ in range(500):
        missing = target.propose(suite, "muon", runs(suite, known), (CARRIED, {}), looks)
        if not missing:
            return known
        (lr, _), seed = missing[lot.integers(len(missing))]
        known[lr, seed] = loss(lr, seed)
    raise AssertionError("the seeds do not end")


def bowl(lr: float, seed: int) -> float:
    return 2.5 + 0.08 * (lr + 6.2) ** 2 + 0.01 * seed


def noisy(lr: float, seed: int) -> float:
    """So flat that the seeds decide nothing, and that more of them move the best mean."""
    draw = np.random.default_rng([seed, int(8 * lr) + 900]).normal(size=2)
    return 2.5 + 0.004 * (lr + 6.2) ** 2 + 0.15 * draw[0]


def test_a_clear_case_ends_at_the_first_look() -> None:
    known = told(suite_of(), bowl)
    five = {-7.0, -6.5, -6.0, -5.5, -5.0}
    assert {trial for trial in known if trial[0] in {CARRIED, *five}} == {
        (lr, seed) for lr in (CARRIED, *five) for seed in range(3)
    }
    assert max(seed for _, seed in known) == 2


def test_an_undecided_case_gets_five_seeds_then_eight_and_no_more() -> None:
    known = told(suite_of(), noisy)
    assert {seed for _, seed in known} == set(range(8))
    means = {
        lr: np.mean([known[lr, seed] for seed in range(8)])
        for lr in {lr for lr, seed in known if seed == 7}
    }
    best = min((lr for lr in means if lr % 0.5 == 0), key=lambda lr: means[lr])
    for lr in (CARRIED, best - 1, best - 0.5, best, best + 0.5, best + 1):
        assert {seed for own, seed in known if own == lr} == set(range(8))


@pytest.mark.parametrize(
    ("seeds", "most", "looks"),
    [(3, 8, (3, 5, 8)), (3, 3, (3,)), (1, 6, (1, 5, 6)), (5, 8, (5, 8)), (3, 20, (3, 5, 8, 20))],
)
def test_the_looks_begin_at_seeds_and_end_at_max_seeds(
    seeds: int, most: int, looks: tuple[int, ...]
) -> None:
    suite = suite_of(seeds=seeds, max_seeds=most)
    assert suite.looks == looks
    assert {seed for _, seed in told(suite, noisy)} == set(range(most))


def test_the_order_of_the_answers_does_not_change_the_runs_at_a_target() -> None:
    suite = suite_of()
    assert len({frozenset(told(suite, noisy, order=order)) for order in range(4)}) == 1


def test_more_seeds_never_take_back_a_decision_before_them() -> None:
    """Every look but the last was undecided on the runs up to it."""
    suite = suite_of(max_seeds=5)
    known = told(suite, noisy)
    more = target.propose(
        suite_of(), "muon", runs(suite, known), (CARRIED, {}), Looks(suite_of().looks)
    )
    assert {seed for _, seed in more} == {5, 6, 7}


def test_a_proxy_whose_optimum_is_at_an_edge_asks_for_no_more_seeds() -> None:
    suite = suite_of(optimizers={"muon": {"lr": "2^-6..2^-4"}})

    def loss(lr: float, seed: int) -> float:
        return 3 - 0.1 * lr if seed < 99 else noisy(lr, seed)  # the width is in the seed

    rows = select(suite, whole(suite, loss))
    assert set(rows["seed"]) == {0, 1, 2}
    assert len(set(rows[rows["n"] == 128]["log2_lr"])) >= 5


def whole(suite: Suite, loss: Loss) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for _ in range(60):
        todo = plan(suite, to_frame(rows))
        if not todo:
            return to_frame(rows)
        rows += [
            {**record(s, s.width, -6.0, cliff=9), "loss": loss(s.log2_lr, s.seed + s.width)}
            for s in todo
        ]
    raise AssertionError("the suite does not end")


def test_a_forecast_counts_the_first_look_and_at_most_the_last() -> None:
    suite = suite_of()
    expected, most = (forecast(suite, to_frame([]), surprise=each) for each in (False, True))
    assert max(spec.seed for spec in expected) == 2
    assert max(spec.seed for spec in most) == 7
    assert {spec.key for spec in expected} < {spec.key for spec in most}
    assert len(most) - len(expected) == 6 * 5


def test_a_finished_suite_lacks_seeds_where_it_is_undecided_and_nowhere_else() -> None:
    short = suite_of(max_seeds=3)
    longer = suite_of()
    undecided, clear = whole(short, noisy), whole(short, bowl)
    assert forecast(short, undecided) == forecast(longer, clear) == []
    missing = forecast(longer, undecided)
    assert {(spec.width, spec.seed) for spec in missing} == {(128, 3), (128, 4)}
    assert len(forecast(longer, undecided, surprise=True)) > len(missing)


def test_fewer_seeds_at_the_end_than_at_the_start_are_refused_with_a_cure() -> None:
    with pytest.raises(InputError, match="max_seeds: got 2, needs at least seeds = 3") as caught:
        suite_of(max_seeds=2)
    assert caught.value.cures == ("max_seeds", "seeds")
    assert suite_of(seeds=12).max_seeds == 12


def test_fresh_seeds_are_refused_with_what_takes_their_place() -> None:
    own = set(SuiteTable.model_fields) - {"origin"}
    table = suite_of().model_dump(mode="json", include=own)
    with pytest.raises(InputError, match="fresh_seeds: no key of a suite any more") as caught:
        parse_suite({**table, "fresh_seeds": 3}, {})
    assert "max_seeds = 8" in caught.value.hint


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [(0.05, 0.01, False), (0.004, 0.001, False), (0.015, 0.005, True), (0.0, 0.05, True)],
)
def test_a_regret_clear_of_tol_or_of_the_limit_decides(
    mean: float, spread: float, expected: bool
) -> None:
    """A parabola whose loss an octave above its vertex is `mean` more, with a slope per seed."""
    slopes = spread * np.array([-1.0, 0.0, 1.0])
    made = itertools.product((-7.0, -6.5, -6.0, -5.5, -5.0), range(3))
    suite = suite_of()
    known = {(lr, s): 2.5 + mean * (lr + 6) ** 2 + slopes[s] * (lr + 6) for lr, s in made}
    known |= {(-4.0, s): 4.0 for s in range(3)} | {(-8.0, s): 4.0 for s in range(3)}
    rows = runs(suite, known)
    assert target.undecided(curve(rows), -5.0, suite.thresholds) == expected
