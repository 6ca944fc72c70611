"""The command analyze: what it prints and writes, its exit codes, and input that it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest

from commanded import COMMAND, hptransfer
from hptransfer.documents.schemas import schema
from hptransfer.records.store import stored_suites
from swept import BOTH, csv, runs

DOCS = Path(__file__).parents[1] / "docs"
TEXT = csv(runs(BOTH, octaves=range(-10, -3)))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(TEXT)
    return path


def test_what_was_taken_for_what_comes_first_and_the_verdicts_follow(table: Path) -> None:
    done = hptransfer("analyze", "mine.csv", cwd=table.parent)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "mine.csv: 84 runs"
    assert [line.split()[0] for line in lines[1:6]] == ["axis", "lr", "loss", "label", "seed"]
    assert lines[7] == "Does the learning rate tuned at width 64 hold at 256?"
    assert lines[8].startswith("adamw: drifts. The lr tuned at width 64 (0.0146 = 2^-6.1) costs ")
    assert lines[9].startswith("muon: transfers. ")
    assert lines[-1] == "report: results/mine/report.html"


def test_the_page_and_the_documents_stand_beside_those_of_suites(table: Path) -> None:
    done = hptransfer("analyze", "mine.csv", cwd=table.parent)
    folder = table.parent / "results" / "mine"
    assert sorted(path.name for path in folder.iterdir()) == [
        "alignment.svg", "analysis.json", "metrics.json", "report.html",
    ]  # fmt: skip
    page = (folder / "report.html").read_text()
    for shown in ("Alignment", "Transfer", "Drift of the optimum", "What was taken for what"):
        assert f"<h2>{shown}</h2>" in page
    for left in ("Cost", "Fairness", "Training curves", "Metric audit", "Environment"):
        assert f"<h2>{left}</h2>" not in page
    assert "<strong>Question.</strong> Does the learning rate tuned at width 64" in page
    assert "adamw: drifts" not in done.stderr
    assert stored_suites(table.parent / "results") == []


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("change", ["", "one seed", "diverged", "censored"])
def test_documents_follow_their_schemas_whatever_the_sweep_is(change: str, tmp_path: Path) -> None:
    rows = runs(BOTH, octaves=range(-10, -3))
    if change == "one seed":
        rows = [row for row in rows if row["seed"] == 0]
    for row in rows:
        if change == "diverged" and row["width"] == 256:
            row["loss"] = "nan"
        if change == "censored":
            row["loss"] = row["lr"]
    (tmp_path / "mine.csv").write_text(csv(rows))
    done = hptransfer("analyze", "mine.csv", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "mine"
    analysis = strict(done.stdout)
    jsonschema.validate(analysis, schema("analysis"))
    assert strict((folder / "analysis.json").read_text()) == analysis
    metrics = strict((folder / "metrics.json").read_text())
    jsonschema.validate(metrics, schema("metrics"))
    assert metrics["suites"] == [analysis["result"]]


@pytest.mark.parametrize(
    ("expect", "code", "said"),
    [
        (("adamw=drifts", "muon=transfers"), 0, "Claim held from width 64 to 256: "),
        (("adamw=transfers",), 1, "Claim refuted from width 64 to 256: adamw was expected to "),
        (("muon=drifts",), 1, "Claim refuted"),
    ],
)
def test_the_exit_code_is_the_judgement(
    expect: tuple[str, ...], code: int, said: str, table: Path
) -> None:
    options = [word for each in expect for word in ("--expect", each)]
    done = hptransfer("analyze", "mine.csv", *options, cwd=table.parent)
    assert done.returncode == code, done.stderr
    assert said in done.stdout


def test_an_expectation_that_nothing_decides_is_undecided(tmp_path: Path) -> None:
    rows = [row for row in runs(BOTH) if row["lr"] > 2**-6.6]
    (tmp_path / "mine.csv").write_text(csv(rows))
    done = hptransfer("analyze", "mine.csv", "--expect", "muon=transfers", cwd=tmp_path)
    assert done.returncode == 3
    assert "muon was expected to transfer and came out as censored" in done.stdout


def test_a_control_that_drifts_shows_that_the_sweep_can_see_a_drift(table: Path) -> None:
    done = hptransfer("analyze", "mine.csv", "--control", "adamw", cwd=table.parent)
    assert "adamw drifts from width 64 to 256, as it must, so this sweep can see" in done.stdout


def test_standard_input_and_several_files_are_read(table: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "analyze", "-", "--out", "elsewhere"],
        input=TEXT.encode(),
        capture_output=True,
        cwd=table.parent,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"standard input: 84 runs")
    assert (table.parent / "elsewhere" / "report.html").exists()
    head, *lines = TEXT.splitlines()
    short = [",".join(line.split(",")[1:]) for line in (head, *lines)]
    for label in BOTH:
        own = [row for row, line in zip(short[1:], lines, strict=True) if line.startswith(label)]
        (table.parent / f"{label}.csv").write_text("\n".join([short[0], *own]))
    both = hptransfer("analyze", "adamw.csv", "muon.csv", "--name", "two", cwd=table.parent)
    assert "adamw: drifts. " in both.stdout
    assert "muon: transfers. " in both.stdout


def test_a_study_in_a_database_is_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    made = optuna.create_study(storage=url, study_name="mine")
    for row in runs({"muon": BOTH["muon"]}, octaves=range(-10, -3), seeds=1):
        made.add_trial(
            optuna.trial.create_trial(
                params={"lr": row["lr"]},
                distributions={"lr": optuna.distributions.FloatDistribution(1e-6, 1.0)},
                user_attrs={"width": row["width"]},
                value=row["loss"],
            )
        )
    done = hptransfer("analyze", url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "study mine: 14 runs" in done.stdout
    other = hptransfer("analyze", url, "--study", "yours", cwd=tmp_path)
    assert other.returncode == 2
    assert "has no study 'yours'" in other.stderr


def test_limits_and_targets_are_options(table: Path) -> None:
    done = hptransfer("analyze", "mine.csv", "--tol", 1, "--limit", 2, cwd=table.parent)
    assert "adamw: drifts" not in done.stdout
    rows = runs(BOTH, widths=(64, 128, 256))
    table.write_text(csv(rows))
    done = hptransfer("analyze", "mine.csv", "--proxy", 128, "--to", 256, cwd=table.parent)
    assert "Does the learning rate tuned at width 128 hold at 256?" in done.stdout
    assert "78 run(s) at other values of width" in done.stdout


BAD: list[tuple[tuple[object, ...], str, str]] = [
    (("nowhere.csv",), "nowhere.csv: No such file or directory", "name a CSV"),
    ((".",), ".: Is a directory", "name a CSV"),
    (("mine.csv", "--expect", "adamw"), "--expect: got 'adamw', needs LABEL=drifts", ""),
    (("mine.csv", "--expect", "adamw=well"), "--expect: adamw: got 'well', needs drifts", "adamw"),
    (("mine.csv", "--expect", "adam=drifts"), "--expect: no label 'adam'", "did you mean 'adamw'?"),
    (("mine.csv", "--hold", "seed"), "--hold: got 'seed', needs COLUMN=VALUE", ""),
    (("mine.csv", "--hold", "sead=0"), "--hold: there is no column 'sead'", "did you mean 'seed'?"),
    (("mine.csv", "--axis", "w"), "--axis: there is no column 'w'", ""),
    (("mine.csv", "--lr-scale", "e"), "--lr-scale: got 'e', needs one of linear, log2", ""),
    (("mine.csv", "--tol", -1), "--tol: got -1.0, input should be greater than 0", ""),
    (("mine.csv", "--name", "a/b"), "--name: got 'a/b', needs the name of a folder", ""),
    (("mine.csv", "--out", "mine.csv"), "mine.csv: File exists", "name a writable folder"),
    (("mine.csv", "--study", "s"), "--study: no Optuna storage is given", "sqlite:///studies.db"),
]


@pytest.mark.parametrize(("arguments", "message", "hint"), BAD)
def test_wrong_input_is_one_line_and_a_hint(
    arguments: tuple[object, ...], message: str, hint: str, table: Path
) -> None:
    done = hptransfer("analyze", *arguments, cwd=table.parent)
    assert done.returncode == 2
    error, *rest = done.stderr.splitlines()
    assert message in error
    assert error.startswith("error: ")
    assert hint in "".join(rest)
    assert "Traceback" not in done.stderr


def test_the_records_of_a_suite_are_not_written_over(table: Path) -> None:
    own = table.parent / "results" / "mine"
    own.mkdir(parents=True)
    (own / "suite.json").write_text("{}")
    done = hptransfer("analyze", "mine.csv", cwd=table.parent)
    assert done.returncode == 2
    assert "results/mine: holds the records of a suite" in done.stderr
    assert [path.name for path in own.iterdir()] == ["suite.json"]


def test_reading_a_sweep_never_imports_torch(table: Path) -> None:
    code = (
        "import sys; sys.argv = ['hptransfer', 'analyze', 'mine.csv']\n"
        "from hptransfer.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=table.parent, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_docs_is_judged_as_its_page_says(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "analyze.md").read_text()
    done = hptransfer("analyze", DOCS / "how-to" / "sweep.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = page.partition("<!-- printed -->\n```\n")[2].partition("```")[0]
    printed = done.stdout.replace(str(DOCS / "how-to"), "docs/how-to")
    assert printed.startswith(shown)
    assert "adamw: drifts. " in shown
    assert "muon: transfers. " in shown
