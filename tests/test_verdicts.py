"""Verdicts with missing, searched or uncertain values; test_transfer has the others."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from frames import half_octaves, make_suite, record, search, study, to_frame
from hptransfer.analysis.carried import Transfer
from hptransfer.analysis.frame import select
from hptransfer.analysis.sentences import place, rule, sentence, span
from hptransfer.analysis.transfer import transfers
from hptransfer.suite.ranges import octave_range, value_range
from hptransfer.suite.resolved import Suite

CENTER: dict[str, Callable[[int], float]] = {"muon": lambda n: -5.1 - 0.1 * math.log2(n / 32)}


def row_of(suite: Suite, frame: pd.DataFrame) -> Transfer:
    return transfers(suite, select(suite, frame))[0]


def test_one_search_seed_gives_a_drift_no_interval_and_two_do() -> None:
    one, two = make_suite("muon", seeds=1), make_suite("muon", seeds=2)
    row = row_of(one, study(one, CENTER, seeds=1))
    assert (row.drift.low, row.drift.high) == (-math.inf, math.inf)
    assert "octaves (one seed gives no interval)." in sentence(one, row)
    row = row_of(two, study(two, CENTER, seeds=2))
    assert row.drift.low < row.drift.value < row.drift.high
    assert "no interval" not in sentence(two, row)


def test_a_peak_that_no_record_knows_is_no_number() -> None:
    suite = make_suite("muon")
    frame = study(suite, CENTER)
    assert row_of(suite, frame).cost.peak_memory > 0
    assert math.isnan(row_of(suite, frame.assign(peak_memory=0)).cost.peak_memory)


def test_a_searched_value_is_carried_and_only_the_lr_may_move() -> None:
    """A search at the target also tried another beta, which was better there."""
    suite = make_suite("muon")
    table = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    suite = suite.model_copy(update={"optimizers": {"muon": table}})

    def runs(n: int, beta: float, better: float, seeds: range) -> list[dict[str, object]]:
        made = []
        for at in half_octaves(-5):
            for seed in seeds:
                run = record(suite.template("muon", n).point(at, seed, beta=beta), n, -5, noise=0)
                made.append(run | {"loss": run["loss"] - better})
        return made

    frame = to_frame(
        runs(32, 0.9, 0.1, range(1))
        + runs(32, 0.8, 0.0, range(1))
        + runs(128, 0.8, 0.1, range(1))
        + runs(128, 0.9, 0.0, range(3))
    )
    row = row_of(suite, frame)
    assert row.at_proxy is not None
    assert row.at_proxy.hp == {"beta": 0.9}
    assert row.n_seeds == 3
    assert row.verdict == "transfers"


def test_runs_that_failed_did_not_diverge() -> None:
    suite = make_suite("muon")
    frame = study(suite, CENTER)
    at = frame["width"] == 32
    frame.loc[at, ["status", "loss"]] = ["failed", np.nan]
    frame.loc[frame.index[at][0], ["status", "loss"]] = ["diverged", np.inf]
    row = row_of(suite, frame)
    assert row.verdict == "incomplete"
    assert "No finished run at width 32" in sentence(suite, row)


def test_the_printed_rule_is_in_the_order_in_which_it_is_applied() -> None:
    """A verdict names an edge before missing runs, and a missing optimum before missing runs."""
    suite = make_suite("muon")
    words = [name for name, _ in rule(suite)]
    frame = study(suite, CENTER)
    edge = frame[(frame["width"] == 32) & (frame["log2_lr"] < -5.2)]
    carried = study(suite, CENTER, verify=False)
    alone = frame[frame["width"] == 32]
    verdicts = [row_of(suite, each).verdict for each in (edge, carried, alone)]
    assert verdicts == ["censored", "unverified", "incomplete"]
    assert [word for word in words if word in verdicts] == verdicts


def test_a_vertex_beyond_what_may_be_tried_is_judged_where_it_was_carried() -> None:
    """The suite's range moved after its runs; plan and verdict clip alike."""
    suite = make_suite("muon")
    table = suite.optimizers["muon"].model_copy(update={"lr": octave_range("2^-16..2^-10")})
    moved = suite.model_copy(update={"optimizers": {"muon": table}})
    assert moved.clip_lr("muon", -5.1) == -6
    rows = [
        *search(moved, "muon", 32, -5.1, half_octaves(-5)),
        *search(moved, "muon", 128, -5.1, half_octaves(-5)),
        *search(moved, "muon", 128, -5.1, [-6], range(3)),
    ]
    row = row_of(moved, to_frame(rows))
    assert row.carried.log2_lr == -6
    assert row.regret.value == pytest.approx(0.08 * 0.9**2, abs=0.01)


def shaped(suite: Suite, curvature: float, slope: float, carried: float = -5.0) -> pd.DataFrame:
    """Three seeds at both widths on a parabola about -5, with a slope per seed at the target."""
    made = []
    for n, center in ((32, carried), (128, -5.0)):
        for at in sorted({*half_octaves(-5), -6.0, -4.0, carried}):
            for seed in range(3):
                tilt = slope * (seed - 1) * (at + 5) if n == 128 else 0.0
                run = record(suite.template("muon", n).point(at, seed), n, -5, noise=0)
                made.append(run | {"loss": 2.6 + curvature * (at - center) ** 2 + tilt})
    return to_frame(made)


@pytest.mark.parametrize(
    ("curvature", "slope", "carried", "verdict", "words"),
    [
        (0.004, 0.0002, -5.0, "insensitive", "any lr nearby would have passed"),
        (0.06, 0.001, -5.0, "transfers", "shown to be within 0.5"),
        (0.06, 0.04, -4.5, "inconclusive", "seeds would decide"),
        (0.06, 0.001, -4.5, "drifts", "(on the edge: rounding decides)"),
    ],
)
def test_the_sentence_says_what_the_verdict_rests_on(
    curvature: float, slope: float, carried: float, verdict: str, words: str
) -> None:
    suite = make_suite("muon", seeds=3)
    limits = suite.thresholds.model_copy(update={"tol": 0.0125 if verdict == "drifts" else 0.01})
    suite = suite.model_copy(update={"thresholds": limits})
    row = row_of(suite, shaped(suite, curvature, slope, carried))
    assert row.verdict == verdict
    assert words in sentence(suite, row)


def test_an_axis_value_reads_as_words() -> None:
    steps = make_suite("muon", axis="steps", width=32, proxy=100, targets=[800])
    assert (place(steps, 100), span(steps, 800)) == ("100 steps", "100 to 800 steps")
    batches = make_suite("muon", axis="batch_size", width=32, proxy=8, targets=[64])
    assert (place(batches, 8), span(batches, 64)) == ("batch size 8", "batch size 8 to 64")
