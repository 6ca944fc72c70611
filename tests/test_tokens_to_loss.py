"""Tokens to the loss of a baseline: on shared seeds, with their interval."""

import numpy as np
import pytest

from hptransfer.analysis.batch import Tuned
from hptransfer.analysis.reach import Reach
from hptransfer.report.batch_tables import share_text
from test_batch import LR, a_suite, by_tokens, records, table_of


def side_of(row: Tuned) -> Reach | None:
    return row.relative and row.relative.of_means


def test_tokens_to_the_loss_of_the_baseline_lie_at_above_or_below_the_budgets() -> None:
    gains = {"half": 0.1, "more": -0.01, "quarter": 0.25, "adamw": 0.0}

    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        return by_tokens(label, batch, divisor, seed) - gains[label]

    tables = {x: {"use": "adamw" if x == "adamw" else "muon", "lr": LR} for x in gains}
    tables["more"]["use"], tables["quarter"]["use"] = "sgd", "lion"
    suite = a_suite(optimizers=tables)
    table = table_of(suite, records(suite, level=level))
    told = {label: side_of(table[label, 8]) for label in gains}
    assert {label: reach and reach.side for label, reach in told.items()} == {
        "half": "at", "more": "above", "quarter": "below", "adamw": "at",
    }  # fmt: skip
    half, own, more, quarter = (told[x] for x in ("half", "adamw", "more", "quarter"))
    assert half and own and more and quarter
    assert half.tokens == pytest.approx(819_200 / 2)
    assert own.tokens == pytest.approx(819_200)
    assert (more.tokens, quarter.tokens) == (819_200, 819_200 / 4)


def test_the_tokens_have_an_interval_over_the_seeds_of_both_optimizers() -> None:
    """Half the tokens, times 2^(gain / 0.1): one octave is worth 0.1 nat."""
    gains = {0: 0.10, 1: 0.08, 2: 0.09}

    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        """The large move of a seed is that of both optimizers, and tells nothing."""
        gain = gains[seed] if label == "muon" else 0.0
        return by_tokens(label, batch, divisor, 9 * seed) - gain

    suite = a_suite()
    row = table_of(suite, records(suite, level=level))["muon", 8]
    assert row.relative is not None
    share = row.relative.share
    octaves = -np.array(list(gains.values())) / 0.1
    half = 4.302653 * octaves.std(ddof=1) / 3**0.5  # Student's t of 2 degrees at 97.5%
    assert np.log2(share.value) == pytest.approx(-0.9)
    assert np.log2([share.low, share.high]) == pytest.approx([-0.9 - half, -0.9 + half])
    assert {seed: np.log2(own.tokens / 819_200) for seed, own in row.relative.by_seed.items()} == (
        pytest.approx(dict(enumerate(octaves)))
    )
    assert share_text(row) == f"{share.low:.2f} N to {share.high:.2f} N"


def test_where_a_seed_less_leads_out_of_the_budgets_every_seed_stands_alone() -> None:
    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        gain = {0: 0.18, 1: -0.1, 2: -0.02}[seed] if label == "muon" else 0.0
        return by_tokens(label, batch, divisor, seed) - gain

    suite = a_suite()
    row = table_of(suite, records(suite, level=level))["muon", 8]
    assert row.relative is not None
    assert row.relative.of_means.side == "at"
    assert np.isinf(row.relative.share.high)
    assert share_text(row) == "by seed 0.29 N, > N, > N"


def test_without_a_baseline_or_a_budget_no_tokens_are_told() -> None:
    for changes in ({"baseline": None}, {"budgets": []}):
        suite = a_suite(**changes)
        table = table_of(suite, records(suite))
        assert {row.relative for row in table.values()} == {None}


def test_seeds_that_a_budget_lacks_are_left_out_of_the_tokens() -> None:
    def level(label: str, batch: int, divisor: int, seed: int) -> float:
        gain = 0.1 if label == "muon" else 0.0
        return by_tokens(label, batch, divisor, seed) + 5.0 * (seed == 2) - gain

    suite = a_suite()
    frame = records(suite, level=level)
    shorter = np.array([spec["steps"] * spec["batch"] * 64 < 819_200 for spec in frame["spec"]])
    frame = frame[~(shorter & (frame["seed"] == 2))]
    relative = side_of(table_of(suite, frame)["muon", 8])
    assert relative is not None and relative.side == "at"
    assert relative.tokens == pytest.approx(819_200 / 2)
