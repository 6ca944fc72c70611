"""A built-in suite's name or a TOML file -> Suite; wrong input as one InputError."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hptransfer.errors import InputError, located, quoted, suggest
from hptransfer.spec import BOUNDS, COUNT, fault, fits
from hptransfer.suite.claim import MOST, OptimizerTable, Suite, Thresholds

_OURS = ("name", "templates", "bounds", "source", "changed")  # not for a suite file to say
_SUITES = "see README, section Suites"
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # of a suite, of a label
_ALLOWED = "letters a to z, digits and . _ -"
_COUNTS = ("trials", "seeds", "fresh_seeds")


def suites_folder() -> Path:
    """Where the built-in suites lie: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "suites"
    return packaged if packaged.is_dir() else package.parent / "suites"


def suite_names() -> list[str]:
    return sorted(path.stem for path in suites_folder().glob("*.toml"))


def load_suite(name: str, overrides: dict[str, Any] | None = None) -> Suite:
    """A built-in name or a path to a TOML file -> Suite. Raises InputError with the place."""
    path = Path(name)
    if path.suffix != ".toml":
        path = suites_folder() / f"{name}.toml"
        if not os.path.isfile(path):  # of a name that is too long Path.is_file raises
            known = suite_names()
            raise InputError(
                f"unknown suite {name!r}",
                suggest(name, known) or f"suites: {', '.join(known)}, or a path to a .toml file",
            )
    table = _read(name, path)
    shown = name if Path(name).suffix == ".toml" else f"suites/{path.name}"
    with located(shown):
        for key in _OURS:
            if key in table:
                raise InputError(f"{key}: not a field of a suite file", "take the line out")
        changes = overrides or {}
        _check_values({**table, **changes})
        _check_names(path.stem, table)
        told = {"changed": {key: changes[key] for key in _COUNTS if key in changes}}
        if changes.get("data", {}).get("name", "file") != "file":  # a file is known by its path
            told["changed"]["data"] = changes["data"]["name"]
        suite = parse_suite({"name": path.stem, "source": name, **table}, {**changes, **told})
        suite.resolve("")  # every part and field exists; the data are not read for that
        return suite


def _read(name: str, path: Path) -> dict[str, Any]:
    """The table in a suite's file. Raises InputError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _beside(path.parent, table)
    except FileNotFoundError:
        raise InputError(f"no suite file {name}", f"suites: {', '.join(suite_names())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{name}: {error}", "a suite is a TOML file") from None
    except RecursionError:
        raise InputError(f"{name}: brackets inside brackets without end", _SUITES) from None
    except ValueError as error:  # of Python's own: a NUL in a path, thousands of digits
        why = str(error).partition(":")[0]
        raise InputError(f"{name}: {why}", _SUITES) from None
    return table


def _beside(folder: Path, table: dict[str, Any]) -> None:
    """A plug-in file that lies beside the suite is found from anywhere."""

    def found(text: Any) -> Any:
        file, colon, attribute = str(text).rpartition(":")
        if file.endswith(".py") and not Path(file).exists() and (folder / file).is_file():
            return f"{(folder / file).resolve()}{colon}{attribute}"
        return text

    for key in ("model", "data"):
        if isinstance(table.get(key), str):
            table[key] = found(table[key])
        elif isinstance(table.get(key), dict) and "name" in table[key]:
            table[key]["name"] = found(table[key]["name"])
    optimizers = table.get("optimizers")
    for own in optimizers.values() if isinstance(optimizers, dict) else ():
        if isinstance(own, dict) and "use" in own:
            own["use"] = found(own["use"])


def _check_values(value: Any, place: str = "") -> None:
    """Raises InputError for what TOML can say and no run can be: a large integer, a NUL."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_values(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, int) and abs(value) > MOST:
        raise InputError(f"{place}: got an integer beyond {MOST}", "name a smaller one")
    elif isinstance(value, str) and "\0" in value:
        raise InputError(f"{place}: got {value!r}, with a NUL", "take the character out")


def _check_names(name: str, table: dict[str, Any]) -> None:
    """Raises InputError for a name that would need care where it is a path, an id or code."""
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise InputError(
            f"the suite's name is {name!r}, allowed: {_ALLOWED}, no dot first",
            "rename the file: it is named as the suite",
        )
    labels = table.get("optimizers")
    for label in labels if isinstance(labels, dict) else ():
        if not _NAME.fullmatch(label):
            raise InputError(
                f"optimizers: got the label {label!r}, allowed: {_ALLOWED}",
                f"for instance [optimizers.mine], with use = {label!r} where that is an optimizer",
            )


def parse_suite(table: dict[str, Any], overrides: dict[str, Any]) -> Suite:
    """A table -> Suite, wrong input as one InputError."""
    try:
        return Suite.model_validate({**table, **overrides})
    except ValidationError as error:
        # an unknown key first: where one is missing too, it is mostly the same one, misspelt
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        raise _readable(first, place) from None


def stored_suite(manifest: dict[str, Any]) -> Suite:
    """A manifest without its schema -> the resolved suite; it says itself what it was made of.

    Raises InputError, or ValueError for a number that JSON does not have.
    """
    suite = parse_suite(manifest, {})
    json.dumps(manifest, ensure_ascii=False, allow_nan=False).encode()  # texts that can be written
    if suite.templates and suite.templates.keys() != suite.optimizers.keys():
        raise InputError("templates: not those of the optimizers")
    for label, template in suite.templates.items():
        with located(f"templates.{label}"):
            _check_template(suite, label, template)
    for label, bounds in suite.bounds.items():
        if len(bounds) != 2 or not all(fits(x, BOUNDS["log2_lr"]) for x in bounds):
            raise InputError(f"bounds.{label}: got {bounds!r:.40}, needs two octaves")
        if bounds[0] > bounds[1]:
            raise InputError(f"bounds.{label}: got {bounds}, needs a rising range")
    if suite.data["name"] == "file" and type(suite.data.get("path")) is not str:
        raise InputError("data.path: not a string")
    return suite


def _check_template(suite: Suite, label: str, template: dict[str, Any]) -> None:
    """What a report reads of a run's template is there. Raises InputError."""
    if why := fault(template):
        raise InputError(why)
    for part in ("model", "data", "optimizer"):
        if "revision" not in template[part]:
            raise InputError(f"{part} without a revision")
    if suite.axis == "depth" and not fits(template["model"].get("n_layer"), COUNT):
        raise InputError("model without n_layer, the axis")
    for key in suite.optimizers[label].search:
        if type(template["hp"].get(key)) is not float:
            raise InputError(f"hp.{key}: not a number, but it is searched")


def _readable(first: Any, place: str) -> InputError:
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return InputError(f"{place}: {cause}" if place else str(cause), cause.hint)
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = Suite
        if len(first["loc"]) > 1:
            model = Thresholds if first["loc"][0] == "thresholds" else OptimizerTable
        known = [key for key in model.model_fields if key not in _OURS]
        hint = suggest(first["loc"][-1], known) or f"keys: {', '.join(known)}"
        return InputError(f"{place}: unknown key {first['loc'][-1]!r}", hint)
    if first["type"] == "missing":
        return InputError(f"{place}: missing", "every suite needs it; see hptransfer list suites")
    message = first["msg"][0].lower() + first["msg"][1:]
    return InputError(f"{place}: got {quoted(first['input'])}, {message}", _SUITES)
