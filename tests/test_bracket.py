"""The bracket ends, encloses the minimum, and has the same points in any order of answers."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hptransfer.analysis.losses import means
from hptransfer.datasets import Unread
from hptransfer.search import bracket as module
from hptransfer.search import proxy
from hptransfer.search.bracket import bracket
from hptransfer.suite.file import parse_suite
from hptransfer.suite.resolved import Suite, resolve

START, LIMITS = (-9.0, -4.0), (-13.0, 0.0)
INIT = 20.0
losses = st.one_of(st.floats(0, 10), st.just(math.inf))


def tables() -> st.SearchStrategy[dict[float, float]]:
    """A loss for every half octave within the limits."""
    points = [LIMITS[0] + k / 2 for k in range(27)]
    return st.lists(losses, min_size=27, max_size=27).map(
        lambda values: dict(zip(points, values, strict=True))
    )


def search(loss: Callable[[float], float], **keywords: int) -> dict[float, float]:
    known: dict[float, float] = {}
    for _ in range(60):
        missing = bracket(known, START, LIMITS, **keywords)
        if not missing:
            return known
        known |= {lr: loss(lr) for lr in missing}
    raise AssertionError("the bracket does not end")


@given(tables())
def test_a_finished_bracket_encloses_its_minimum_or_ends_at_a_limit(
    table: dict[float, float],
) -> None:
    known = search(table.__getitem__)
    assert set(known) >= {START[0] + k for k in range(6)}
    best = min(known, key=lambda lr: (known[lr], lr))
    if known[best] == math.inf:
        assert min(known) == LIMITS[0]
        return
    for side in (best - 0.5, best + 0.5):
        assert side in known or not LIMITS[0] <= side <= LIMITS[1]


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_does_not_change_the_points(
    table: dict[float, float], random: Random
) -> None:
    known: dict[float, float] = {}
    while missing := bracket(known, START, LIMITS):
        lr = random.choice(missing)
        known[lr] = table[lr]
    assert known == search(table.__getitem__)


@given(tables(), st.randoms(use_true_random=False))
def test_no_later_stage_is_proposed_while_one_is_incomplete(
    table: dict[float, float], random: Random
) -> None:
    known: dict[float, float] = {}
    while stage := bracket(known, START, LIMITS):
        left = set(stage)
        while left:
            lr = random.choice(sorted(left))
            known[lr] = table[lr]
            left.remove(lr)
            if left:
                assert set(bracket(known, START, LIMITS)) == left


@given(tables(), st.dictionaries(st.integers(-120, 16).map(lambda k: k / 8), losses, max_size=12))
def test_points_off_the_grid_count_and_it_still_ends(
    table: dict[float, float], foreign: dict[float, float]
) -> None:
    known = dict(foreign)
    for _ in range(60):
        missing = bracket(known, START, LIMITS)
        if not missing:
            break
        assert not known.keys() & set(missing)
        known |= {lr: table[lr] for lr in missing}
    else:
        raise AssertionError("the bracket does not end")
    best = min(known, key=lambda lr: (known[lr], lr))
    if known[best] < math.inf:
        for low, high in ((best - 0.5, best), (best, best + 0.5)):
            near = any(low <= lr <= high and lr != best for lr in known)
            assert near or low < LIMITS[0] or high > LIMITS[1]


@given(tables(), st.integers(1, 30))
def test_no_more_trials_than_the_cap(table: dict[float, float], trials: int) -> None:
    assert len(search(table.__getitem__, trials=trials)) <= trials


def test_a_cap_below_the_start_grid_keeps_its_middle() -> None:
    assert bracket({}, START, LIMITS, trials=2) == [-7.0, -6.0]


def test_a_parabola_costs_its_grid_and_two_half_octaves() -> None:
    known = search(lambda lr: (lr + 6.4) ** 2)
    assert sorted(known) == [-9, -8, -7, -6.5, -6, -5.5, -5, -4]


def test_a_falling_curve_grows_up_to_the_limit() -> None:
    known = search(lambda lr: -lr)
    assert sorted(known) == [*range(-9, 0), -0.5, 0]


def test_when_all_diverge_it_grows_downwards_to_the_limit_and_ends() -> None:
    assert sorted(search(lambda lr: math.inf)) == [float(lr) for lr in range(-13, -3)]


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setattr(Suite, "lr_limits", lambda self, label: LIMITS)
    table = {
        "name": "x",
        "claim": "none",
        "model": "gpt",
        "data": "python_source",
        "proxy": 32,
        "steps": 10,
        "batch": 1,
        "seeds": 2,
        "optimizers": {"adamw": {"lr": "2^-9..2^-4"}},
    }
    return resolve(parse_suite(table, {}), Unread())


def rows(known: dict[float, float], seed: int = 0, status: str = "done") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "log2_lr": list(known),
            "loss": list(known.values()),
            "status": ["diverged" if v == math.inf else status for v in known.values()],
            "seed": seed,
            "hp_point": "{}",
            "loss_init": INIT,
        }
    )


def test_the_first_proposal_is_the_start_grid_on_seed_0(suite: Suite) -> None:
    expected = [((float(lr), {}), 0) for lr in range(-9, -3)]
    assert proxy.propose(suite, "adamw", 32, rows({})) == expected


def test_around_a_carried_lr_one_octave_at_each_side_is_searched(suite: Suite) -> None:
    def grid(around: float) -> tuple[float, float]:
        return module.around(suite, "adamw", around)[0]

    assert grid(-6.375) == (-7, -5)
    assert grid(-0.5) == (-1, 0)
    assert grid(5.0) == (-1, 0)
    assert grid(-20.0) == (-13, -12)


def test_a_failed_run_is_proposed_again(suite: Suite) -> None:
    known = {float(lr): 1.0 for lr in range(-9, -3)}
    failed = rows({-7.0: math.nan}, status="failed")
    del known[-7.0]
    together = pd.concat([rows(known), failed], ignore_index=True)
    assert proxy.propose(suite, "adamw", 32, together) == [((-7.0, {}), 0)]


def test_further_seeds_follow_on_the_five_half_octaves_about_the_best(suite: Suite) -> None:
    known = search(lambda lr: (lr + 6.4) ** 2)
    wanted = [((lr, {}), 1) for lr in (-7.5, -7, -6.5, -6, -5.5)]
    assert proxy.propose(suite, "adamw", 32, rows(known)) == [((-7.5, {}), 0), *wanted]
    known[-7.5] = 1.21
    together = pd.concat([rows(known), rows({-6.5: 0.01}, seed=1)], ignore_index=True)
    left = [lr for (lr, _), _ in proxy.propose(suite, "adamw", 32, together)]
    assert left == [-7.5, -7, -6, -5.5]
    done = pd.concat([rows(known), rows(known, seed=1)], ignore_index=True)
    assert proxy.propose(suite, "adamw", 32, done) == []


def test_one_seed_has_the_five_half_octaves_too(suite: Suite) -> None:
    one = suite.model_copy(update={"seeds": 1})
    known = searched(one, lambda lr, seed: (lr + 6.4) ** 2)
    assert {lr for lr, _ in known} >= {-7.5, -7, -6.5, -6, -5.5}


def test_a_cap_on_the_points_keeps_those_nearest_to_the_best(suite: Suite) -> None:
    capped = suite.model_copy(update={"trials": 8})
    known = searched(capped, lambda lr, seed: (lr + 6.4) ** 2)
    assert {lr for lr, seed in known if seed == 1} == {-7, -6.5, -6, -5.5}
    assert len({lr for lr, _ in known}) == 8


def test_a_point_between_the_half_octaves_has_no_say(suite: Suite) -> None:
    """It was carried here from another proxy."""
    known = searched(suite, lambda lr, seed: (lr + 6.4) ** 2)
    known[-8.375, 0] = known[-8.375, 1] = -1.0
    assert proxy.propose(suite, "adamw", 32, trials(known)) == []


Loss = Callable[[float, int], float]


def noisy(lr: float, seed: int) -> float:
    """A basin so flat that each seed has its own best lr."""
    return 0.01 * (lr + 6.4) ** 2 + 0.1 * np.random.default_rng([seed, int(2 * lr) + 99]).normal()


def lucky(lr: float, seed: int) -> float:
    """Seed 0 is best where the mean is not."""
    return 0.01 * (lr + 6.4) ** 2 + seed - 0.1 * (lr == -9 and seed == 0)


def searched(suite: Suite, loss: Loss, order: int = 0) -> dict[tuple[float, int], float]:
    """A whole search on several seeds with one answer at a time, in random order."""
    lot, known = np.random.default_rng(order), {}
    while missing := proxy.propose(suite, "adamw", 32, trials(known)):
        (lr, _), seed = missing[lot.integers(len(missing))]
        known[lr, seed] = loss(lr, seed)
    return known


def trials(known: dict[tuple[float, int], float]) -> pd.DataFrame:
    return pd.concat([rows({lr: loss}, seed) for (lr, seed), loss in known.items()] or [rows({})])


def test_several_seeds_in_any_order_end_in_the_same_trials(suite: Suite) -> None:
    assert len({frozenset(searched(suite, noisy, order)) for order in range(8)}) == 1


def test_the_best_of_the_means_has_every_seed_and_known_neighbours(suite: Suite) -> None:
    known = searched(suite, lucky)
    lrs = sorted({lr for lr, _ in known})
    grid = np.array([[known.get((lr, seed), math.nan) for seed in (0, 1)] for lr in lrs])
    assert lrs[int(np.nanargmin(grid[:, 0]))] == -9
    assert lrs[int(means(grid).argmin())] == -6.5
    assert {-7, -6} < set(lrs)
    assert not np.isnan(grid[[abs(lr + 6.5) <= 1 for lr in lrs]]).any()
    assert min(lrs) == -10, "an edge was left behind"


def test_runs_that_the_search_did_not_ask_for_count_in_the_end(suite: Suite) -> None:
    known = searched(suite, lucky)
    free = min(lr for lr, _ in known) - 1
    known[free, 0] = known[free, 1] = -9.0  # far below all other losses
    missing = proxy.propose(suite, "adamw", 32, trials(known))
    assert {lr for (lr, _), _ in missing} == {free - 1}


@pytest.mark.parametrize("blown_up", [math.inf, 30.0])
def test_a_seed_that_blows_up_at_one_lr_says_nothing_about_the_others(
    suite: Suite, blown_up: float
) -> None:
    def loss(lr: float, seed: int) -> float:
        return blown_up if (lr, seed) == (-5.5, 1) else 1 + 0.1 * (lr + 6.4) ** 2

    smooth = searched(suite, lambda lr, seed: 1 + 0.1 * (lr + 6.4) ** 2)
    assert set(searched(suite, loss)) == set(smooth)


def test_no_further_seeds_where_nothing_learned(suite: Suite) -> None:
    known = searched(suite, lambda lr, seed: INIT + 1)
    assert {seed for _, seed in known} == {0}
