"""Names in files of other versions stay, and every output treats them as text."""

import ast
import dataclasses
import json
import math
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest

from commanded import hptransfer
from frames import make_suite, study
from hptransfer.export import Setting, to_python, to_toml
from hptransfer.records.store import Store
from hptransfer.report.write import write_report
from hptransfer.spec import RunRecord, RunSpec
from test_report import Outline

NAME = 'a" onload="alert(1)"><script> [red]\x1b[2J'
LABELS = ["=1+1", "+1+1", "@sum", "-1+1", '[/red]"""\x1b]0;x\x07', "</svg><script>", r"$\frac{$"]
DEVICE = "=cmd|' /C calc'!A1"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    expect = dict.fromkeys(LABELS[1:], "transfers")
    suite = make_suite(*LABELS, name=NAME, negative_control=LABELS[0], expect=expect)
    store = Store(root, NAME)
    store.write_manifest(suite)
    frame = study(suite, {label: lambda n: -5.0 for label in LABELS})
    losses = ("loss", "loss_init", "train_loss", "train_mean")
    for row in frame.to_dict("records"):
        env = {**row["env"], "device": DEVICE, "lanes": 1, "threads": 1}
        record = RunRecord(
            spec=RunSpec.from_json(row["spec"]),
            status=row["status"],
            **{name: row[name] for name in losses},
            curve=row["curve"],
            seconds=row["seconds"],
            flops=row["flops"],
            peak_memory=row["peak_memory"],
            env=env,
            finished=row["finished"],
        )
        store.append(record)
    return root


def test_the_report_of_foreign_names_is_well_formed(results: Path) -> None:
    page, metrics = write_report([NAME], results, None)
    outline = Outline(page.read_text())
    assert outline.open == []
    assert "<script> [red]" not in page.read_text()
    assert metrics["suites"][0]["suite"] == NAME
    assert {each["optimizer"] for each in metrics["suites"][0]["transfers"]} == set(LABELS)
    text = (results / NAME / "alignment.svg").read_text()
    root = ElementTree.fromstring(text)
    ids = {each.attrib["id"] for each in root.iter() if "id" in each.attrib}
    assert ids
    assert all(re.fullmatch(r"[\w.-]+", name, re.ASCII) for name in ids)
    assert "\x1b" not in text
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_no_cell_of_the_table_of_runs_is_a_formula_and_numbers_stay_numbers(results: Path) -> None:
    write_report([NAME], results, None)
    table = pd.read_csv(results / NAME / "runs.csv", dtype=str, keep_default_na=False)
    for column in table:
        for cell in table[column]:
            assert cell[:1] not in "=+@\t\r" or not cell
            assert cell[:1] != "-" or float(cell) < 0
    assert set(table["device"]) == {f"'{DEVICE}"}
    assert {f"'{label}" for label in LABELS[:4]} <= set(table["optimizer"])
    numbers = pd.read_csv(results / NAME / "runs.csv")
    assert numbers["log2_lr"].lt(0).all()


def test_a_command_prints_foreign_names_as_text(results: Path, tmp_path: Path) -> None:
    done = hptransfer("report", "--results", results, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {results}/{NAME}/report.html\n".replace("\x1b", r"\x1b")


def test_a_comparison_prints_foreign_names_as_text(results: Path, tmp_path: Path) -> None:
    done = hptransfer("compare", results / NAME, results, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert '[/red]"""\\x1b]0;x\\x07' in done.stdout
    found = hptransfer("compare", results, results, "--json", cwd=tmp_path)
    [suite] = json.loads(found.stdout)["suites"]
    assert {each["optimizer"] for each in suite["differences"]} == set(LABELS)


@pytest.mark.parametrize("name", ["..", "a/b", "../a", "", "..toml", "x/"])
def test_a_report_is_of_a_folder_under_results(name: str, tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text("{}")
    done = hptransfer("report", name, cwd=tmp_path)
    assert done.returncode == 2
    assert "is no suite's name" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["suite.json"]


@pytest.mark.parametrize("label", [*LABELS, '"""\nimport os\n"""', "\\", "幅"])
def test_a_label_is_no_code_of_the_exported_script(label: str) -> None:
    spec = make_suite("adamw").templates["adamw"]
    parts = ("adamw", "hptransfer.models.gpt:gpt")
    text = to_python(Setting(label, spec, *parts, {}, {"vocab": 256}, "tuned"))
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree, clean=False)
    assert docstring == f"{label} at width 32, lr 2^0: tuned."
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(imports) == 4


def test_no_value_is_code_of_the_exported_script() -> None:
    evil = "x'); import os #\n{title}"
    spec = make_suite("adamw").templates["adamw"]
    spec = dataclasses.replace(spec, hp={**spec.hp, evil: evil})
    text = to_python(Setting(evil, spec, evil, "gpt", {}, {"vocab": 256}, evil))
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert {alias.name for node in imports for alias in node.names} == {
        "torch",
        "torch.nn.functional",
        "hptransfer.optim",
    }
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert strings.count(evil) >= 4, "two in HP, and the optimizer's address twice"


@pytest.mark.parametrize("label", [*LABELS, "\\", "幅", "😀", "\x7f"])
def test_the_exported_table_holds_a_foreign_label_as_it_stands(label: str) -> None:
    spec = make_suite("adamw").templates["adamw"]
    each = Setting(label, spec, label, "gpt", {label: {"lr": math.inf}}, {"vocab": 256}, label)
    table = tomllib.loads(to_toml([each]))
    assert table[label]["source"] == table[label]["optimizer"] == label
    assert table[label]["parameters"] == {label: {"lr": math.inf}}
