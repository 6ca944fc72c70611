"""Every JSON that a command writes or prints, against its published schema."""

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from commanded import hptransfer
from frames import CENTERS, make_suite, study, to_frame
from hptransfer.documents import answers, comparison, metrics, values
from hptransfer.documents.schemas import DOCUMENTS, FOLDER, schema, text
from hptransfer.report import Section, metrics_json
from kept import SUITE, kept

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def published(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text("utf-8"))
    return loaded


def follows(document: Any, name: str) -> None:
    """Fails where the document does not follow the published schema, or holds NaN or infinity."""
    json.dumps(document, allow_nan=False)
    validator = jsonschema.Draft202012Validator(published(name))
    faults = [f"{each.json_path}: {each.message}" for each in validator.iter_errors(document)]
    assert faults == []


def strict(printed: str) -> Any:
    """What a JSON text holds. NaN and infinity, which Python would read, are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in JSON")

    return json.loads(printed, parse_constant=refuse)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schema_is_that_of_the_code(name: str) -> None:
    page = (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")
    assert page == text(name), "write it anew: python -m hptransfer.documents.schemas"
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_key_of_a_schema_has_a_description_and_no_other_key_is_allowed(name: str) -> None:
    root = schema(name)
    for node in (root, *root.get("$defs", {}).values()):
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])
        assert [key for key, own in node["properties"].items() if not own.get("description")] == []


def test_one_name_is_one_shape_in_all_schemas() -> None:
    known: dict[str, Any] = {}
    for name in DOCUMENTS:
        for kind, node in schema(name).get("$defs", {}).items():
            assert known.setdefault(kind, node) == node


def test_an_interval_and_an_optimum_are_always_the_same_object() -> None:
    """Fields whose names say an interval or an optimum have that shape in every class."""
    modules = (values, metrics, answers, comparison)
    kinds = {k for m in modules for k in vars(m).values() if isinstance(k, type)}
    named = {
        (each.name, str(each.type)) for kind in kinds if is_dataclass(kind) for each in fields(kind)
    }
    for key in ("drift", "regret", "exponent", "difference", "log2_lr_star"):
        of_key = {kind for name, kind in named if name == key}
        assert {kind for kind in of_key if "float" not in kind} == {str(values.Interval)}
        assert of_key - {str(values.Interval), str(float)} == set()
    optima = {kind for name, kind in named if name.startswith("optimum")}
    assert optima == {str(values.Optimum | None)}


def test_a_wrong_document_does_not_follow_the_schema() -> None:
    suite = make_suite("muon")
    made = metrics_json([Section(suite, study(suite, {"muon": CENTERS["muon"]}))])
    follows(made, "metrics")
    for change in ({"schema": "2"}, {"more": 1}, {"suites": [{}]}):
        with pytest.raises(AssertionError):
            follows({**made, **change}, "metrics")
    made["suites"][0]["transfers"][0]["regret"] = 0.1
    with pytest.raises(AssertionError, match="regret"):
        follows(made, "metrics")


@pytest.mark.parametrize("runs", ["all", "none", "proxy", "diverged", "carried", "one seed"])
def test_metrics_follow_their_schema_whatever_is_there(runs: str) -> None:
    expect = {"adamw": "drifts", "muon": "transfers"}
    suite = make_suite(expect=expect, negative_control="adamw", targets=[64, 128])
    frame = study(suite, CENTERS, verify=runs != "carried", seeds=1 if runs == "one seed" else 3)
    if runs == "none":
        frame = to_frame([])
    elif runs == "proxy":
        frame = frame[frame["width"] == 32]
    elif runs == "diverged":
        frame[["status", "loss"]] = ["diverged", np.inf]
    follows(metrics_json([Section(suite, frame)]), "metrics")


def test_the_committed_metrics_follow_their_schema() -> None:
    paths = sorted(REFERENCE.rglob("metrics.json"))
    assert len(paths) >= 9
    for path in paths:
        follows(strict(path.read_text(encoding="utf-8")), "metrics")


def test_the_committed_tails_follow_their_schema() -> None:
    paths = sorted(REFERENCE.rglob("tails.json"))
    assert paths
    for path in paths:
        follows(strict(path.read_text(encoding="utf-8")), "tails")


def test_numbers_that_json_lacks_become_null_at_any_depth() -> None:
    @dataclass(frozen=True)
    class Inner:
        x: float

    made = values.plain({"a": [Inner(math.nan), (np.float64("inf"), np.int64(3))], "b": {"c": 1.5}})
    assert made == {"a": [{"x": None}, [None, 3]], "b": {"c": 1.5}}
    assert type(made["a"][1][1]) is int


def printed(folder: Path, *words: object) -> Any:
    done = hptransfer(*words, "--json", cwd=folder)
    assert done.returncode in (0, 1, 3), done.stderr
    return strict(done.stdout)


def test_what_commands_print_follows_the_schemas(suite: Path, tmp_path: Path) -> None:
    follows(printed(tmp_path, "list"), "list")
    follows(printed(tmp_path, "list", "models"), "list")
    follows(printed(tmp_path, "validate", "scion"), "validate")
    quick = ("--steps", 5, "--seeds", 1, "--quiet")
    follows(printed(tmp_path, "coords", suite, *quick, "--width", 8, "--width", 16), "coords")
    follows(strict((tmp_path / "results/tiny/coords.json").read_text()), "coords")
    for command in (("tune", suite), ("transfer", suite), ("run", suite), ("report",)):
        follows(printed(tmp_path, *command), "metrics")
    follows(strict((tmp_path / "results/tiny/metrics.json").read_text()), "metrics")


def test_what_check_and_compare_print_follows_their_schemas(tmp_path: Path) -> None:
    limits = ("--max-regret", 0.02, "--max-drift", 0.5)
    kept(tmp_path)
    follows(printed(tmp_path, "check", "mine.toml"), "check")
    follows(printed(tmp_path, "check", "mine.toml", *limits), "check")
    follows(printed(tmp_path, "compare", "results", "results"), "compare")
    two = (REFERENCE / "quickstart", tmp_path / "results" / "mine")
    follows(printed(tmp_path, "compare", *two), "compare")
    (tmp_path / "mine.toml").write_text(SUITE.replace("steps = 100", "steps = 99"))
    follows(printed(tmp_path, "check", "mine.toml", *limits), "check")
