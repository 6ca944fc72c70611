"""Drift, regret, cost and verdicts on made-up records."""

import numpy as np
import pandas as pd
import pytest

from frames import CENTERS, LOSS_INIT, half_octaves, make_suite, search, study, to_frame
from hptransfer.analysis.carried import Transfer, targets
from hptransfer.analysis.frame import select
from hptransfer.analysis.sentences import negative_control, sentence
from hptransfer.analysis.transfer import transfers
from hptransfer.suite.resolved import Suite

MUON = {"muon": lambda n: -5.2}


def transfer_of(suite: Suite, frame: pd.DataFrame, label: str | None = None) -> Transfer:
    label = label or next(iter(suite.optimizers))
    return next(t for t in transfers(suite, select(suite, frame)) if t.optimizer == label)


def test_an_empty_store_gives_incomplete_verdicts() -> None:
    assert transfer_of(make_suite("muon"), to_frame([])).verdict == "incomplete"


def test_a_drifting_optimum_drifts_and_a_fixed_one_transfers() -> None:
    suite = make_suite("adamw", "muon", negative_control="adamw")
    centers = {label: CENTERS[label] for label in suite.optimizers}
    both = adamw, muon = transfers(suite, select(suite, study(suite, centers)))
    assert [each.verdict for each in both] == ["drifts", "transfers"]
    assert [each.drift.value for each in both] == pytest.approx([-2, 0], abs=0.1)
    assert (adamw.regret.value, muon.regret.value) == pytest.approx((0.08 * 4, 0), abs=0.02)
    assert negative_control(suite, [*both]).shown
    assert "costs" in sentence(suite, adamw)
    assert "n = 3 seeds" in sentence(suite, adamw)


def test_the_regret_is_paired_by_seed() -> None:
    suite = make_suite("adamw")
    row = transfer_of(suite, study(suite, {"adamw": CENTERS["adamw"]}, noise=0.05, seeds=4))
    assert row.n_seeds == 4
    assert row.regret.high - row.regret.low < 4 * row.noise_floor * 2


def test_without_runs_at_the_target_optimum_the_verdict_is_unverified() -> None:
    suite = make_suite("muon")
    row = transfer_of(suite, study(suite, MUON, verify=False))
    assert row.verdict == "unverified"
    assert "which a verification does" in sentence(suite, row)
    assert row.carried.mean == pytest.approx(2.4, abs=0.02)


@pytest.mark.parametrize("at", [32, 128])
def test_an_optimum_at_an_edge_is_censored_before_anything_else(at: int) -> None:
    suite = make_suite("muon")
    frame = study(suite, MUON)
    cut = (frame["width"] == at) & (frame["log2_lr"] > -5.2)
    row = transfer_of(suite, frame[~cut])
    assert row.verdict == "censored"
    assert "largest one tried" in sentence(suite, row)


@pytest.mark.parametrize("at", [32, 128])
def test_all_runs_diverged_is_a_result_with_advice(at: int) -> None:
    suite = make_suite("muon")
    frame = study(suite, MUON)
    lost = frame["width"] == at
    frame.loc[lost, ["status", "loss"]] = ["diverged", np.inf]
    row = transfer_of(suite, frame)
    assert row.verdict == "diverged"
    assert f"width {at} diverged" in sentence(suite, row)
    assert 'lr = "2^-18..2^-11"' in sentence(suite, row)


def test_a_target_without_the_carried_lr_is_incomplete() -> None:
    suite = make_suite("adamw")
    frame = study(suite, {"adamw": CENTERS["adamw"]})
    own = (frame["width"] == 32) | (frame["log2_lr"] != -6)
    row = transfer_of(suite, frame[own])
    assert row.verdict == "incomplete"
    assert sentence(suite, row) == (
        "adamw: incomplete. No seed ran at width 128 with the carried lr (2^-6); "
        "3 seeds ran with the best lr there (2^-8)."
    )


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "drifts"), (2, "drifts")])
def test_with_few_seeds_the_verdict_is_indicative(seeds: int, verdict: str) -> None:
    suite = make_suite("adamw")
    row = transfer_of(suite, study(suite, {"adamw": CENTERS["adamw"]}, seeds=seeds))
    assert row.verdict == verdict
    assert row.indicative
    assert f"indicative: {seeds} seed" in sentence(suite, row)
    assert ("(one seed gives no interval" in sentence(suite, row)) == (seeds == 1)


def test_a_diverged_run_at_the_carried_lr_counts_as_the_loss_at_init() -> None:
    suite = make_suite("adamw")
    frame = study(suite, {"adamw": CENTERS["adamw"]})
    lost = (frame["log2_lr"] == -6) & (frame["width"] == 128)
    frame.loc[lost, ["status", "loss"]] = ["diverged", np.inf]
    row = transfer_of(suite, frame)
    assert row.regret.value == pytest.approx(LOSS_INIT - 2.4, abs=0.05)
    assert row.verdict == "drifts"
    assert "3 of its runs there diverged" in sentence(suite, row)


def test_the_negative_control_must_drift() -> None:
    suite = make_suite("muon", negative_control="muon")
    table = transfers(suite, select(suite, study(suite, MUON)))
    control = negative_control(suite, table)
    assert not control.shown
    assert control.sentence.startswith("Negative control failed: muon came out as transfers")
    assert not negative_control(make_suite("muon"), table).shown


def test_the_saving_is_as_many_trials_at_the_target_over_the_tuning_at_the_proxy() -> None:
    suite = make_suite("muon")
    row = transfer_of(suite, study(suite, MUON))
    assert row.cost.saving_flops == pytest.approx(16)
    assert row.cost.saving_seconds == pytest.approx(8)
    assert row.cost.seconds_per_step == pytest.approx(0.9 * 8 / 100)


def test_a_target_given_on_the_command_line_is_judged_too() -> None:
    suite = make_suite("muon")
    frame = study(make_suite("muon", targets=[128, 256]), MUON)
    assert targets(suite, select(suite, frame)) == [128, 256]


def test_perfect_transfer_is_not_called_a_drift_by_the_full_path() -> None:
    suite = make_suite("muon")
    verdicts = []
    for seed in range(40):
        frame = to_frame(
            [
                *search(suite, "muon", 32, -5, half_octaves(-5), [seed], noise=0.02),
                *search(suite, "muon", 128, -5, half_octaves(-5), [seed + 500], noise=0.02),
                *search(suite, "muon", 128, -5, np.arange(-7, -3, 1 / 8), range(1, 4), noise=0.02),
            ]
        )
        verdicts.append(transfer_of(suite, frame).verdict)
    assert verdicts.count("drifts") <= 4
    assert verdicts.count("transfers") >= 20
