"""The command line as a user runs it."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from commanded import COMMAND, frame, hptransfer
from commands import interruptible
from hptransfer.cli.common import load, note_short_runs, only
from hptransfer.cli.options import RunOptions
from hptransfer.datasets import Unread
from hptransfer.records.store import Store
from hptransfer.suite.resolved import resolve
from hptransfer.train import engine

WILD = '''
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Wild:
    """Every step is infinite."""

    p: Any

    def init_weight(self, generator):
        return torch.randn(self.p.shape, generator=generator, dtype=torch.float64)

    def init_state(self, w):
        return {}

    def update(self, g, state, w, step):
        return w + torch.inf * g, state

    def readout(self, w, state):
        return w


def wild(p, *, beta: float = 0.9):
    """An optimizer that always diverges."""
    return Wild(p)
'''


def test_run_goes_from_nothing_to_a_report_and_a_second_run_trains_nothing(
    suite: Path, tmp_path: Path
) -> None:
    first = hptransfer("run", suite, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "adamw: " in first.stdout
    assert "scion: " in first.stdout
    folder = tmp_path / "results" / "tiny"
    page = (folder / "report.html").read_text()
    assert "a claim" in page
    assert f"hptransfer tune {suite} --steps 3 --data" in page, "a suite of one's own has a path"
    assert not re.search(r"""(src|href)=["']?https?:""", page), "the page is self-contained"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {each["optimizer"] for each in metrics["suites"][0]["transfers"]} == {"adamw", "scion"}
    runs = frame(tmp_path)
    assert len(pd.read_csv(folder / "runs.csv")) == len(runs)
    assert set(runs.status) == {"done"}
    assert (folder / "studies.journal").exists()

    second = hptransfer("run", suite, "--json", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["suites"][0]["runs"]["missing"] == []
    assert len(frame(tmp_path)) == len(runs)


def test_the_commands_of_a_report_name_the_data_that_the_command_line_named(
    suite: Path, tmp_path: Path
) -> None:
    for given, told in ((None, f"--data {tmp_path / 'text.txt'}"), ("mnist5k", "--data mnist5k")):
        chosen = load(str(suite), RunOptions(data=given))
        Store(tmp_path / "results", "tiny").write_manifest(resolve(chosen, Unread("0" * 64)))
        assert hptransfer("report", cwd=tmp_path).returncode == 0
        page = (tmp_path / "results" / "tiny" / "report.html").read_text()
        lines = [line for line in page.splitlines() if f"{suite} --steps 3" in line]
        assert len(lines) == 2
        assert all(told in line for line in lines)


def test_the_commands_of_a_report_do_not_name_the_data_of_the_suite(tmp_path: Path) -> None:
    for given in (None, "python_source"):
        chosen = load("quickstart", RunOptions(data=given))
        Store(tmp_path / "results", "quickstart").write_manifest(resolve(chosen, Unread("0" * 64)))
        assert hptransfer("report", cwd=tmp_path).returncode == 0
        page = (tmp_path / "results" / "quickstart" / "report.html").read_text()
        assert ("--data python_source" in page) == (given is not None)


def test_what_is_named_twice_counts_once_and_keeps_its_place(suite: Path, tmp_path: Path) -> None:
    chosen = load(str(suite), RunOptions())
    assert only(chosen, ["scion", "adamw", "scion"]) == ["scion", "adamw"]
    assert only(chosen, None) == ["adamw", "scion"]
    Store(tmp_path / "results", "tiny").write_manifest(resolve(chosen, Unread("0" * 64)))
    done = hptransfer("report", "tiny", "tiny", suite, "--json", cwd=tmp_path)
    assert [each["suite"] for each in json.loads(done.stdout)["suites"]] == ["tiny"]
    twice = ("--to", 24, "--to", 16, "--to", 24, "--optimizer", "scion", "--optimizer", "scion")
    plan = hptransfer("transfer", suite, *twice, "--dry-run", cwd=tmp_path).stdout
    assert re.findall(r"^scion +(\d+)", plan, re.MULTILINE) == ["8", "24", "16"]


def test_tune_then_transfer_without_verify_is_unverified_and_says_where_the_lr_is_from(
    suite: Path, tmp_path: Path
) -> None:
    tuned = hptransfer("tune", suite, "--optimizer", "adamw", cwd=tmp_path)
    assert tuned.returncode == 0, tuned.stderr
    assert "best learning rate at width 8" in tuned.stdout
    moved = hptransfer("transfer", suite, "--to", 16, "--optimizer", "adamw", cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr
    assert re.search(r"adamw: lr 2\^\S+ from width 8 \(\d+ points\)", moved.stderr)
    assert "adamw: unverified" in moved.stdout
    assert moved.stdout.endswith("--verify measures the optimum at each target\n")
    runs = frame(tmp_path)
    assert set(runs[runs.width == 16].seed) == {0, 1}


TRANSPORTED = """
[optimizers.moved]
use = "transported_scion"
lr = "2^-6..2^-2"
"""


@pytest.mark.parametrize(
    ("words", "lines", "warned"),
    [
        (["plan"], 'schedule = "constant"', True),
        (["run", "--dry-run", "--quiet"], 'schedule = "constant"\nwarmup = 0.5', True),
        (["tune", "--dry-run"], 'schedule = "constant"', True),
        (["transfer", "--dry-run"], 'schedule = "constant"', True),
        (["coords", "--width", "8"], 'schedule = "constant"', True),
        (["export"], 'schedule = "constant"', True),
        (["plan", "--optimizer", "adamw"], 'schedule = "constant"', False),
        (["plan"], "", False),
        (["plan"], 'schedule = "constant"\nhp = { transport_schedule = "constant" }', False),
        (["plan"], 'schedule = "constant"\nhp = { transport = 0.0 }', False),
    ],
)
def test_a_transport_of_strength_0_is_told_once(
    words: list[str], lines: str, warned: bool, suite: Path, tmp_path: Path
) -> None:
    suite.write_text(f"{suite.read_text()}{TRANSPORTED}{lines}\n")
    command, *options = words
    done = hptransfer(command, suite, *options, cwd=tmp_path)
    told = "warning: moved: at a constant lr the transport has strength 0, which is plain Scion; hp"
    found = [line for line in done.stderr.splitlines() if "warning" in line]
    assert len(found) == warned
    assert all(line.startswith(told) for line in found)


def test_the_list_says_what_transported_scion_is_at_a_constant_lr(tmp_path: Path) -> None:
    shown = " ".join(hptransfer("list", "optimizers", cwd=tmp_path).stdout.split())
    assert "by default plain Scion at a constant lr" in shown


def test_transfer_loads_its_data_once(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load_data = engine.load_data
    monkeypatch.setattr(engine, "load_data", lambda data: loaded.append(data) or load_data(data))
    done = hptransfer("transfer", suite, "--to", 16, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "adamw: not tuned at width 8, so the search there runs first" in done.stderr
    assert len(loaded) == 1


def test_transfer_tunes_the_proxy_first_where_it_is_missing_and_names_what_is_tuned(
    suite: Path, tmp_path: Path
) -> None:
    one = ("--optimizer", "scion")
    assert hptransfer("tune", suite, "--width", 16, *one, cwd=tmp_path).returncode == 0
    moved = hptransfer("transfer", suite, "--from", 8, "--to", 24, *one, cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr
    assert "scion: not tuned at width 8, so the search there runs first (tuned: 16" in moved.stderr
    assert set(frame(tmp_path).width) == {8, 16, 24}


def test_a_dry_run_shows_the_plan_and_writes_nothing(suite: Path, tmp_path: Path) -> None:
    shown = hptransfer("run", suite, "--dry-run", cwd=tmp_path)
    planned = hptransfer("plan", suite, cwd=tmp_path)
    assert shown.returncode == planned.returncode == 0
    for text in (shown.stdout, planned.stdout):
        assert "tiny: " in text
        assert "runs to do, 0 known" in text
    assert not (tmp_path / "results").exists()


def test_kill_9_loses_no_record_and_the_rerun_retrains_none(suite: Path, tmp_path: Path) -> None:
    one_by_one = ["--workers", "1", "--lanes", "1", "--optimizer", "adamw"]
    arguments = ["run", str(suite), "--steps", "20", *one_by_one]
    for _ in range(2):
        before = _records(tmp_path)
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while _records(tmp_path) < before + 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    killed = frame(tmp_path)
    assert len(killed) >= 4
    done = hptransfer(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = frame(tmp_path)
    assert len(after) > len(killed), "runs were left to do"
    kept = after.set_index("key").loc[killed.key]
    assert list(kept.finished) == list(killed.finished)
    lines = [
        json.loads(line)["key"]
        for path in sorted((tmp_path / "results" / "tiny").glob("records-*.jsonl"))
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    assert sorted(lines) == sorted(set(lines)), "no run was trained twice"


def _records(folder: Path) -> int:
    paths = (folder / "results").glob("tiny/records-*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in paths)


def test_two_runs_at_once_lose_nothing_and_one_names_the_other(suite: Path, tmp_path: Path) -> None:
    longer = ("--steps", "100")  # the first must be at work when the second looks
    arguments = [*COMMAND, "run", str(suite), *longer]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(arguments, cwd=tmp_path, **pipes)]
    while not list(tmp_path.glob("results/tiny/running-*.json")) and both[0].poll() is None:
        time.sleep(0.05)
    both.append(subprocess.Popen(arguments, cwd=tmp_path, **pipes))
    texts = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert texts[1][1].count("2 processes work on tiny") == 1
    assert hptransfer("run", suite, *longer, "--json", cwd=tmp_path).returncode == 0
    assert set(frame(tmp_path).status) == {"done"}


def test_ctrl_c_keeps_what_finished_and_exits_with_130(suite: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", str(suite), "--steps", "400"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    while _records(tmp_path) < 1 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "finished runs are safe" in errors
    assert "Traceback" not in errors
    assert len(frame(tmp_path)) >= 1
    left = [path.name for path in (tmp_path / "results" / "tiny").iterdir()]
    assert not [name for name in left if name.startswith(("claim-", "running-"))]


def test_all_lanes_diverging_is_a_result_with_advice(suite: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "wild.py"
    plugin.write_text(WILD)
    table = f'[optimizers.wild]\nuse = "{plugin}:wild"'
    suite.write_text(suite.read_text().replace("[optimizers.scion]", table))
    done = hptransfer("run", suite, "--optimizer", "wild", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(frame(tmp_path).status) == {"diverged"}
    assert "diverged" in done.stdout
    assert "Lower the range" in done.stdout, "the advice is to lower the learning rates"


def test_sqlite_holds_the_studies_and_a_database_of_another_suite_is_left_alone(
    suite: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    one = ("--optimizer", "adamw", "--storage", url)
    assert hptransfer("tune", suite, *one, cwd=tmp_path).returncode == 0
    with sqlite3.connect(tmp_path / "s.db") as database:
        [names] = zip(*database.execute("select study_name from studies"), strict=True)
    assert [name.split("/")[:2] for name in names] == [["tiny", "adamw"]]
    before = (tmp_path / "s.db").read_bytes()
    other = suite.rename(tmp_path / "other.toml")
    refused = hptransfer("tune", other, *one, cwd=tmp_path)
    assert refused.returncode == 2
    assert "tiny" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "s.db").read_bytes() == before
    assert not (tmp_path / "results" / "other").exists(), "refused before anything was trained"


def test_an_optuna_sampler_searches_further_hyperparameters(suite: Path, tmp_path: Path) -> None:
    text = suite.read_text().replace(
        'lr = "2^-8..2^-4"',
        'lr = "2^-8..2^-4"\nsampler = "tpe"\ntrials = 6\nsearch = { beta2 = "0.9..0.99" }',
    )
    suite.write_text(text)
    done = hptransfer("run", suite, "--optimizer", "adamw", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = frame(tmp_path)
    search = runs[(runs.width == 8) & (runs.seed == 0)]
    assert len(search) == 6
    assert len({spec["hp"]["beta2"] for spec in search.spec}) == 6


@pytest.mark.parametrize(("train", "noted"), [(51_200, True), (250_000, False)])
def test_runs_too_short_for_their_hidden_matrices_are_noted(
    train: int, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    note_short_runs(load("quickstart", RunOptions()), train)
    told = "note: quickstart: a run sees 51,200 tokens"
    assert capsys.readouterr().err.startswith(told) == noted


@pytest.mark.parametrize(("eps", "warned"), [("1e-8", True), ("1e-12", False)])
def test_an_eps_that_counts_at_wide_models_is_warned_of(
    eps: str, warned: bool, suite: Path, tmp_path: Path
) -> None:
    lines = f'[optimizers.adamw_mup]\nlr = "2^-9..2^-8"\nhp = {{ eps = {eps} }}\n'
    suite.write_text(f"{suite.read_text()}\n{lines}")
    done = hptransfer("plan", suite, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("warning: adamw_mup: eps does not shrink with the width" in done.stderr) == warned
