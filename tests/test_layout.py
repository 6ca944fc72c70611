"""README's tree and docs/layout.md against the package, in both directions."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hptransfer"


def layers() -> list[str]:
    """Packages and top-level modules from the top layer down, by the import contract."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    [contract] = [c for c in tool["importlinter"]["contracts"] if c["type"] == "layers"]
    return [name for layer in contract["layers"] for name in re.findall(r"\w+", layer)]


def first_line(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert text, f"{module} has no docstring"
    return text.splitlines()[0]


def layout() -> str:
    """The text of docs/layout.md; `python tests/test_layout.py` writes it."""
    lines = [
        "# Layout",
        "",
        "Packages stand in the order of their layers: each imports from those below it alone.",
        "`pyproject.toml` states the layers, and `lint-imports` checks them.",
    ]
    for name in layers():
        folder = PACKAGE / name
        modules = sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]
        lines += ["", f"## `{name}{'/' if folder.is_dir() else '.py'}`", ""]
        lines += ["| module | holds |", "|---|---|"]
        for module in modules:
            lines.append(f"| `{module.relative_to(PACKAGE)}` | {first_line(module)} |")
    return "\n".join(lines) + "\n"


def test_the_contract_names_every_package_and_module() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(layers()) == there


def test_the_layout_page_names_every_module_with_its_first_line() -> None:
    page = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    assert page == layout(), "write it anew: python tests/test_layout.py"


def test_the_tree_in_readme_names_every_package_and_top_level_module_and_nothing_else() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.partition("\n## Files")[2].partition("```\n")[2].partition("```")[0]
    named = re.findall(r"^  (\w+)(?:/|\.py)\s", tree, flags=re.MULTILINE)
    assert sorted(named) == sorted(layers())


def test_no_file_of_the_package_is_above_350_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in (PACKAGE, ROOT / "tests")
        for path in folder.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long


def test_no_function_of_the_package_is_above_50_lines() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": count
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and (count := node.end_lineno - node.lineno + 1) > 50
    }
    assert not long


if __name__ == "__main__":
    (ROOT / "docs" / "layout.md").write_text(layout(), encoding="utf-8")
