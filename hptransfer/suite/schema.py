"""The JSON schema of a suite file, for editors. `python -m hptransfer.suite.schema` writes it."""

import json
from pathlib import Path
from typing import Any

from hptransfer.documents.schemas import describe
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.tables import OptimizerTable, Thresholds

PAGE = Path(__file__).parents[2] / "docs" / "suite.schema.json"  # in a checkout

_NULL = {"type": "null"}
_NAMES = ("properties", "$defs")  # tables whose keys are names, not words of the schema


def schema() -> dict[str, Any]:
    """The JSON schema: keys of a suite file, their types, defaults and descriptions."""
    root = SuiteTable.model_json_schema()
    describe(SuiteTable, root)
    for table in (OptimizerTable, Thresholds):
        describe(table, root["$defs"][table.__name__])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A suite of hptransfer",
        **_tidy(root),
    }


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """`node` without null, which TOML does not have, and without titles, which repeat the names."""
    result: dict[str, Any] = {}
    for key, value in node.items():
        match key, value:
            case ("title", _) | ("default", None) | ("additionalProperties", True):
                continue
            case "anyOf", list():
                kinds = [_tidy(kind) for kind in value if kind != _NULL]
                result |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
            case _, dict() if key in _NAMES:
                result[key] = {name: _tidy(inner) for name, inner in value.items()}
            case _, dict():
                result[key] = _tidy(value)
            case _:
                result[key] = value
    return result


def text() -> str:
    """The text of docs/suite.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
