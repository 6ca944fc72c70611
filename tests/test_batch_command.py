"""`hptransfer batch` from a suite to its table, and what it refuses."""

import json
from pathlib import Path

import jsonschema
import pytest

from commanded import hptransfer
from hptransfer.records.store import Store

SUITE = """
claim = "a claim"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }
data = { name = "file", path = "TEXT" }
base = { width = 8 }
axis = "batch_size"
width = 8
proxy = 2
targets = [4]
batch = 2
tokens = 512
budgets = [2]
lr_rule = 0.62
momentum = "per_token"
eval_tokens = 256
baseline = "adamw"
trials = 5
seeds = 1
max_seeds = 1

[optimizers.adamw]
lr = "2^-7..2^-4"
[optimizers.scion_unconstrained]
lr = "2^-5..2^-2"
"""
QUICK = ("--quiet", "--lanes", 4)


def write(folder: Path, text: str = SUITE, name: str = "tiny") -> Path:
    """A suite of a second in `folder`."""
    data = folder / "text.txt"
    data.write_bytes(bytes(i * i % 251 for i in range(60_000)))
    path = folder / f"{name}.toml"
    path.write_text(text.replace("TEXT", str(data)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the suite ran."""
    folder = tmp_path_factory.mktemp("batch")
    done = hptransfer("batch", write(folder), *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def test_the_table_has_a_row_per_optimizer_and_batch_and_says_the_policy(folder: Path) -> None:
    shown = (folder / "stdout").read_text()
    lines = [line.split() for line in shown.splitlines()]
    rows = {(line[0], line[1]): line for line in lines if line[:1] and len(line) > 5}
    for label in ("adamw", "scion_unconstrained"):
        assert rows[label, "2"][2:3] == ["16"]
        assert rows[label, "4"][2:3] == ["8"]
    assert "512 tokens per run; lr tuned in every row" in shown
    assert "the same memory in tokens at every batch: a decay rate beta holds at batch 2" in shown
    assert "adamw: no critical batch, since fewer than 4 batches" in shown
    assert "report: results/tiny/report.html" in shown.replace("\n", " ")


def test_short_runs_are_warned_of_before_they_train(folder: Path) -> None:
    warned = (folder / "stderr").read_text()
    assert "warning: tiny: fewer than 100 steps by batch size (16 at 2, 8 at 4)" in warned


def test_every_run_has_the_steps_and_the_decay_rates_of_its_batch(folder: Path) -> None:
    frame = Store(folder / "results", "tiny").frame()
    assert set(frame.status) == {"done"}
    spent = {(spec["batch"], spec["steps"]) for spec in frame.spec}
    assert spent == {(2, 16), (4, 8), (2, 8), (4, 4)}
    beta = {(s["batch"], s["hp"]["beta"]) for s in frame.spec if "beta" in s["hp"]}
    assert beta == {(2, 0.9), (4, 0.81)}


def test_the_report_and_the_metrics_hold_the_comparison(folder: Path) -> None:
    page = (folder / "results/tiny/report.html").read_text()
    assert "Batch sizes at equal tokens" in page
    assert "Critical batch" in page
    metrics = json.loads((folder / "results/tiny/metrics.json").read_text())
    [suite] = metrics["suites"]
    assert suite["runs"]["missing"] == []
    assert suite["runs"]["found"] == len(Store(folder / "results", "tiny").frame())
    assert [(row["optimizer"], row["axis_value"], row["steps"]) for row in suite["tuned"]] == [
        ("adamw", 2, 16), ("adamw", 4, 8),
        ("scion_unconstrained", 2, 16), ("scion_unconstrained", 4, 8),
    ]  # fmt: skip
    for row in suite["tuned"]:
        assert [each["tokens"] for each in row["budgets"]] == [256, 512]
    assert {each["is_bracketed"] for each in suite["critical_batches"]} == {False}
    runs = (folder / "results/tiny/runs.csv").read_text().splitlines()
    assert len(runs) - 1 == suite["runs"]["found"]


def test_once_more_it_trains_nothing_and_prints_the_same_as_json(folder: Path) -> None:
    schema = json.loads((Path(__file__).parents[1] / "docs/metrics.schema.json").read_text())
    before = len(Store(folder / "results", "tiny").frame())
    done = hptransfer("batch", "tiny.toml", "--json", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema).validate(printed)
    assert printed == json.loads((folder / "results/tiny/metrics.json").read_text())
    assert len(Store(folder / "results", "tiny").frame()) == before


def test_a_dry_run_shows_the_plan_alone(tmp_path: Path) -> None:
    done = hptransfer("batch", write(tmp_path), "--dry-run", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs to do, 0 known" in done.stdout
    assert "lr tuned" not in done.stdout
    assert not (tmp_path / "results/tiny/report.html").exists()


def test_numbers_of_steps_are_compared_too(tmp_path: Path) -> None:
    lines = [
        line for line in SUITE.splitlines()
        if not line.startswith(("tokens", "budgets", "momentum", "baseline", "lr_rule"))
    ]  # fmt: skip
    steps = "\n".join(lines).replace("batch_size", "steps").replace("[4]", "[4, 8]\nsteps = 2")
    done = hptransfer("batch", write(tmp_path, steps), *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "numbers of steps; lr tuned in every row" in done.stdout
    assert "lr T^-0.5" in done.stdout
    assert "fewer than 100 steps (2, 4, 8)" in done.stderr
    assert "Numbers of steps" in (tmp_path / "results/tiny/report.html").read_text()


REFUSED = {
    "a suite of widths": (
        'axis = "batch_size"\nwidth = 8\n', "", 'tokens = 512\nbudgets = [2]', "steps = 2",
        "batch: suite 'tiny' has the axis 'width'",
    ),
    "a suite of fixed steps": (
        "tokens = 512", "steps = 2", "budgets = [2]", "",
        "batch: suite 'tiny' holds the steps fixed, so the tokens grow with the batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_suite_without_the_comparison_is_one_line_and_a_hint(case: str, tmp_path: Path) -> None:
    *changes, message = REFUSED[case]
    text = SUITE.replace('momentum = "per_token"\n', "")
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    done = hptransfer("batch", write(tmp_path, text), cwd=tmp_path)
    assert done.returncode == 2
    hint = 'it needs axis = "batch_size" with tokens = N, or axis = "steps"'
    assert done.stderr == f"error: {message}\n\nhint: {hint}\n"


def test_steps_on_the_command_line_are_refused_where_tokens_decide_them(tmp_path: Path) -> None:
    done = hptransfer("batch", write(tmp_path), "--steps", 9, cwd=tmp_path)
    assert done.returncode == 2
    assert "steps: tokens decides them" in done.stderr


def test_a_target_of_the_command_line_that_no_whole_steps_reach_is_refused(tmp_path: Path) -> None:
    done = hptransfer("transfer", write(tmp_path), "--to", 3, cwd=tmp_path)
    assert done.returncode == 2
    assert "256 tokens" not in done.stderr
    assert "steps of batch 3 (48 tokens), needs a whole number" in done.stderr
    assert "hint: for instance tokens = " in done.stderr
