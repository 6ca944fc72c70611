"""The check command: exit codes, limits, JUnit XML, and input that cannot be judged."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from commanded import hptransfer
from frames import Center, study
from hptransfer.analysis.claims import ClaimJudgement, Gate, TargetJudgement, gates
from hptransfer.records.store import Store
from kept import DRIFTS, HOLDS, SUITE, keep, kept, resolved


@pytest.mark.parametrize(
    ("adamw", "muon", "code", "said"),
    [
        (DRIFTS, HOLDS, 0, "Claim held from width 32 to 128: adamw drifts, as expected; muon "),
        (HOLDS, HOLDS, 1, "Claim refuted from width 32 to 128: adamw was expected to drift and "),
        (DRIFTS, DRIFTS, 1, "Claim refuted from width 32 to 128: muon was expected to transfer"),
    ],
)
def test_the_exit_code_is_the_judgement(
    adamw: Center, muon: Center, code: int, said: str, tmp_path: Path
) -> None:
    kept(tmp_path, adamw=adamw, muon=muon)
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1].startswith(said)
    assert done.stderr == ""


def test_runs_that_are_missing_leave_a_claim_undecided(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    suite = resolved(path)
    keep(tmp_path / "results", suite, study(suite, {"adamw": DRIFTS}))
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "muon was expected to transfer and came out as incomplete" in done.stdout
    assert hptransfer("check", "mine.toml", "--optimizer", "adamw", cwd=tmp_path).returncode == 0


def test_a_refuted_claim_outweighs_an_undecided_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    suite = resolved(path)
    keep(tmp_path / "results", suite, study(suite, {"adamw": HOLDS}))
    assert hptransfer("check", "mine.toml", cwd=tmp_path).returncode == 1


def test_a_manifest_without_a_finished_run_is_undecided(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    Store(tmp_path / "results", "mine").write_manifest(resolved(path))
    done = hptransfer("check", "mine.toml", "--max-regret", "0.1", cwd=tmp_path)
    assert done.returncode == 3
    assert "muon: regret at most 0.1 nats at width 128: undecided, there is no interval" in (
        done.stdout
    )


def test_the_nearer_targets_are_shown_in_brackets(tmp_path: Path) -> None:
    kept(tmp_path, adamw=lambda n: -8.0 if n == 128 else -6.0)
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"^adamw +drifts +transfers +\(refuted\) +64$", done.stdout, re.MULTILINE)
    assert re.search(r"^adamw +drifts +drifts +held +128$", done.stdout, re.MULTILINE)


def test_a_limit_is_compared_with_the_upper_bound(tmp_path: Path) -> None:
    kept(tmp_path, muon=lambda n: -5.2 if n == 32 else -5.0)
    shown = hptransfer("check", "mine.toml", "--max-regret", "1", "--json", cwd=tmp_path)
    assert shown.returncode == 0
    document = json.loads(shown.stdout)
    [gate] = document["gates"]
    assert (gate["optimizer"], gate["quantity"], gate["target"]) == ("muon", "regret", 128)
    high = gate["upper_bound"]
    [muon] = [t for t in document["transfers"] if (t["optimizer"], t["target"]) == ("muon", 128)]
    assert muon["regret"]["high"] == high > 0
    for factor, code in ((0.9, 1), (1.1, 0)):
        words = ("--max-regret", high * factor)
        assert hptransfer("check", "mine.toml", *words, cwd=tmp_path).returncode == code


def test_a_drift_is_limited_in_both_directions() -> None:
    claim = ClaimJudgement("a", "transfers", TargetJudgement(64, "transfers", "held"))

    class Each:
        optimizer, n = "a", 64

        def __init__(self, low: float, high: float) -> None:
            from hptransfer.analysis.parabola import Interval

            self.drift = self.regret = Interval(0.0, low, high)

    for low, high, judgement in ((-0.4, 0.1, "held"), (-0.6, 0.1, "refuted"), (0, 0.6, "refuted")):
        [gate] = gates([claim], [Each(low, high)], max_regret=None, max_drift=0.5)  # type: ignore[list-item]
        assert gate.judgement == judgement
    assert Gate("a", 64, "drift", 0.5, float("inf")).judgement == "undecided"
    assert Gate("a", 64, "drift", 0.5, 0.5).judgement == "held"
    drifts = ClaimJudgement("a", "drifts", TargetJudgement(64, "drifts", "held"))
    assert gates([drifts], [], max_regret=0.1, max_drift=0.1) == []


@pytest.mark.parametrize("words", [("--max-regret", "nan"), ("--max-drift", "inf")])
def test_a_limit_is_a_number(words: tuple[str, str], tmp_path: Path) -> None:
    kept(tmp_path)
    done = hptransfer("check", "mine.toml", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert words[0] in done.stderr


def test_junit_counts_a_refuted_claim_as_failure_and_an_undecided_one_as_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    suite = resolved(path)
    keep(tmp_path / "results", suite, study(suite, {"adamw": HOLDS}))
    words = ("--junit", "out.xml", "--max-drift", "0.5")
    assert hptransfer("check", "mine.toml", *words, cwd=tmp_path).returncode == 1
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    group = root.find("testsuite")
    assert group is not None
    counts = {"tests": "3", "failures": "1", "errors": "2", "skipped": "0"}
    assert root.attrib == counts
    assert group.attrib == {"name": "mine", **counts}
    cases = {case.attrib["name"]: [child.tag for child in case] for case in group}
    assert cases == {
        "adamw drifts at width 128": ["failure"],
        "muon transfers at width 128": ["error"],
        "muon: drift at most 0.5 octaves at width 128": ["error"],
    }
    failure = group.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("adamw: transfers. The lr tuned at width 32")


def test_junit_of_a_held_claim_has_cases_without_children(tmp_path: Path) -> None:
    kept(tmp_path)
    assert hptransfer("check", "mine.toml", "--junit", "out.xml", cwd=tmp_path).returncode == 0
    cases = list(ElementTree.parse(tmp_path / "out.xml").getroot().iter("testcase"))
    assert len(cases) == 2
    assert all(len(case) == 0 for case in cases)
    done = hptransfer("check", "mine.toml", "--junit", "no/out.xml", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: --junit: no/out.xml: No such file" in done.stderr


def test_odd_labels_and_claims_stay_text(tmp_path: Path) -> None:
    text = SUITE.replace("muon = ", "0._-a = ").replace("[optimizers.muon]", '[optimizers."0._-a"]')
    text = text.replace('0._-a = "', '"0._-a" = "').replace("holds, ", r"<b>&\u0001[red] ")
    text += 'use = "muon"\n'
    path = tmp_path / "odd-1.0.toml"
    path.write_text(text)
    suite = resolved(path)
    keep(tmp_path / "results", suite, study(suite, {"adamw": DRIFTS, "0._-a": HOLDS}))
    words = ("--junit", "out.xml")
    done = hptransfer("check", "odd-1.0.toml", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x01" not in done.stdout
    assert "<b>&\\x01[red] adamw drifts" in done.stdout
    names = [c.attrib["name"] for c in ElementTree.parse(tmp_path / "out.xml").iter("testcase")]
    assert "0._-a transfers at width 128" in names


def test_a_suite_without_expectations_is_told_how_to_state_them(tmp_path: Path) -> None:
    text = "".join(line for line in SUITE.splitlines(True) if not line.startswith("expect"))
    kept(tmp_path, text=text)
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: suite 'mine' states no expectation, so nothing can be judged" in done.stderr
    assert 'expect = { adamw = "transfers" }' in done.stderr


def test_nothing_to_judge_is_an_error_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    for words, told in (
        (("none.toml",), "error: no suite file none.toml"),
        (("quickstar",), "error: unknown suite 'quickstar'"),
        (("mine.toml",), "error: no records of suite 'mine' under results"),
        (("mine.toml", "--optimizer", "scion"), "error: --optimizer: suite 'mine' has no 'scion'"),
    ):
        done = hptransfer("check", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert told in done.stderr
        assert "hint: " in done.stderr


def test_an_optimizer_of_which_nothing_is_expected_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, text=SUITE.replace(', muon = "transfers"', ""))
    done = hptransfer("check", "mine.toml", "--optimizer", "muon", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: --optimizer: suite 'mine' expects nothing of muon" in done.stderr


def test_records_of_an_older_schema_are_not_judged(tmp_path: Path) -> None:
    reference = Path(__file__).parents[1] / "results" / "reference" / "mlp_width"
    older = tmp_path / "results" / "mlp_width"
    older.mkdir(parents=True)
    for name in ("suite-1.json", "records-vm-27087-be0ead29.jsonl"):
        (older / name).write_bytes((reference / name).read_bytes())
    done = hptransfer("check", "mlp_width", cwd=tmp_path)
    assert done.returncode == 2
    assert "are of an earlier version, under the rule of 0.1" in done.stderr
    assert "hptransfer report mlp_width shows them" in done.stderr


def test_damaged_lines_are_named_and_their_runs_missing(tmp_path: Path) -> None:
    store = kept(tmp_path)
    [records] = store.folder.glob("records-*.jsonl")
    lines = records.read_text().splitlines(True)
    at = [i for i, line in enumerate(lines) if '"name":"muon"' in line and '"width":128' in line]
    for i in at:
        lines[i] = lines[i].replace('"loss":', '"los":')
    records.write_text("".join(lines))
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert f"left out {len(at)} damaged record lines" in done.stderr
    (store.folder / "suite.json").write_text("{")
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "damaged suite manifest" in done.stderr


def test_runs_of_a_suite_that_has_changed_since_do_not_count(tmp_path: Path) -> None:
    """A stale record must not hold the claim of another optimizer."""
    kept(tmp_path)
    changed = SUITE.replace("[optimizers.muon]", "[optimizers.muon]\nhp = { beta = 0.5 }")
    assert changed != SUITE
    (tmp_path / "mine.toml").write_text(changed)
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "note: muon: no run as the suite has it now: hp.beta 0.5, not 0.95" in done.stderr
    (tmp_path / "mine.toml").write_text(SUITE.replace("steps = 100", "steps = 99"))
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "note: adamw: no run as the suite has it now: steps 99, not 100" in done.stderr


def test_an_expectation_that_was_changed_after_the_run_is_the_one_that_is_judged(
    tmp_path: Path,
) -> None:
    kept(tmp_path)
    (tmp_path / "mine.toml").write_text(SUITE.replace('muon = "transfers"', 'muon = "drifts"'))
    assert hptransfer("check", "mine.toml", cwd=tmp_path).returncode == 1


def test_check_trains_nothing_and_imports_neither_torch_nor_the_data(tmp_path: Path) -> None:
    import subprocess
    import sys

    store = kept(tmp_path)
    before = sorted(store.folder.iterdir())
    code = (
        "import sys\nsys.argv = ['hptransfer', 'check', 'mine.toml']\n"
        "from hptransfer.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules, 'hptransfer.datasets.text' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 False False"
    assert sorted(store.folder.iterdir()) == before


def test_run_trains_what_is_missing_and_then_judges(suite: Path, tmp_path: Path) -> None:
    text = suite.read_text().replace(
        'negative_control = "adamw"', 'negative_control = "adamw"\nexpect = { scion = "transfers" }'
    )
    suite.write_text(text)
    assert hptransfer("check", suite, cwd=tmp_path).returncode == 2
    done = hptransfer("check", suite, "--run", "--json", "--optimizer", "scion", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"] != 2
    assert document["claims"][0]["verdict"] != "incomplete"
    told, page = done.stderr.splitlines()[-1].split(": ")
    assert told == "report"
    assert document["judgement_sentence"] in (tmp_path / page).read_text(encoding="utf-8")
    assert all((tmp_path / page).with_name(name).exists() for name in ("metrics.json", "runs.csv"))
    (tmp_path / page).unlink()
    again = hptransfer("check", suite, "--json", "--optimizer", "scion", cwd=tmp_path)
    assert json.loads(again.stdout) == document
    assert not (tmp_path / page).exists(), "without --run it writes nothing"
    run = hptransfer("run", suite, "--optimizer", "scion", cwd=tmp_path)
    assert document["judgement_sentence"] in run.stdout.splitlines()


def test_an_optimizer_file_that_has_changed_since_does_not_count(tmp_path: Path) -> None:
    source = (
        "from hptransfer.optimizers.sgd import sgd\n"
        "def mine(p, *, momentum: float = 0.9):\n    return sgd(p, momentum=momentum)\n"
    )
    (tmp_path / "mine_opt.py").write_text(source)
    text = SUITE.replace("[optimizers.muon]", '[optimizers.muon]\nuse = "mine_opt.py:mine"')
    kept(tmp_path, text=text)
    assert hptransfer("check", "mine.toml", cwd=tmp_path).returncode == 0
    (tmp_path / "mine_opt.py").write_text(source + "# other bytes\n")
    done = hptransfer("check", "mine.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "note: muon: no run as the suite has it now: optimizer.revision" in done.stderr
