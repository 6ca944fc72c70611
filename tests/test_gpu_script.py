"""The GPU's script, rehearsed on a CPU at its smallest sizes."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"
TABLES = ("replay", "step", "wide", "sweep")


def gpu_script(out: Path, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(out)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_every_stage_of_the_gpu_script_works_at_a_small_size(tmp_path: Path) -> None:
    out = tmp_path / "gpu_width"
    gpu_script(out, "--limit", "1200")
    stages = json.loads((out / "stages.json").read_text())
    machine = stages.pop("machine")
    assert machine["device"]
    assert {name: stage["status"] for name, stage in stages.items()} == dict.fromkeys(
        ("tests", "tune", "transfer", "verify", "report", "step", "batches", *TABLES), "done"
    )
    assert (out / "report.html").is_file()
    widths = {json.loads(line)["spec"]["width"] for line in records(out)}
    assert widths == {32, 64}
    for name in TABLES:
        rows = [line for line in (out / f"{name}.log").read_text().splitlines() if line[:1] == "|"]
        assert len(rows) > 2, name


def records(out: Path) -> list[str]:
    return [line for path in out.glob("records-*.jsonl") for line in path.read_text().splitlines()]


def test_a_stage_that_is_done_is_skipped_and_one_without_time_says_so(tmp_path: Path) -> None:
    known = {"tests": {"status": "done", "seconds": 1.0, "code": 0}}
    (tmp_path / "stages.json").write_text(json.dumps(known))
    shown = gpu_script(tmp_path, "--resume", "--limit", "0", "--only", "tests", "step")
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert stages["tests"] == known["tests"]
    assert stages["step"]["status"] == "skipped"
    assert "tests" not in shown
