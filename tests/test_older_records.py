"""Records of schema 1: read apart from today's, never mixed with them and never deleted."""

import json
import shutil
from pathlib import Path

from hptransfer.records.store import Store
from hptransfer.report.write import stored, write_report
from hptransfer.spec import FIRST_SCHEMA, SCHEMA, RunSpec
from stored import files, left_out, record, suite

OLD = Path(__file__).parents[1] / "results" / "reference" / "quickstart" / "three_seeds"


def old_records(root: Path) -> tuple[Store, Store]:
    """Today's store and the older one of a folder with committed records of schema 1."""
    folder = root / "three_seeds"
    folder.mkdir(parents=True)
    for path in [*OLD.glob("records-*.jsonl"), OLD / "suite.json"]:
        shutil.copy(path, folder / path.name)
    return Store(root, "three_seeds"), Store(root, "three_seeds", FIRST_SCHEMA)


def test_a_frame_holds_the_records_of_one_schema(tmp_path: Path) -> None:
    today, older = old_records(tmp_path)
    today.append(record())
    assert today.frame()["seed"].tolist() == [0]
    count = sum(len(path.read_text().splitlines()) for path in OLD.glob("records-*.jsonl"))
    assert len(older.frame()) == count
    for spec in older.frame()["spec"]:
        assert RunSpec.from_json(spec).to_json() == spec
        assert spec["schema"] == FIRST_SCHEMA


def test_a_new_run_keeps_the_older_manifest_and_records(tmp_path: Path) -> None:
    today, older = old_records(tmp_path)
    assert today.read_manifest() is None
    before = older.read_manifest()
    assert before is not None
    lines = [path.read_bytes() for path in files(older)]
    today.write_manifest(suite("three_seeds"))
    today.write_manifest(suite("three_seeds"))
    found = today.read_manifest()
    assert found is not None
    assert found.template("adamw").schema == SCHEMA
    assert older.read_manifest() == before
    assert [path.read_bytes() for path in files(older)] == lines


def test_a_report_shows_older_records_in_a_section_of_their_own(tmp_path: Path) -> None:
    today, _ = old_records(tmp_path)
    [alone] = stored("three_seeds", tmp_path)
    assert "rule of 0.1" in alone.uncounted
    today.write_manifest(suite("three_seeds"))
    today.append(record())
    new, old = stored("three_seeds", tmp_path)
    assert new.uncounted == ""
    assert old.uncounted == alone.uncounted
    page, metrics = write_report(["three_seeds"], tmp_path, None)
    shown = page.read_text()
    parts = {part.partition("</h1>")[0]: part for part in shown.split("<h1>")[1:]}
    assert set(parts) == {"three_seeds", "three_seeds, rule of 0.1"}
    of_today, older_part = parts["three_seeds"], parts["three_seeds, rule of 0.1"]
    assert "the optimum moved by more than 0.5 octaves, the regret is above 0.01" in older_part
    assert "insensitive" in of_today.split("</ol>")[0]
    assert "insensitive" not in older_part.split("</ol>")[0]
    assert len(metrics["suites"]) == 2
    assert json.loads((today.folder / "metrics.json").read_text()) == metrics
    assert len((today.folder / "runs.csv").read_text().splitlines()) == 1, "today's: none is its"


def test_a_run_under_another_schema_than_its_line_is_left_out(tmp_path: Path) -> None:
    today, _ = old_records(tmp_path)
    [path] = list(today.folder.glob("records-*.jsonl"))
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**line, "schema": SCHEMA}) + "\n")
    assert left_out(today)[0] == []
