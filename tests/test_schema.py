"""The JSON schema of a suite file against the loader."""

import json
import re
import tomllib
from typing import Any

import pytest

from hptransfer.errors import InputError
from hptransfer.suite.file import parse_suite, suite_names, suites_folder
from hptransfer.suite.schema import PAGE, schema, text

TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
TYPES["number"] = (int, float)
MINE: dict[str, Any] = {
    "name": "x",
    "claim": "c",
    "model": "gpt",
    "data": {"name": "python_source"},
    "proxy": 32,
    "steps": 10,
    "batch": 1,
    "optimizers": {"a": {"use": "adamw", "lr": "2^-9..2^-4", "search": {"beta1": "0.8..0.95"}}},
}


def fits(value: Any, node: dict[str, Any]) -> bool:
    """Whether a value follows a schema, for the keywords of our schema."""
    root = schema()
    if "$ref" in node:
        return fits(value, root["$defs"][node["$ref"].rpartition("/")[2]])
    if "anyOf" in node:
        return any(fits(value, kind) for kind in node["anyOf"])
    kind = TYPES[node["type"]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if isinstance(value, dict):
        own, more = node.get("properties", {}), node.get("additionalProperties", {})
        labels = node.get("propertyNames", {}).get("pattern", "")
        return (
            set(node.get("required", ())) <= value.keys()
            and len(value) >= node.get("minProperties", 0)
            and all(re.search(labels, key) for key in value)
            and (more is not False or value.keys() <= own.keys())
            and all(fits(v, own.get(k, more)) for k, v in value.items() if own.get(k, more))
        )
    if isinstance(value, list):
        return all(fits(each, node["items"]) for each in value)
    if isinstance(value, str):
        return bool(re.search(node.get("pattern", ""), value)) and value in node.get(
            "enum", [value]
        )
    low, high = node.get("minimum", value), node.get("maximum", value)
    return low <= value <= high and value > node.get("exclusiveMinimum", value - 1)


def test_the_page_holds_the_schema_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == text(), "write it anew: python -m hptransfer.suite.schema"


@pytest.mark.parametrize("name", suite_names())
def test_every_built_in_suite_follows_the_schema(name: str) -> None:
    table = tomllib.loads((suites_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    assert fits(table, schema())


def test_every_key_has_a_description() -> None:
    tables = [schema(), *schema()["$defs"].values()]
    keys = {key: node for table in tables for key, node in table["properties"].items()}
    assert [key for key, node in keys.items() if not node.get("description")] == []
    assert not {"name", "origin", "templates", "bounds"} & keys.keys()
    assert "null" not in text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stepps", 3),
        ("steps", 0),
        ("steps", "3"),
        ("warmup", 1.5),
        ("axis", "height"),
        ("base", {"widht": 8}),
        ("model", {"context": 16}),
        ("thresholds", {"tol": 0}),
        ("optimizers", {}),
        ("optimizers", {"a": {}}),
        ("optimizers", {"a": {"lr": "0.1..0.2"}}),
        ("optimizers", {"a": {"lr": "2^-9..2^-4", "search": {"beta1": "0.8"}}}),
    ],
)
def test_the_schema_and_the_loader_refuse_the_same(key: str, value: object) -> None:
    file = {name: own for name, own in MINE.items() if name != "name"}
    assert fits(file, schema())
    parse_suite(MINE, {})
    assert not fits({**file, key: value}, schema())
    with pytest.raises(InputError):
        parse_suite({**MINE, key: value}, {})


def test_the_schema_is_plain_json() -> None:
    assert json.loads(text()) == schema()
