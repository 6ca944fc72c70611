"""The JSON schema of a suite file, for editors. `python -m hptransfer.suite.schema` writes it."""

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.tables import OptimizerTable, Table, Thresholds

PAGE = Path(__file__).parents[2] / "docs" / "suite.schema.json"  # in a checkout

_NULL = {"type": "null"}
_NAMES = ("properties", "$defs")  # tables whose keys are names, not words of the schema


def schema() -> dict[str, Any]:
    """What a suite file may hold: its keys, their types, defaults and descriptions."""
    made = SuiteTable.model_json_schema()
    _describe(SuiteTable, made)
    for table in (OptimizerTable, Thresholds):
        _describe(table, made["$defs"][table.__name__])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A suite of hptransfer",
        **_tidy(made),
    }


def _describe(table: type[Table], node: dict[str, Any]) -> None:
    """Put the text under each field of a table into its schema.

    pydantic can do so too, but then every command that loads a suite waits for it.
    """
    [made] = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    assert isinstance(made, ast.ClassDef)
    for field, text in pairwise(made.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=key)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ) if key in node["properties"]:
                node["properties"][key]["description"] = " ".join(words.split())


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """Without null, which TOML does not have, and without titles, which repeat the names."""
    made: dict[str, Any] = {}
    for key, value in node.items():
        match key, value:
            case ("title", _) | ("default", None) | ("additionalProperties", True):
                continue
            case "anyOf", list():
                kinds = [_tidy(kind) for kind in value if kind != _NULL]
                made |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
            case _, dict() if key in _NAMES:
                made[key] = {name: _tidy(inner) for name, inner in value.items()}
            case _, dict():
                made[key] = _tidy(value)
            case _:
                made[key] = value
    return made


def text() -> str:
    """The schema as docs/suite.schema.json holds it."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
