"""Waypoints: axis values between the proxy and the largest target, searched on one seed alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from frames import make_suite, record, to_frame
from hptransfer.analysis.claims import judgements
from hptransfer.analysis.frame import select
from hptransfer.analysis.landscape import exponents
from hptransfer.analysis.parabola import Vertex, combination, vertex
from hptransfer.analysis.sentences import negative_control, sentence
from hptransfer.analysis.transfer import Transfer, transfers
from hptransfer.errors import InputError
from hptransfer.report import render
from hptransfer.report.write import section
from hptransfer.search.plan import forecast, plan
from hptransfer.spec import RunSpec
from hptransfer.suite.file import load_suite
from hptransfer.suite.manifest import as_manifest, stored_suite
from hptransfer.suite.resolved import Suite
from simulated import SEEDS, Losses, Surface, Told, X
from simulated import search as simulated_search
from test_budget import made

STILL = -6.3


def a_suite(**changes: Any) -> Suite:
    return make_suite("muon", **{"targets": [128], "waypoints": [64], **changes})


def waves(suite: Suite, moved: dict[int, float] | None = None) -> list[list[RunSpec]]:
    """Every plan until nothing is missing. `moved`: octaves from STILL to lr* by axis value."""
    records: list[dict[str, Any]] = []
    found = []
    while todo := plan(suite, to_frame(records)):
        found.append(todo)
        records += answers(suite, todo, moved or {})
    return found


def answers(suite: Suite, todo: list[RunSpec], moved: dict[int, float]) -> list[dict[str, Any]]:
    made = []
    for spec in todo:
        n = spec.axis_value(suite.axis)
        made.append(record(spec, n, STILL + moved.get(n, 0.0), cliff=9))
    return made


def whole(suite: Suite, moved: dict[int, float] | None = None) -> pd.DataFrame:
    runs = [spec for wave in waves(suite, moved) for spec in wave]
    return to_frame(answers(suite, runs, moved or {}))


def by_n(suite: Suite, frame: pd.DataFrame) -> dict[int, Transfer]:
    return {each.n: each for each in transfers(suite, select(suite, frame))}


def test_a_waypoint_is_searched_on_seed_0_alone_and_a_target_on_three() -> None:
    runs = [spec for wave in waves(a_suite()) for spec in wave]
    assert {spec.seed for spec in runs if spec.width == 64} == {0}
    assert {spec.seed for spec in runs if spec.width == 128} >= {0, 1, 2}
    tried = {spec.log2_lr for spec in runs if spec.width == 64}
    assert {-7.0, -6.5, -6.0, -5.5} <= tried, "the half octaves about the optimum are there"


def test_an_undecided_waypoint_gets_no_further_seed() -> None:
    """At the target the same flat curve runs to eight seeds."""
    suite, records = a_suite(), []
    while todo := plan(suite, to_frame(records)):
        for run in answers(suite, todo, {}):
            noise = 0.15 * ((run["seed"] * 7919 + int(8 * run["log2_lr"]) * 104729) % 997) / 997
            records.append({**run, "loss": run["loss"] + noise * (run["width"] > 32)})
    seeds = {n: set(part["seed"]) for n, part in to_frame(records).groupby("width")}
    assert seeds[64] == {0}
    assert seeds[128] == set(range(8))


def test_the_runs_of_the_suite_without_waypoints_come_first_and_stay_as_they_are() -> None:
    suite = make_suite("muon", "scion_unconstrained", targets=[128], waypoints=[64])
    plain = make_suite("muon", "scion_unconstrained", targets=[128])
    ours = waves(suite)
    assert any({spec.width for spec in wave} >= {64, 128} for wave in ours)
    for wave in ours:
        at_waypoints = [spec.width == 64 for spec in wave]
        assert at_waypoints == sorted(at_waypoints), "no run of a target stands behind a waypoint's"
    keys = {spec.key for wave in ours for spec in wave if spec.width != 64}
    assert keys == {spec.key for wave in waves(plain) for spec in wave}


def test_without_verification_only_the_carried_lr_runs_once() -> None:
    runs = [spec for wave in waves(a_suite(verify=False)) for spec in wave]
    assert len([spec for spec in runs if spec.width == 64]) == 1
    assert len([spec for spec in runs if spec.width == 128]) == 3


def test_searched_values_are_carried_to_a_waypoint_as_to_a_target() -> None:
    table = {"lr": "2^-8..2^-2", "groups": {"aux": {"lr": "2^-9..2^-2"}}}
    model = {"name": "gpt", "n_layer": 1, "head_size": 32, "context": 64}
    width = {"axis": "width", "width": None, "base": {"width": 32}, "model": model}
    suite = made(
        **width, proxy=32, targets=[128], waypoints=[64], steps=10, tokens=None, budgets=[],
        optimizers={"muon": table},
    )  # fmt: skip
    runs = [spec for wave in waves(suite) for spec in wave]
    aux = {n: {spec.hp["aux_lr"] for spec in runs if spec.width == n} for n in (32, 64, 128)}
    assert len(aux[32]) > 1
    assert aux[64] == aux[128]
    assert len(aux[64]) == 1


def test_further_budgets_of_a_waypoint_run_on_its_one_seed() -> None:
    suite = made(proxy=4, targets=[16], waypoints=[8], budgets=[2], seeds=2, max_seeds=2)
    runs = [spec for wave in waves(suite) for spec in wave]
    short = {(s.batch, s.seed) for s in runs if s.steps < suite.template("adamw", s.batch).steps}
    assert short == {(4, 0), (4, 1), (8, 0), (16, 0), (16, 1)}


def test_the_plan_counts_a_waypoint_and_a_report_does_too() -> None:
    suite = a_suite()
    expected = forecast(suite, to_frame([]))
    assert {(s.width, s.seed) for s in expected if s.width == 64} == {(64, 0)}
    most = forecast(suite, to_frame([]), surprise=True)
    assert {s.seed for s in most if s.width == 64} == {0}
    frame = whole(suite)
    assert section(suite, frame, Path("results")).missing == []
    short = frame[~((frame["width"] == 64) & (frame["log2_lr"] == -6.5))]
    part = section(suite, short, Path("results"))
    assert (part.n_finished, part.n_expected) == (len(frame) - 1, len(frame))
    assert part.missing == ["muon width 64 2^-6.5 seed 0"]
    assert f"{len(frame) - 1}/{len(frame)} runs" in render([part])


def test_the_verdict_at_a_waypoint_is_indicative_and_its_optimum_enters_the_exponent() -> None:
    suite = a_suite()
    frame = whole(suite, {64: -1.0, 128: -2.0})
    found = by_n(suite, frame)
    assert list(found) == [64, 128]
    assert (found[64].verdict, found[64].n_seeds, found[64].indicative) == ("drifts", 1, True)
    assert not found[128].indicative
    assert found[64].drift.value == pytest.approx(-1.0, abs=0.1)
    assert sentence(suite, found[64]).endswith("octaves (one seed gives no interval).")
    assert "one seed" not in sentence(suite, found[128])
    [exponent] = exponents(suite, select(suite, frame))
    assert (exponent.n_values, exponent.left_out) == (3, ())
    assert exponent.alpha.value == pytest.approx(1.0, abs=0.1)
    assert np.isfinite([exponent.alpha.low, exponent.alpha.high]).all()


def test_a_curve_of_one_seed_has_the_variance_over_seeds_that_the_others_have() -> None:
    """Variances 0.04 of two seeds and 0.01 of three: 0.02 pooled, of three degrees of freedom."""
    two, three = (
        np.array([-6.0, -6.0]) + 0.2 * np.array([-1, 1]) / 2**0.5,
        np.array([-5.1, -5, -4.9]),
    )
    curves = [
        Vertex(-6.0, -6.0, two),
        Vertex(-5.5, -5.5, np.array([-5.5])),
        Vertex(-5.0, -5.0, three),
    ]
    weights = [-0.5, 0.25, 0.5]
    parts = np.array([0.04 * (0.25 / 2 + 0.0625 / 3), 0.01 * (0.25 / 3 + 0.0625 * 2 / 3)])
    assert parts.sum() == pytest.approx(0.25 * 0.04 / 2 + 0.25 * 0.01 / 3 + 0.0625 * 0.02)
    degrees = parts.sum() ** 2 / (parts[0] ** 2 + parts[1] ** 2 / 2)
    half = student.isf(0.02, degrees) * parts.sum() ** 0.5
    found = combination(curves, weights, pooled=True)
    assert found.value == pytest.approx(-0.875)
    assert (found.low, found.high) == pytest.approx((-0.875 - half, -0.875 + half))
    assert np.isinf(combination(curves, weights).high)
    assert np.isinf(combination(curves[1:2] * 2, [-1.0, 1.0], pooled=True).high)


def test_an_exponent_with_two_waypoints_has_an_interval_that_holds_the_truth() -> None:
    """Of made-up noisy studies whose truth is known; 95% is meant, and so few show nine tenths."""
    surface = Surface(0.030, 0.03, 0.025, 0.012)
    weights, held = np.array([0.3, 0.1, -0.1, -0.3]), 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 11])
        centers = -7.0 - np.arange(4) / 3
        curves = [Losses.of(rng, surface, center) for center in centers]
        told = np.full((4, len(X), SEEDS), np.nan)
        for losses, own, seeds in zip(curves, told, (3, 1, 1, 3), strict=True):
            simulated_search(losses, own, (-9.0, -6.0), seeds)
        vertices = [vertex(Told(own).near(k)) for own, k in zip(told, (3, 1, 1, 3), strict=True)]
        found = combination(vertices, weights.tolist(), pooled=True)
        held += found.low <= weights @ centers <= found.high
    assert held >= 54


def test_no_claim_and_no_control_hangs_on_a_waypoint() -> None:
    suite = a_suite(expect={"muon": "transfers"}, negative_control=None)
    frame = whole(suite, {64: -2.0})
    found = transfers(suite, select(suite, frame))
    assert [each.verdict for each in found] == ["drifts", "transfers"]
    [claim] = judgements(suite, found)
    assert (claim.judgement, claim.nearer) == ("held", ())
    assert claim.widest is not None and claim.widest.target == 128
    drifting = a_suite(negative_control="muon")
    assert negative_control(drifting, transfers(drifting, select(drifting, frame))).shown is False
    moved = whole(drifting, {128: -2.0})
    assert negative_control(drifting, transfers(drifting, select(drifting, moved))).shown is True


@pytest.mark.parametrize(
    ("waypoints", "targets", "message"),
    [
        ([32], [128], "waypoints: 32 is the proxy itself"),
        ([64, 128], [128], "waypoints: 128 is a target"),
        ([64, 256], [128], r"waypoints: 256 lies above every target \(\[128\]\)"),
        ([64], [], r"waypoints: 64 lies above every target \(there is none\)"),
        ([0], [128], "waypoints: got 0, needs values of at least 1"),
    ],
)
def test_a_waypoint_that_cannot_be_one_is_refused_with_a_cure(
    waypoints: list[int], targets: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        a_suite(targets=targets, waypoints=waypoints)
    assert caught.value.hint


def test_a_command_with_another_proxy_or_other_targets_leaves_no_waypoint_that_cannot_be_one() -> (
    None
):
    suite = a_suite(targets=[128, 512], waypoints=[64, 256])
    assert suite.axis_values == [32, 64, 128, 256, 512]
    at_a_waypoint = suite.narrowed(proxy=64)
    assert (at_a_waypoint.targets, at_a_waypoint.waypoints) == ([128, 512], [256])
    at_the_target = suite.narrowed(proxy=512)
    assert (at_the_target.targets, at_the_target.waypoints) == ([128], [64])
    to_a_waypoint = suite.narrowed(targets=[64])
    assert (to_a_waypoint.targets, to_a_waypoint.waypoints) == ([64], [])
    assert to_a_waypoint.looks_at(64) == (3, 5, 8), "as any other value that a command names"
    assert suite.looks_at(64) == (1,)


def test_a_manifest_keeps_the_waypoints_and_one_from_before_has_none() -> None:
    manifest = as_manifest(a_suite())
    assert stored_suite(manifest).waypoints == [64]
    del manifest["waypoints"]
    assert stored_suite(manifest).waypoints == []


def test_the_commands_of_a_report_name_a_waypoint_with_its_one_seed_before_the_targets() -> None:
    suite = a_suite()
    lines = section(suite, to_frame([]), Path("results")).commands
    assert [line for line in lines if line.startswith("hptransfer transfer ")] == [
        "hptransfer transfer made_up --steps 100 --from 32 --to 64 --verify --seeds 1 "
        "--max-seeds 1",
        "hptransfer transfer made_up --steps 100 --from 32 --to 128 --verify",
    ]


def test_such_a_command_plans_the_same_runs_as_the_suite() -> None:
    suite = a_suite()
    frame = whole(suite)
    alone = a_suite(targets=[64], waypoints=[], seeds=1, max_seeds=1)
    assert plan(alone, frame) == []
    before = frame[frame["width"] == 32]
    assert {spec.width for spec in forecast(alone, before)} == {64}


def test_gpt_width_has_its_waypoints() -> None:
    suite = load_suite("gpt_width")
    assert suite.axis_values == [64, 128, 256, 512]
    assert suite.waypoints == [128, 256]
