"""metrics.json and runs.csv of the committed reports, made anew from the committed records."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hptransfer.report.metrics import metrics_json
from hptransfer.report.runs_csv import runs_csv
from hptransfer.report.section import Section
from hptransfer.report.write import stored

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
SUITES = sorted(path.parent for path in REFERENCE.rglob("metrics.json"))


def made_anew(folder: Path) -> list[Section]:
    return list(stored(folder.name, folder.parent))


def differences(made: Any, kept: Any, place: str = "") -> list[str]:
    """Places where two JSON values differ by more than the rounding of another processor."""
    if isinstance(made, dict) and isinstance(kept, dict):
        if list(made) != list(kept):
            return [f"{place}: keys {list(made)}, not {list(kept)}"]
        return [
            line for key in made for line in differences(made[key], kept[key], f"{place}.{key}")
        ]
    if isinstance(made, list) and isinstance(kept, list) and len(made) == len(kept):
        pairs = enumerate(zip(made, kept, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{place}[{i}]")]
    if (
        isinstance(made, float)
        and isinstance(kept, float)
        and math.isclose(made, kept, rel_tol=1e-9, abs_tol=1e-10)
    ):
        return []
    return [] if type(made) is type(kept) and made == kept else [f"{place}: {made}, not {kept}"]


def test_there_are_committed_reports() -> None:
    assert len(SUITES) >= 9


@pytest.mark.parametrize("folder", SUITES, ids=lambda path: path.name)
def test_a_committed_report_is_made_anew_from_its_records(folder: Path) -> None:
    again = made_anew(folder)
    kept = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    made = json.loads(json.dumps(metrics_json(again), allow_nan=False))
    assert differences(made, kept) == []
    assert runs_csv(again[0].rows) == (folder / "runs.csv").read_text(encoding="utf-8")


def test_a_difference_beyond_rounding_is_seen() -> None:
    assert differences({"a": [1.0, 2]}, {"a": [1.0 + 1e-12, 2]}) == []
    assert differences({"a": 1.0}, {"a": 1.001})
    assert differences({"a": 1}, {"a": 1.0})
    assert differences({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert differences([1], [1, 2])
    assert differences(None, 0.0)
