"""Expectations of a suite: what a file may state, and the verdicts that hold or refute them."""

from pathlib import Path

import pytest

from frames import CENTERS, make_suite, study, to_frame
from hptransfer.analysis.claims import (
    ClaimJudgement,
    TargetJudgement,
    claim_sentence,
    judge,
    judgements,
    suite_judgement,
)
from hptransfer.analysis.frame import select
from hptransfer.analysis.transfer import transfers
from hptransfer.errors import InputError
from hptransfer.report import Section, render
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import load_suite, suite_names
from hptransfer.suite.manifest import as_manifest, stored_suite
from hptransfer.suite.resolved import Suite

FILE = """
claim = "c"
model = "gpt"
data = "python_source"
proxy = 32
targets = [64]
steps = 10
batch = 1
EXPECT
[optimizers.adamw]
lr = "2^-9..2^-4"
[optimizers.scion]
lr = "2^-9..2^-4"
"""
VERDICTS = (
    "diverged", "censored", "unverified", "incomplete", "drifts", "insensitive", "transfers",
    "inconclusive",
)  # fmt: skip


def loaded(folder: Path, lines: str) -> SuiteTable:
    path = folder / "mine.toml"
    path.write_text(FILE.replace("EXPECT", lines))
    return load_suite(str(path))


def test_a_suite_file_states_its_expectations(tmp_path: Path) -> None:
    suite = loaded(tmp_path, 'expect = { adamw = "drifts", scion = "transfers" }')
    assert suite.expect == {"adamw": "drifts", "scion": "transfers"}
    assert loaded(tmp_path, "").expect == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('expect = { adam = "drifts" }', "expect: no optimizer is labelled 'adam'"),
        ('expect = { adamw = "drift" }', "expect.adamw: got 'drift', input should be 'drifts' or"),
        ("expect = { adamw = true }", "expect.adamw: got True"),
        ('expect = "drifts"', "expect: got 'drifts'"),
        (
            'expect = { adamw = "transfers" }\nnegative_control = "adamw"',
            "expect.adamw: got 'transfers', but adamw is the negative control, which must drift",
        ),
        ('targets = []\nexpect = { adamw = "drifts" }', "expect: a verdict needs a target"),
    ],
)
def test_a_wrong_expectation_is_refused_with_its_cause(
    lines: str, message: str, tmp_path: Path
) -> None:
    given = FILE.replace("EXPECT", lines)
    if "targets = []" in lines:
        given = given.replace("targets = [64]\n", "")
    path = tmp_path / "mine.toml"
    path.write_text(given)
    with pytest.raises(InputError) as caught:
        load_suite(str(path))
    assert message in str(caught.value)
    assert caught.value.hint


def test_an_expectation_and_a_control_that_agree_are_one_demand(tmp_path: Path) -> None:
    lines = 'expect = { adamw = "drifts" }\nnegative_control = "adamw"'
    assert loaded(tmp_path, lines).negative_control == "adamw"


def test_the_built_in_suites_expect_their_controls_to_drift() -> None:
    suites = [load_suite(name) for name in suite_names()]
    assert any(suite.expect for suite in suites)
    for suite in suites:
        if suite.negative_control and suite.expect:
            assert suite.expect[suite.negative_control] == "drifts"


def test_a_manifest_keeps_the_expectations_and_a_part_of_the_labels_its_own() -> None:
    suite = make_suite("adamw", "muon", expect={"adamw": "drifts", "muon": "transfers"})
    assert stored_suite(as_manifest(suite)).expect == suite.expect
    assert suite.only(["muon"]).expect == {"muon": "transfers"}
    before = {key: value for key, value in as_manifest(suite).items() if key != "expect"}
    assert stored_suite(before).expect == {}


def test_each_verdict_judges_an_expectation_as_the_table_says() -> None:
    transfer = {verdict: judge("transfers", verdict) for verdict in VERDICTS}
    assert [v for v in VERDICTS if transfer[v] == "held"] == ["transfers"]
    assert [v for v in VERDICTS if transfer[v] == "refuted"] == ["diverged", "drifts"]
    drift = {verdict: judge("drifts", verdict) for verdict in VERDICTS}
    assert [v for v in VERDICTS if drift[v] == "held"] == ["drifts"]
    assert [v for v in VERDICTS if drift[v] == "refuted"] == ["insensitive", "transfers"]
    assert {*transfer.values(), *drift.values()} == {"held", "refuted", "undecided"}


def judged(suite: Suite, *, runs: bool = True) -> list[ClaimJudgement]:
    centers = {label: CENTERS[label] for label in suite.optimizers}
    frame = study(suite, centers) if runs else to_frame([])
    return judgements(suite, transfers(suite, select(suite, frame)))


def test_the_widest_target_decides_and_the_nearer_ones_are_kept() -> None:
    suite = make_suite("adamw", targets=[64, 256], expect={"adamw": "drifts"})
    rows = select(suite, study(suite, {"adamw": lambda n: -6.0 - 2.0 * (n == 256)}))
    [claim] = judgements(suite, transfers(suite, rows))
    assert claim.widest == TargetJudgement(256, "drifts", "held")
    assert claim.nearer == (TargetJudgement(64, "transfers", "refuted"),)
    assert claim.judgement == "held"


def test_an_axis_value_that_is_no_target_does_not_decide() -> None:
    whole = make_suite("adamw", targets=[64, 256], expect={"adamw": "drifts"})
    frame = study(whole, {"adamw": lambda n: -6.0 - 2.0 * (n == 256)})
    suite = whole.narrowed(targets=[64])
    made = transfers(suite, select(suite, frame))
    assert [each.n for each in made] == [64, 256]
    [claim] = judgements(suite, made)
    assert claim.widest == TargetJudgement(64, "transfers", "refuted")
    assert claim.nearer == ()


def test_the_judgement_of_a_suite_is_its_worst_one() -> None:
    def claim(judgement: str) -> ClaimJudgement:
        verdict = {"held": "drifts", "refuted": "transfers", "undecided": "incomplete"}[judgement]
        return ClaimJudgement("a", "drifts", TargetJudgement(64, verdict, judge("drifts", verdict)))

    held, refuted, undecided = map(claim, ("held", "refuted", "undecided"))
    assert suite_judgement([held, held]) == "held"
    assert suite_judgement([held, undecided]) == "undecided"
    assert suite_judgement([undecided, refuted, held]) == "refuted"
    assert suite_judgement([]) is None


def test_the_sentence_begins_with_the_cause() -> None:
    suite = make_suite(
        "muon", "adamw", "scion_unconstrained",
        expect={"muon": "transfers", "adamw": "drifts", "scion_unconstrained": "drifts"},
    )  # fmt: skip
    told = claim_sentence(suite, judged(suite))
    assert told == (
        "Claim refuted from width 32 to 128: scion_unconstrained was expected to drift and came "
        "out as transfers; muon transfers, as expected; adamw drifts, as expected."
    )
    without = make_suite("muon")
    assert claim_sentence(without, judged(without)) == ""


def test_without_any_run_and_without_a_target_nothing_is_decided() -> None:
    suite = make_suite("muon", expect={"muon": "transfers"})
    [claim] = judged(suite, runs=False)
    assert (claim.judgement, claim.widest) == (
        "undecided", TargetJudgement(128, "incomplete", "undecided"),
    )  # fmt: skip
    tuned = suite.narrowed(targets=[])
    [claim] = judged(tuned, runs=False)
    assert (claim.judgement, claim.widest) == ("undecided", None)
    assert claim_sentence(tuned, [claim]) == (
        "Claim undecided from width 32: muon was expected to transfer and came out as incomplete."
    )


def test_the_page_says_the_judgement_before_the_verdicts_and_only_where_one_is_expected() -> None:
    suite = make_suite(expect={"adamw": "drifts"}, negative_control="adamw")
    frame = study(suite, CENTERS)
    page = render([Section(suite, frame)])
    told = "Claim held from width 32 to 128: adamw drifts, as expected."
    assert (
        0
        < page.index("<strong>Claim.</strong>")
        < page.index(told)
        < page.index("Negative control")
    )
    assert 'class="judgement held"' in page
    plain = render([Section(make_suite(), frame)])
    assert "judgement held" not in plain
