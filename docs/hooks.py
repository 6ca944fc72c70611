"""What the site adds to the Markdown: generated pages, formulas, committed results, one check."""

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent
RESULTS = "results/reference"
PUBLIC = (
    "hptransfer",
    "hptransfer.optim",
    "hptransfer.testing",
    "hptransfer.export",
    "hptransfer.spec",
    "hptransfer.geometry.norms",
    "hptransfer.optimizers.rules",
    "hptransfer.datasets",
)


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: str, rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; `head`: names of the columns, with bars between them."""
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


def commands() -> str:
    """Every command with its arguments and options, from the Typer app."""
    import typer

    from hptransfer.cli import app

    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        rows = []
        for parameter in command.params:
            shown = ", ".join(parameter.opts)
            is_option = parameter.param_type_name == "option"
            default = parameter.default
            known = default not in (None, False, ()) and not callable(default)
            rows.append(
                (
                    f"`{shown}`" if is_option else f"`{parameter.name.upper()}`",
                    f"`{default}`" if known else "",
                    (parameter.help or "").removesuffix("."),
                )
            )
        said = " ".join((command.help or "").split())
        parts.append(
            f"## hptransfer {name}\n\n{said}\n\n" + table("argument | default | meaning", rows)
        )
    return "\n\n".join(parts)


def suite_fields() -> str:
    """The fields of a suite file, from the JSON schema that pydantic makes."""
    from hptransfer.suite.schema import schema

    whole = schema()
    inner = whole["$defs"]
    return "\n\n".join(
        (
            "## The suite\n\n" + _fields(whole),
            "## `[optimizers.LABEL]`\n\n" + _fields(inner["OptimizerTable"]),
            "## `[thresholds]`\n\n" + _fields(inner["Thresholds"]),
        )
    )


def _fields(node: dict[str, Any]) -> str:
    rows = []
    for name, field in node["properties"].items():
        default = "required" if name in node.get("required", ()) else ""
        if field.get("default") not in (None, "", {}):
            default = f"`{json.dumps(field['default'])}`"
        rows.append((f"`{name}`", _type(field), default, field["description"]))
    return table("field | type | default | meaning", rows)


def _type(field: dict[str, Any]) -> str:
    """A type as TOML has it, with its limits; choices in full."""
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    names = {"object": "table", "array": "list", "boolean": "true or false"}
    kind = field.get("type", "object")
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    known = [f"{sign} {field[key]:,}" for key, sign in limits.items() if key in field]
    return ", ".join([names.get(kind, kind), *known])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def parts() -> str:
    """Every built-in optimizer, model and data set with its fields, read without an import."""
    from hptransfer import registry

    found = []
    kinds = {"Optimizers": "optimizer", "Models": "model", "Data sets": "dataset"}
    for title, kind in kinds.items():
        found.append(f"## {title}")
        for name in registry.BUILTINS[kind]:
            part = registry.describe(kind, name)
            rows = []
            for key, default in part.defaults.items():
                allowed = ", ".join(f"`{choice}`" for choice in part.choices.get(key, ()))
                if key in part.limits:
                    low, high = part.limits[key]
                    allowed = f"{low:g} to {high:g}"
                rows.append((f"`{key}`", f"`{_toml(default)}`", allowed))
            fields = "\n\n" + table("field | default | allowed", rows) if rows else ""
            found.append(f"### {name}\n\n{part.summary}{fields}")
    return "\n\n".join(found)


def documents() -> str:
    """Every object of the JSON documents with its keys, from their schemas."""
    from hptransfer.documents.schemas import DOCUMENTS, schema

    roots = {name: schema(name) for name in DOCUMENTS}
    found = [f"## {name}\n\n{root['description']}\n\n{_keys(root)}" for name, root in roots.items()]
    inner = {kind: node for root in roots.values() for kind, node in root.get("$defs", {}).items()}
    for kind, node in inner.items():
        found.append(f"## {kind}\n\n{node['description']}\n\n{_keys(node)}")
    return "\n\n".join(found)


def _keys(node: dict[str, Any]) -> str:
    rows = [(f"`{k}`", _shape(v), v["description"]) for k, v in node["properties"].items()]
    return table("key | type | meaning", rows)


def _shape(node: dict[str, Any]) -> str:
    """A type in words; an object of another table as a link to it."""
    if "$ref" in node:
        kind = node["$ref"].rpartition("/")[2]
        return f"[{kind}](#{kind.lower()})"
    if "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node["enum"])
    if "anyOf" in node:
        return " or ".join(_shape(each) for each in node["anyOf"])
    if node["type"] == "array":
        return f"list of {_shape(node['items'])}"
    return str(node["type"])


GENERATED = {
    "commands": commands,
    "suite-fields": suite_fields,
    "parts": parts,
    "documents": documents,
}


def declared(module: str) -> list[str]:
    """The names in a module's `__all__`, read without an import. Raises ValueError for none."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{module} has no __all__")


def without_page(pages: str) -> list[str]:
    """Public names that no page has an entry for; `pages`: the HTML of all of them."""
    entries = set(re.findall(r'id="([\w.]+)"', pages))
    public = {f"{module}.{name}" for module in PUBLIC for name in declared(module)}
    return sorted(public - entries)


def mathml(html: str) -> str:
    """Formulas of a page as MathML, which a browser shows without a script."""
    from latex2mathml.converter import convert

    def made(match: re.Match[str]) -> str:
        import html as escapes

        tex = escapes.unescape(match[2])
        return convert(tex, display="block" if match[1] == "[" else "inline")

    tagged = r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>'
    return re.sub(tagged, made, html, flags=re.DOTALL)


def on_files(files: "Files", *, config: "MkDocsConfig") -> "Files":
    """Committed results that pages show or link to lie outside the docs folder."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / RESULTS).rglob("*")):
        if path.suffix in (".svg", ".md", ".html", ".csv"):
            name = str(path.relative_to(ROOT))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Generated tables take the place of their markers; links to results stay inside the site."""
    for name, make in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return re.sub(rf"\]\(\.\./((?:\.\./)*{RESULTS}/)", r"](\1", markdown)


def on_page_content(html: str, **_: object) -> str:
    return mathml(html)


def on_post_build(*, config: "MkDocsConfig") -> None:
    """Fail where a public name has no entry on any page."""
    from mkdocs.exceptions import PluginError

    built = Path(config.site_dir).rglob("*.html")
    if missing := without_page("\n".join(path.read_text(encoding="utf-8") for path in built)):
        raise PluginError(f"public names without a page: {', '.join(missing)}")
