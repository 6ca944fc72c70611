"""Groups: fields beside the lr that the bracket tunes at the proxy, one coordinate at a time."""

import math
from typing import Any

import pytest

from frames import to_frame
from hptransfer.analysis.frame import groups, select, tuned_point
from hptransfer.analysis.optimum import optimum
from hptransfer.analysis.sentences import sentence
from hptransfer.analysis.transfer import transfers
from hptransfer.errors import InputError
from hptransfer.report.settings_tables import fairness
from hptransfer.search import samplers
from hptransfer.search.plan import forecast
from hptransfer.spec import RunSpec, canonical
from hptransfer.suite.manifest import as_manifest, stored_suite
from tuned import bowl, suite_of, whole


def test_the_auxiliary_lr_is_tuned_then_the_lr_then_the_auxiliary_lr_once_more() -> None:
    suite = suite_of()
    rows = select(suite, whole(suite, bowl(-5.2, -4.3)))
    proxy = rows[rows["n"] == 32]
    best = tuned_point(proxy)
    assert best == canonical({"aux_lr": suite.tuned["muon"]["aux_lr"].value(-5)})
    curve = proxy[~proxy["tuning"]]
    found = optimum(curve)
    assert found is not None
    assert found.hp == {"aux_lr": 2.0**-5}
    assert found.log2_lr == pytest.approx(-4.3, abs=0.15)
    assert found.censored is None
    assert set(proxy[proxy["tuning"]]["seed"]) == {0}
    five = curve[(curve["log2_lr"] + 4.5).abs() <= 1]
    assert five.groupby("log2_lr")["seed"].nunique().eq(3).all()


def test_the_auxiliary_lr_is_carried_fixed_to_every_target() -> None:
    suite = suite_of(targets=[64, 128])
    rows = select(suite, whole(suite, bowl(-5.2, -4.3)))
    assert set(rows[rows["n"] > 32]["hp_point"]) == {canonical({"aux_lr": 2.0**-5})}
    assert not rows[rows["n"] > 32]["tuning"].any()


def test_the_runs_that_tuned_a_group_are_a_part_of_what_tuning_cost() -> None:
    suite = suite_of()
    rows = select(suite, whole(suite, bowl(-5.2, -4.3)))
    [row] = transfers(suite, rows)
    proxy = rows[rows["n"] == 32]
    assert proxy["tuning"].sum() > 10
    assert row.cost.tuning_flops == pytest.approx(proxy["flops"].sum())
    assert row.cost.tuning_seconds == pytest.approx(proxy["seconds"].sum())
    each = rows[rows["n"] == 64]["flops"].mean()
    assert row.cost.direct_flops == pytest.approx(len(proxy) * each), "as many trials there"


def test_an_auxiliary_lr_beyond_its_range_is_followed_by_at_most_four_octaves() -> None:
    suite = suite_of()
    near = whole(suite, bowl(-2.0, -4.0))
    far = whole(suite, bowl(30.0, -4.0))
    tried = [{math.log2(spec["hp"]["aux_lr"]) for spec in frame["spec"]} for frame in (near, far)]
    assert -1.1 < max(tried[0]) < 0, "its optimum is enclosed"
    assert max(tried[1]) == 0.0, "four octaves above the range"


def test_the_order_of_the_answers_does_not_change_what_is_tuned() -> None:
    suite = suite_of(targets=[])
    loss = bowl(-5.2, -4.3)
    assert len({frozenset(whole(suite, loss, order)["key"]) for order in range(3)}) == 1


def test_values_between_octaves_have_six_digits_and_octaves_of_the_default_are_exact() -> None:
    span = suite_of().tuned["muon"]["aux_lr"]
    assert span.value(-5.5) == 0.0220971
    assert span.value(-7) == 2.0**-7
    assert span.value(-30) == 2.0**span.floor


def test_a_field_whose_runs_all_diverge_ends() -> None:
    suite = suite_of()
    frame = whole(suite, lambda spec: math.inf)
    assert set(frame["width"]) == {32}


def test_two_groups_are_tuned_one_after_another_and_share_a_point() -> None:
    table = {
        "lr": "2^-6..2^-1",
        "groups": {"input": {"radius": "2^-2..2^2"}, "output": {"radius": "2^1..2^5"}},
    }
    suite = suite_of(targets=[], optimizers={"scion_unconstrained": table})

    def loss(spec: RunSpec) -> float:
        away = (
            math.log2(spec.hp["radius_input"]) - 1.1,
            math.log2(spec.hp["radius_output"]) - 2.9,
            spec.log2_lr + 3.2,
        )
        return 2.5 + 0.05 * sum(octaves**2 for octaves in away)

    rows = select(suite, whole(suite, loss))
    best = optimum(rows[~rows["tuning"]])
    assert best is not None
    assert best.hp == {"radius_input": 2.0, "radius_output": 8.0}


def test_the_curve_of_a_report_is_that_of_the_final_value() -> None:
    suite = suite_of()
    rows = select(suite, whole(suite, bowl(-5.2, -4.3)))
    assert groups(rows)["muon", 32]["hp_point"].nunique() == 1
    assert groups(rows, tuning=True)["muon", 32]["hp_point"].nunique() > 5


def test_a_forecast_of_a_tuned_optimizer_counts_what_the_study_takes() -> None:
    suite = suite_of()
    exact = len(whole(suite, bowl(-6.2, -5.2)))
    assert abs(len(forecast(suite, to_frame([]), samplers.propose)) - exact) <= 8


def test_a_half_done_study_is_forecast_without_a_better_value_beside_the_known_ones() -> None:
    suite = suite_of()
    frame = whole(suite, bowl(-6.2, -5.2))
    half = frame.iloc[: len(frame) // 2]
    expected = len(half) + len(forecast(suite, half))
    assert abs(expected - len(frame)) <= 12


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        (
            {"groups": {"ox": {"lr": "2^-9..2^-4"}}},
            "groups.ox.lr: 'muon' has no group with this field",
            "did you mean 'aux.lr'?",
        ),
        (
            {"groups": {"aux": {"radius": "2^-9..2^-4"}}},
            "groups.aux.radius: 'muon' has no group with this field",
            "did you mean 'aux.lr'?",
        ),
        (
            {"groups": {"aux": {"lr": "2^-30..2^-4"}}},
            "groups.aux.lr: got '2^-30..2^-4', allowed: 1e-09 to 64",
            "shrink the range",
        ),
        (
            {"sampler": "tpe"},
            "groups.aux.lr: the sampler 'tpe' takes no groups",
            'sampler = "bracket", or search = { aux_lr = "2^-9..2^-4" }',
        ),
    ],
)
def test_a_wrong_group_is_one_line_and_a_hint(
    table: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        suite_of(table)
    assert str(caught.value) == f"optimizers.muon.{message}"
    assert caught.value.hint == hint


def test_a_manifest_keeps_the_ranges_and_refuses_damaged_ones() -> None:
    suite = suite_of()
    manifest = as_manifest(suite)
    assert stored_suite(manifest).tuned == suite.tuned
    for wrong in ([1.0], [0.0, -1.0, -2.0, 3.0], [0.0, 1e300, 0.0, 0.0]):
        with pytest.raises(InputError, match=r"tuned\.muon\.aux_lr: "):
            stored_suite({**manifest, "tuned": {"muon": {"aux_lr": wrong}}})
    with pytest.raises(InputError, match=r"tuned\.muon\.polar: no hyperparameter of a run"):
        stored_suite({**manifest, "tuned": {"muon": {"polar": [1.0, 2.0, 0.0, 3.0]}}})


def test_a_value_at_an_edge_of_what_may_be_tried_is_censored_like_an_lr() -> None:
    suite = suite_of({"groups": {"aux": {"lr": "2^-9..2^6"}}}, max_seeds=8)

    def falls(spec: RunSpec) -> float:
        slope = 0.001 * spec.seed * spec.log2_lr
        return 3 - 0.01 * math.log2(spec.hp["aux_lr"]) + 0.02 * (spec.log2_lr + 4) ** 2 + slope

    frame = whole(suite, falls)
    assert set(frame["seed"]) == {0, 1, 2}, "no further seeds for a verdict that is censored"
    [row] = transfers(suite, select(suite, frame))
    assert row.verdict == "censored"
    assert sentence(suite, row) == (
        "muon: censored. The best aux_lr at width 32 (64) is the largest one tried: widen its "
        "range there."
    )


def test_the_report_shows_what_was_tuned_with_how_many_trials() -> None:
    suite = suite_of()
    frame = whole(suite, bowl(-5.2, -4.3))
    rows = select(suite, frame)
    table = fairness(suite, rows)
    cells = {row[0].text: row[-1].text for row in table.rows}
    values = rows[rows["n"] == 32]["hp_point"].nunique()
    runs = int(rows["tuning"].sum())
    assert cells["tuned besides lr"] == (
        f"aux_lr in 2^-9..2^-4: 2^-5 of {values} values, {runs} runs for it"
    )
    assert cells["hp: aux_lr"] == "tuned"
    assert runs > values > 5
