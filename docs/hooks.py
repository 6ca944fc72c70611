"""What the site adds to the Markdown: generated pages, formulas, committed results, one check."""

import ast
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

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

# What a field of a suite means; pydantic knows its type, its default and its limits.
SUITE_WORDS = {
    "claim": "one falsifiable sentence; the report prints it",
    "model": "a model's name, or a table of its name and its fields",
    "data": "a data set's name, or a table of its name and its fields",
    "base": "the width at which muP's constants are taken; the proxy's on the axis `width`",
    "axis": "what grows from the proxy to the targets",
    "proxy": "the value of the axis at which the learning rate is tuned",
    "targets": "the values of the axis to which it is carried",
    "steps": "training steps of a run",
    "batch": "examples per step",
    "optimizers": "one table per optimizer, under a label of yours (below)",
    "width": "the width of every run, where the axis is another",
    "schedule": "how the learning rate goes on after the warm-up; to 0 unless `constant`",
    "warmup": "fraction of the steps over which the learning rate rises",
    "clip": "global norm to which gradients are clipped; 0 for none",
    "precision": "of forward and backward; weights stay float32",
    "micro_batch": "examples per backward pass; without it the memory estimate decides",
    "recompute": "activation checkpointing; without it the memory estimate decides",
    "eval_batches": "batches of held-out data on which the final loss is taken",
    "seeds": "search seeds for every learning rate within an octave of the best",
    "fresh_seeds": "seeds at the target that no search has seen, for the regret",
    "sampler": "`bracket`, or a sampler of Optuna such as `tpe`",
    "trials": "learning rates that a search may try",
    "ask": "trials that a sampler of Optuna proposes at once",
    "verify": "whether the optimum at the target is measured too",
    "thresholds": "limits of the verdict (below)",
    "negative_control": "label of the optimizer that must drift, or the suite shows nothing",
    "controls": "labels that must fail the coordinate check",
}
OPTIMIZER_WORDS = {
    "use": "the optimizer; without it the label names one",
    "lr": 'the start grid in powers of two, such as `"2^-11..2^-4"`; '
    "the bracket may grow it by 4 octaves at each side",
    "hp": "hyperparameters that differ from the defaults",
    "search": 'hyperparameters that the sampler searches too, such as `{ beta2 = "0.9..0.99" }`',
    "schedule": "in place of the suite's",
    "warmup": "in place of the suite's",
    "clip": "in place of the suite's",
    "sampler": "in place of the suite's",
    "trials": "in place of the suite's",
}
THRESHOLD_WORDS = {
    "tol": "nats of regret that count as nothing",
    "drift": "octaves of drift that count as nothing",
}


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


def suite_tables() -> tuple[tuple[str, Any, dict[str, str]], ...]:
    """Title, pydantic model and words of each table that a suite file may hold."""
    from hptransfer.suite.claim import OptimizerTable, Suite, Thresholds

    return (
        ("The suite", Suite, SUITE_WORDS),
        ("`[optimizers.LABEL]`", OptimizerTable, OPTIMIZER_WORDS),
        ("`[thresholds]`", Thresholds, THRESHOLD_WORDS),
    )


def suite_fields() -> str:
    """The fields of a suite file, from pydantic."""
    return "\n\n".join(
        f"## {title}\n\n" + _fields(model.model_fields, words)
        for title, model, words in suite_tables()
    )


def _fields(known: dict[str, Any], words: dict[str, str]) -> str:
    """A table of the fields that have words; their order is the model's."""
    rows = []
    for name, info in known.items():
        if name not in words:
            continue  # tests/test_docs.py says which fields a suite file may not hold
        plain = isinstance(info.default, bool | int | float | str | list)
        default = "required" if info.is_required() else f"`{_toml(info.default)}`" if plain else ""
        rows.append((f"`{name}`", _type(info.annotation) + _limits(info), default, words[name]))
    return table("field | type | default | meaning", rows)


def _type(annotation: Any) -> str:
    """A type as TOML has it; choices in full."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type(each) for each in get_args(annotation) if each is not NoneType)
    if get_origin(annotation) is list:
        return f"list of {_type(get_args(annotation)[0])}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, "table")


def _limits(info: Any) -> str:
    """The limits that pydantic checks, such as `, ≥ 1`."""
    return "".join(
        f", {sign} {getattr(limit, key):,}"
        for limit in info.metadata
        for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(limit, key, None) is not None
    )


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


GENERATED = {"commands": commands, "suite-fields": suite_fields, "parts": parts}


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
