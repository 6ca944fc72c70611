"""README is short, and its commands, tables and sentences are true."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hptransfer import cli
from hptransfer.spec import FIRST_SCHEMA
from hptransfer.suite.file import study_names, suite_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def between(page: str, mark: str) -> list[str]:
    """Lines between <!-- mark --> and <!-- /mark -->."""
    assert page.count(f"<!-- {mark} -->") == page.count(f"<!-- /{mark} -->") == 1
    block = page.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    return block.strip().splitlines()


def commands() -> list[list[str]]:
    lines = [line.partition("#")[0] for line in "\n".join(blocks("sh")).splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("hptransfer ")]


def call(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hptransfer", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_readme_has_at_most_1500_words_outside_tables_and_code() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    words = [w for line in prose.splitlines() if not line.startswith("|") for w in line.split()]
    assert 300 < len(words) <= 1500


def test_readme_says_that_a_strangers_suite_is_code() -> None:
    assert "A stranger's suite is a stranger's code" in README


def test_the_quickstart_of_the_first_screen_ends_in_a_report(tmp_path: Path) -> None:
    install = blocks("sh")[0].strip().split(" && ")
    assert install[-1] == ".venv/bin/hptransfer run quickstart"
    short = ["--steps", "5", "--trials", "3", "--optimizer", "adamw"]
    done = call(["run", "quickstart", *short], tmp_path)
    assert done.returncode == 0, done.stderr
    page = re.search(r"report: (\S+)", done.stdout)
    assert page is not None
    assert "AdamW-SP" in (tmp_path / page[1]).read_text(encoding="utf-8")
    report = call(["report"], tmp_path)
    assert report.returncode == 0, report.stderr


def test_the_test_line_is_one_line_that_ends_in_pytest() -> None:
    assert README.count("<!-- test-line -->") == 1
    block = README.partition("<!-- test-line -->\n```sh\n")[2].partition("```")[0]
    assert block.count("\n") == 1
    install, tests = block.strip().rsplit(" && ", 1)
    assert "'.[dev]'" in install
    assert tests.endswith("-m pytest")


PLANNED = [c for c in commands() if c[1] in ("tune", "transfer", "run", "plan")]
STUDIES = [words for words in PLANNED if words[2] in study_names()]
SUITES = [words for words in PLANNED if words not in STUDIES]


@pytest.mark.parametrize("words", SUITES, ids=" ".join)
def test_a_command_of_readme_plans_what_it_says(words: list[str], tmp_path: Path) -> None:
    dry = [] if words[1] == "plan" else ["--dry-run"]
    done = call([*words[1:], "--steps", "5", "--optimizer", "adamw", *dry], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs to do, 0 known" in done.stdout


@pytest.mark.parametrize("words", STUDIES, ids=" ".join)
def test_a_study_of_readme_plans_what_it_says(words: list[str], tmp_path: Path) -> None:
    done = call([*words[1:], "--dry-run"], tmp_path)
    assert done.returncode == 0, done.stderr
    points = re.search(r"0 of (\d+) (points|runs) are known", done.stdout)
    assert points is not None and int(points[1]) > 0


def test_readme_names_a_study_and_more_than_one_command_of_suites() -> None:
    assert STUDIES and len(SUITES) > 1


@pytest.mark.parametrize(
    ("page", "mark", "folder"),
    [
        (README, "quickstart", "quickstart"),
        (MEASUREMENTS, "seeds", "quickstart/three_seeds"),
    ],
    ids=["quickstart", "seeds"],
)
def test_the_sentences_about_the_quickstart_are_those_of_its_committed_metrics(
    page: str, mark: str, folder: str
) -> None:
    metrics = json.loads((ROOT / "results/reference" / folder / "metrics.json").read_text())
    shown = [line.removeprefix("- ") for line in between(page, mark)]
    assert shown == [each["sentence"] for each in metrics["suites"][0]["transfers"]]


def outcome(folder: Path) -> str:
    """A line of README's table: the verdict of each optimizer at the largest target."""
    suite = json.loads((folder / "metrics.json").read_text())["suites"][0]
    last = max(each["target"] for each in suite["transfers"])
    listed: dict[str, list[str]] = {"drifts": [], "inconclusive": [], "transfers": [], "none": []}
    for each in suite["transfers"]:
        if each["target"] == last:
            verdict, drift = each["verdict"], each["drift"]["value"]
            column, more = (verdict, f"{drift:+z.1f}") if verdict in listed else ("none", verdict)
            listed[column].append(f"{each['optimizer']} ({more})")
    name = f"[`{folder.name}`](results/reference/{folder.name}/alignment.svg)"
    axis = suite["axis"].replace("_", " ")
    rule = "0.1" if suite["records_schema"] == FIRST_SCHEMA else "today's"
    place = f"{axis} {suite['proxy']} to {last}"
    cells = [name, place, rule, *(", ".join(v) for v in listed.values())]
    return f"| {' | '.join(cells)} |".replace("(-", "(\N{MINUS SIGN}")


def test_what_the_suites_gave_is_what_their_committed_metrics_say() -> None:
    reference = ROOT / "results/reference"
    folders = sorted(path.parent for path in reference.glob("*/metrics.json"))
    without = sorted(set(suite_names()) - {folder.name for folder in folders})
    listed = ", ".join(f"`{name}`" for name in without) or "none"
    assert f"Suites without committed results: {listed}." in " ".join(README.split())
    assert between(README, "suites")[2:] == [outcome(folder) for folder in folders]


@pytest.mark.parametrize(
    ("table", "file"),
    [
        ("polar", "polar"),
        ("sweep", "benchmarks"),
        ("step", "benchmarks"),
        ("accuracy", "benchmarks"),
        ("tails", "tails"),
        ("tails-matrices", "tails"),
    ],
)
def test_the_tables_of_the_measurements_are_part_of_the_committed_ones(
    table: str, file: str
) -> None:
    measured = (ROOT / f"results/reference/{file}.md").read_text(encoding="utf-8").splitlines()
    shown = between(MEASUREMENTS, table)
    assert len(shown) > 4
    assert set(shown) <= set(measured)


def test_readme_names_every_command_and_every_suite() -> None:
    named = {words[1] for words in commands()}
    registered = cli.app.registered_commands
    assert named == {c.name or getattr(c.callback, "__name__", "") for c in registered}
    for name in suite_names():
        assert f"| `{name}`" in README
