"""The JSON schemas of the documents. `python -m hptransfer.documents.schemas` writes them."""

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hptransfer.documents import (
    analysis,
    answers,
    batches,
    comparison,
    exponents,
    metrics,
    tails,
    transport,
    values,
)

FOLDER = Path(__file__).parents[2] / "docs"  # in a checkout

DOCUMENTS: dict[str, type] = {
    "analysis": analysis.Analysis,
    "metrics": metrics.Metrics,
    "check": answers.Check,
    "compare": comparison.Comparison,
    "coords": answers.Coordinates,
    "exponents": exponents.Exponents,
    "list": answers.Names,
    "tails": tails.Tails,
    "transport": transport.Transport,
    "validate": answers.Validation,
}
"""Name of a document -> its shape; the schema lies in docs/NAME.schema.json."""

MODULES = (values, metrics, batches, answers, comparison, exponents, tails, transport, analysis)


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a document. Raises KeyError for an unknown name."""
    root = TypeAdapter(DOCUMENTS[name]).json_schema(mode="serialization")
    kinds = {k: v for module in MODULES for k, v in vars(module).items()}
    for kind, node in {DOCUMENTS[name].__name__: root, **root.get("$defs", {})}.items():
        describe(kinds[kind], node)
        node["additionalProperties"] = False
        node["required"] = list(node["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"hptransfer: {name}",
        **_tidy(root),
    }


def describe(kind: type, node: dict[str, Any]) -> None:
    """Put the text of a class and that under each of its fields into its schema.

    pydantic can do so too, but every command that loads a suite would wait for it, and older
    versions leave out the text of a class.
    """
    own = {k: v for k, v in node.items() if k != "description"}
    node.clear()
    node.update(description=inspect.getdoc(kind), **own)
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for field, text in pairwise(tree.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=key)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ) if key in node["properties"]:
                node["properties"][key]["description"] = " ".join(words.split())


def _tidy(node: Any) -> Any:
    """A schema without titles, which repeat the names, and defaults: every key is written."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):  # tables whose keys are names, `title` for instance
            made[key] = {name: _tidy(inner) for name, inner in value.items()}
        elif key not in ("title", "default"):
            made[key] = _tidy(value)
    return made


def text(name: str) -> str:
    """The text of docs/NAME.schema.json."""
    return json.dumps(schema(name), indent=2) + "\n"


if __name__ == "__main__":
    for each in DOCUMENTS:
        (FOLDER / f"{each}.schema.json").write_text(text(each), encoding="utf-8")
