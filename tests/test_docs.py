"""The docs are complete: public names, commands, fields, links; they name the project alone."""

import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hptransfer
from hptransfer.documents.schemas import DOCUMENTS, schema
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import load_suite
from hptransfer.suite.tables import OptimizerTable, Thresholds

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
RESULTS = ROOT / "results" / "reference"


def load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = load_hooks()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", HOOKS.PUBLIC)
def test_what_a_public_module_declares_is_there_and_has_a_docstring(module: str) -> None:
    declared = HOOKS.declared(module)
    assert len(declared) == len(set(declared)) > 0
    loaded = importlib.import_module(module)
    for symbol in declared:
        value = getattr(loaded, symbol)
        if callable(value) and getattr(value, "__module__", "") == module:
            assert value.__doc__, symbol


def test_every_public_module_has_a_page() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").rglob("*"
    ) if path.suffix == ".md")  # fmt: skip
    shown = re.findall(r"^::: (\S+)$", pages, flags=re.MULTILINE)
    assert sorted(shown) == sorted(HOOKS.PUBLIC)


def test_a_public_name_without_an_entry_is_named() -> None:
    entries = [f"{m}.{symbol}" for m in HOOKS.PUBLIC for symbol in HOOKS.declared(m)]
    pages = " ".join(f'<h2 id="{entry}">' for entry in entries)
    assert HOOKS.without_page(pages) == []
    less = pages.replace('"hptransfer.optim.scheduler"', '"scheduler"')
    assert HOOKS.without_page(less) == ["hptransfer.optim.scheduler"]


def test_the_page_of_commands_has_every_command_and_every_option() -> None:
    text = HOOKS.commands()
    assert "## hptransfer list\n" in text
    assert "| `--dry-run` |" in text
    assert "| `--yes, -y` |" in text
    assert "| `SUITE` | `gpt_small` | A built-in suite or a path to a .toml file |" in text


def test_the_page_of_suite_fields_has_every_field_of_a_suite_file_with_its_meaning() -> None:
    lines = [line for line in HOOKS.suite_fields().splitlines() if line.startswith("| `")]
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    tables = (SuiteTable, OptimizerTable, Thresholds)
    held = [field for table in tables for field in table.model_fields]
    assert [row[0].strip("`") for row in rows] == [f for f in held if f not in ("name", "origin")]
    assert all(row[3] for row in rows)
    assert ["`proxy`", "integer, ≥ 1, ≤ 9,007,199,254,740,992", "required"] in [
        row[:3] for row in rows
    ]
    choices = ["`schedule`", "`linear`, `constant`, `cosine`", '`"linear"`']
    assert choices in [row[:3] for row in rows]


def test_the_page_of_parts_has_every_field_with_its_default() -> None:
    text = HOOKS.parts()
    assert "### transported_scion" in text
    assert '| `transport_schedule` | `"decay"` | `constant`, `decay` |' in text


def test_a_formula_becomes_mathml() -> None:
    html = r'<p><span class="arithmatex">\(d &lt; \sqrt{n}\)</span></p>'
    made = HOOKS.mathml(html) if importlib.util.find_spec("latex2mathml") else None
    if made is None:
        pytest.skip("needs the extra docs")
    assert "<msqrt>" in made
    assert "arithmatex" not in made


def test_the_page_of_json_has_every_document_and_every_key_with_its_meaning() -> None:
    text = HOOKS.documents()
    for name in DOCUMENTS:
        assert f"\n## {name}\n" in f"\n{text}"
        root = schema(name)
        for node in (root, *root.get("$defs", {}).values()):
            for key, field in node["properties"].items():
                assert f"| `{key}` | " in text
                assert HOOKS.cell(field["description"]) in text
    assert "| `regret` | [Interval](#interval) |" in text
    page = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    assert all(f"(../{name}.schema.json)" in page for name in DOCUMENTS)


def test_the_page_of_records_names_every_field_that_committed_results_hold() -> None:
    page = (DOCS / "reference" / "records.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    for path in RESULTS.glob("*/runs.csv"):
        header = path.read_text().partition("\n")[0]
        assert set(header.split(",")) <= named, path
    for path in RESULTS.glob("*/records-*.jsonl"):
        record = json.loads(path.read_text().partition("\n")[0])
        fields = {*record, *record["spec"], *record["env"], *record["probes"]}
        assert fields <= named, path


@pytest.mark.parametrize("path", READ, ids=name)
def test_a_link_to_a_file_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target


def headings(path: Path) -> set[str]:
    lines = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("path", READ, ids=name)
def test_a_link_to_a_heading_leads_to_one(path: Path) -> None:
    for target, heading in re.findall(r"\]\(([\w./-]*\.md)#([\w-]+)\)", path.read_text("utf-8")):
        assert heading in headings(path.parent / target), f"{target}#{heading}"


@pytest.mark.parametrize("path", READ, ids=name)
def test_docs_name_no_path_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.:/])/(?:home|work|tmp|root|Users)/", text)


def test_every_page_stands_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"([\w/-]+\.md)$", config.partition("\nnav:")[2], flags=re.MULTILINE))
    pages = {str(path.relative_to(DOCS)) for path in PAGES}
    results = {str(path.relative_to(ROOT)) for path in RESULTS.rglob("*.md")}
    assert listed == pages | results


COMMANDS = [
    (page.name, line.partition("#")[0].strip())
    for page in READ
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("hptransfer ")
]


def test_every_option_in_the_docs_is_one_of_its_command() -> None:
    import typer

    from hptransfer.cli import app

    known: Any = typer.main.get_command(app)
    assert len(COMMANDS) > 20
    for page, line in COMMANDS:
        _, command, *words = shlex.split(line)
        options = {option for p in known.commands[command].params for option in p.opts}
        used = {word for word in words if word.startswith("-")}
        assert used <= options, f"{page}: {line}"


def test_the_suite_in_the_docs_is_a_suite(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "own-suite.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```toml\n(claim.*?)```", page, re.DOTALL)
    path = tmp_path / "my_suite.toml"
    path.write_text(text, encoding="utf-8")
    suite = load_suite(str(path))
    assert list(suite.optimizers) == ["adamw", "scion_sign", "adamw_tpe"]


def test_version_and_changelog_agree() -> None:
    newest = re.search(r"^## (\S+) - ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == hptransfer.__version__
    assert f"version: {newest[1]}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "hptransfer" / "py.typed").is_file()
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["hptransfer"]


def test_ci_builds_the_docs_in_strict_mode() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert re.search(r'^"\$bin/mkdocs" build --strict', text, flags=re.MULTILINE)
