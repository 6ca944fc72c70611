"""Tokens to a loss, and the critical batch, from made-up losses."""

import pytest

from hptransfer.analysis.reach import Reach, critical_batch, relative, tokens_to

LOSSES = {100: 4.0, 200: 3.0, 400: 2.5}


@pytest.mark.parametrize(
    ("target", "reach"),
    [
        (3.0, Reach(200, "at")),
        (2.5, Reach(400, "at")),
        (4.0, Reach(100, "at")),
        (2.4, Reach(400, "above")),
        (4.1, Reach(100, "below")),
    ],
)
def test_the_tokens_to_a_loss_lie_at_between_or_outside_the_budgets(
    target: float, reach: Reach
) -> None:
    assert tokens_to(target, LOSSES) == reach


def test_between_two_budgets_log_tokens_is_linear_in_the_loss() -> None:
    reach = tokens_to(3.5, LOSSES)
    assert reach is not None and reach.side == "at"
    assert reach.tokens == pytest.approx(100 * 2**0.5)


def test_a_noisy_budget_is_reached_where_it_is_first_reached() -> None:
    reach = tokens_to(3.0, {100: 3.5, 200: 2.9, 400: 3.1})
    assert reach is not None and reach.tokens < 200


def test_one_seed_gives_tokens_without_an_interval_and_one_budget_none() -> None:
    one = relative({4: 3.0}, {size: {4: loss} for size, loss in LOSSES.items()})
    assert one is not None
    assert (one.of_means, one.by_seed) == (Reach(200, "at"), {4: Reach(200, "at")})
    assert one.share.value == 0.5
    assert (one.share.low, one.share.high) == (float("-inf"), float("inf"))
    assert relative({4: 3.0}, {100: {4: 4.0}}) is None


def test_a_loss_above_all_budgets_has_no_interval() -> None:
    budgets = {size: {0: loss, 1: loss + 0.1} for size, loss in LOSSES.items()}
    found = relative({0: 2.0, 1: 2.2}, budgets)
    assert found is not None
    assert found.of_means == Reach(400, "above")
    assert found.share.high == float("inf")


def test_one_budget_tells_nothing() -> None:
    assert tokens_to(3.0, {100: 4.0}) is None
    assert tokens_to(3.0, {}) is None


def by_batch(overheads: dict[int, float]) -> dict[int, dict[int, float]]:
    """Loss 5 - log2(tokens / overhead) / 10 on 100, 200 and 400 tokens, exact for `tokens_to`."""
    from math import log2

    return {
        batch: {size: 5 - log2(size / overhead) / 10 for size in (100, 200, 400)}
        for batch, overhead in overheads.items()
    }


def test_the_critical_batch_is_the_smallest_that_takes_a_fifth_more_tokens() -> None:
    found = critical_batch(by_batch({4: 1.05, 8: 1.0, 16: 1.1, 32: 1.25, 64: 1.9, 128: 5.0}))
    assert found is not None
    assert (found.batch, found.cheapest, found.n_bracketed) == (32, 8, 5)
    assert found.tokens == pytest.approx(200)


def test_a_critical_batch_that_was_not_met_lies_above_all() -> None:
    found = critical_batch(by_batch({4: 1.0, 8: 1.05, 16: 1.1, 32: 1.15}))
    assert found is not None and found.target == pytest.approx(5 - 7.643856 / 10)
    assert (found.batch, found.tokens, found.cheapest, found.n_bracketed) == (None, 200, 4, 4)


def test_a_batch_that_is_out_of_reach_counts_as_critical() -> None:
    found = critical_batch(by_batch({4: 1.0, 8: 1.05, 16: 1.1, 32: 1.15, 64: 9.0}))
    assert found is not None and found.batch == 64


def test_where_few_batches_reach_the_loss_an_easier_one_is_taken() -> None:
    found = critical_batch(by_batch({4: 1.0, 8: 1.1, 16: 2.5, 32: 3.9, 64: 9.0}))
    assert found is not None
    assert found.tokens == pytest.approx(100), "at the loss of the smallest budget"
    assert (found.batch, found.n_bracketed) == (16, 4)


def test_fewer_than_four_batches_give_no_critical_batch() -> None:
    assert critical_batch(by_batch({4: 1.0, 8: 1.1, 16: 1.5})) is None
    assert critical_batch(by_batch({4: 1.0, 8: 1.1, 16: 1.5, 32: 9.0})) is None
    assert critical_batch({}) is None


def test_a_batch_that_lacks_a_budget_takes_no_part() -> None:
    table = by_batch({4: 1.0, 8: 1.05, 16: 1.1, 32: 1.15, 64: 1.5})
    del table[64][200]
    found = critical_batch(table)
    assert found is not None and found.batch is None
