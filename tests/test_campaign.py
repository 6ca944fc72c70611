"""Every campaign has a short form, and one that finds a fault fails."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "campaign"
SHORT: dict[str, list[str]] = runpy.run_path(str(FOLDER / "all.py"))["SHORT"]


def campaign(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_the_short_campaign_finds_no_fault(name: str) -> None:
    done = campaign(name, *SHORT[name])
    assert done.returncode == 0, done.stderr
    rules = [line for line in done.stdout.splitlines() if line and set(line) <= set("|-")]
    assert len(rules) == 1, f"one table:\n{done.stdout}"


def test_every_campaign_has_a_short_form() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"all", "places"}
    assert scripts == SHORT.keys()


def test_the_account_of_a_place_names_every_kind_of_fault(tmp_path: Path) -> None:
    """A lost run, a run trained twice, a traceback, a torn page."""
    check = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from places import Done, Place
place = Place.make(Path(sys.argv[2]))
place.results.mkdir(parents=True)
line = '{"key": "a", "status": "%s"}\\n'
def known(*statuses):
    (place.results / "records-x.jsonl").write_text("".join(line % s for s in statuses))
known("done")
(place.results / "report.html").write_text("<html>")
metrics = {"suites": [{"runs": {"found": 1, "expected": 2}}]}
(place.results / "metrics.json").write_text(json.dumps(metrics))
print(place.faults(Done(0, ""), ["a"]))
print(place.faults(Done(1, "Traceback"), ["b"]))
known("done", "failed")
print(place.lines())
known("done", "diverged")
print(place.faults(Done(0, "")))
"""
    folder = str(tmp_path / "place")
    command = [sys.executable, "-c", check, str(FOLDER), folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['report.html is torn', \"1 runs on disk, the report has {'found': 1, 'expected': 2}\"]",
        "['exit code 1: Traceback', 'traceback', 'lost b']",
        "Counter({'a': 1})",
        "['trained 2 times: a']",
    ]
