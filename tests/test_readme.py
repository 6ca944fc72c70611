"""README's commands and its suite do what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hptransfer import cli
from hptransfer.suite.file import load_suite, suite_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


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


@pytest.mark.parametrize(
    "words", [c for c in commands() if c[1] in ("tune", "transfer", "run", "plan")], ids=" ".join
)
def test_a_command_of_readme_plans_what_it_says(words: list[str], tmp_path: Path) -> None:
    dry = [] if words[1] == "plan" else ["--dry-run"]
    done = call([*words[1:], "--steps", "5", "--optimizer", "adamw", *dry], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs to do, 0 known" in done.stdout


@pytest.mark.parametrize(
    ("mark", "folder"), [("quickstart", "quickstart"), ("seeds", "quickstart/three_seeds")]
)
def test_the_sentences_about_the_quickstart_are_those_of_its_committed_metrics(
    mark: str, folder: str
) -> None:
    metrics = json.loads((ROOT / "results/reference" / folder / "metrics.json").read_text())
    block = README.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    found = [line.removeprefix("- ") for line in block.strip().splitlines()]
    assert found == [pair["sentence"] for pair in metrics["suites"][0]["pairs"]]


def outcome(folder: Path) -> str:
    """A line of README's table: what each optimizer came out as at the largest target."""
    [suite] = json.loads((folder / "metrics.json").read_text())["suites"]
    last = max(pair["n"] for pair in suite["pairs"])
    found: dict[str, list[str]] = {"drifts": [], "inconclusive": [], "transfers": [], "none": []}
    for pair in suite["pairs"]:
        if pair["n"] == last:
            judged = pair["verdict"] in found
            column, more = (
                (pair["verdict"], f"{pair['drift']:+z.1f}") if judged else ("none", pair["verdict"])
            )
            found[column].append(f"{pair['optimizer']} ({more})")
    name = f"[`{folder.name}`](results/reference/{folder.name}/alignment.svg)"
    axis = suite["axis"].replace("_", " ")
    cells = [name, f"{axis} {suite['proxy']} to {last}", *(", ".join(v) for v in found.values())]
    return f"| {' | '.join(cells)} |".replace("(-", "(\N{MINUS SIGN}")


def test_what_the_suites_gave_is_what_their_committed_metrics_say() -> None:
    block = README.partition("<!-- suites -->")[2].partition("<!-- /suites -->")[0]
    reference = ROOT / "results/reference"
    folders = sorted(path.parent for path in reference.glob("*/metrics.json"))
    assert [folder.name for folder in folders] == sorted(suite_names())
    assert block.strip().splitlines()[2:] == [outcome(folder) for folder in folders]


@pytest.mark.parametrize(
    ("table", "file"), [("polar", "polar"), ("sweep", "benchmarks"), ("step", "benchmarks")]
)
def test_the_tables_are_part_of_the_measured_ones(table: str, file: str) -> None:
    measured = (ROOT / f"results/reference/{file}.md").read_text(encoding="utf-8").splitlines()
    block = README.partition(f"<!-- {table} -->")[2].partition(f"<!-- /{table} -->")[0]
    shown = block.strip().splitlines()
    assert len(shown) > 4
    assert set(shown) <= set(measured)


def test_readme_names_every_command_and_every_suite() -> None:
    named = {words[1] for words in commands()}
    registered = cli.app.registered_commands
    assert named == {c.name or getattr(c.callback, "__name__", "") for c in registered}
    for name in suite_names():
        assert f"| `{name}`" in README


def test_the_suite_in_readme_is_a_suite(tmp_path: Path) -> None:
    [text] = blocks("toml")
    path = tmp_path / "my_suite.toml"
    path.write_text(text, encoding="utf-8")
    suite = load_suite(str(path))
    assert list(suite.optimizers) == ["adamw", "scion_sign", "adamw_tpe"]
