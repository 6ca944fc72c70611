"""The page on other people's optimizers: its examples work, its tables are those measured."""

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from hptransfer.suite.parts import describe
from hptransfer.suite.tables import OptimizerTable
from hptransfer.testing import validate

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
[BUILD] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    path = ROOT / "tests" / "benchmarks" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_measured_file(zoo: ModuleType) -> None:
    results = json.loads(zoo.MEASURED.read_text())
    assert set(results) == set(zoo.PACKAGES)
    assert zoo.written(PAGE, results) == PAGE
    rows = [row for package in results.values() for row in package["classes"].values()]
    assert all(row["holds"] == (row["why"] == "") for row in rows)
    assert sum(row["holds"] for row in rows) > len(rows) / 2


def test_the_measured_file_counts_the_classes_of_the_installed_packages(zoo: ModuleType) -> None:
    results = json.loads(zoo.MEASURED.read_text())
    for package in ("torch.optim", "pytorch_optimizer"):
        names = zoo.optimizers(package)
        assert results[package]["known"] == len(names)
        assert set(results[package]["classes"]) <= set(names)


@pytest.mark.parametrize("name", ["sam", "muon"])
def test_the_functions_of_the_page_keep_their_contract(name: str, tmp_path: Path) -> None:
    (tmp_path / "my_build.py").write_text(BUILD)
    assert [c for c in validate(f"{tmp_path}/my_build.py:{name}") if not c.passed] == []


def test_the_tables_of_the_page_are_tables_of_a_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_build.py").write_text(BUILD)
    monkeypatch.chdir(tmp_path)
    labels = []
    for text in TABLES:
        for label, table in tomllib.loads(text)["optimizers"].items():
            own = OptimizerTable.model_validate(table)
            labels.append(label)
            if label != "prodigy":  # a package that the tests do without
                part = describe(label, own)
                part.resolve(own.hp, "hp")
    assert labels == ["prodigy", "muon", "sam"]


def test_what_a_class_says_stands_in_the_table_without_a_path(zoo: ModuleType) -> None:
    text = (
        "optimizer 'X': a step failed at /a/b/site-packages/pkg/mod.py:12: KeyError: 'x' "
        "(docs/zoo.md says which kinds of optimizer cannot run, and why)"
    )
    assert zoo.told(text) == "a step failed in pkg/mod.py: KeyError: 'x'"
