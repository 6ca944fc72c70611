"""The name of a built-in suite or a TOML file -> SuiteTable; InputError for wrong input."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hptransfer.datasets import Unread
from hptransfer.errors import InputError, located, quoted, suggest
from hptransfer.spec import MOST
from hptransfer.suite.claim import LABEL, NAME, SuiteTable
from hptransfer.suite.resolved import resolve
from hptransfer.suite.tables import OptimizerTable, Origin, Thresholds

Parsed = TypeVar("Parsed", bound=BaseModel)

NOT_IN_A_FILE = ("name", "origin")  # fields of a suite that its file cannot set
LABORATORY = "laboratory"  # `kind` of a study of the noise laboratory
TRANSPORT = "transport"  # `kind` of a study of transport in training
STUDIES = {LABORATORY: "the noise laboratory", TRANSPORT: "transport in training"}
_SUITES = "see docs/how-to/own-suite.md"
_ALLOWED = "letters a to z, digits and . _ -"
_COUNTS = ("trials", "seeds", "max_seeds")


def suites_folder() -> Path:
    """Folder of the built-in suites: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "suites"
    return packaged if packaged.is_dir() else package.parent / "suites"


def suite_names() -> list[str]:
    """Names of the built-in suites."""
    return sorted(path.stem for path in suites_folder().glob("*.toml"))


def study_names() -> list[str]:
    """Names of the built-in studies."""
    return sorted(path.stem for kind in STUDIES for path in (suites_folder() / kind).glob("*.toml"))


def load_suite(name: str, overrides: dict[str, Any] | None = None) -> SuiteTable:
    """A built-in name or a path to a TOML file -> SuiteTable. Raises InputError.

    `overrides`: fields from the command line, in place of those of the file.
    """
    table, path, place = read_table(name)
    if table.get("kind") in STUDIES:
        raise InputError(
            f"{place} is a study of {STUDIES[table['kind']]}, not a suite of training runs",
            "run, plan and report take it",
        )
    with located(place):
        for key in NOT_IN_A_FILE:
            if key in table:
                raise InputError(f"{key}: not a field of a suite file", "take the line out")
        changes = overrides or {}
        _check_values({**table, **changes})
        check_names(path.stem, table)
        suite = parse_suite(
            {"name": path.stem, **table}, {**changes, "origin": _origin(name, changes)}
        )
        if suite.expect and not suite.targets:
            raise InputError(
                "expect: a verdict needs a target, the suite has none",
                f"for instance targets = [{4 * suite.proxy}]",
            )
        resolve(suite, Unread())  # checks every part and field without the data
        return suite


def read_table(name: str) -> tuple[dict[str, Any], Path, str]:
    """A built-in name or a path to a TOML file -> its table, its path, its name in messages.

    Raises InputError.
    """
    path = Path(name)
    if path.suffix != ".toml":
        folder = suites_folder()
        path = folder / f"{name}.toml"
        if name in study_names():
            [path] = folder.glob(f"*/{name}.toml")
        elif not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            names = [*suite_names(), *study_names()]
            raise InputError(
                f"unknown suite {name!r}",
                suggest(name, names) or f"suites: {', '.join(names)}, or a path to a .toml file",
            )
    place = name if Path(name).suffix == ".toml" else f"suites/{path.relative_to(suites_folder())}"
    return _read(name, path), path, place


def _origin(source: str, changes: dict[str, Any]) -> Origin:
    """The origin of a suite: its source, and the changes that a command must repeat."""
    changed = {key: changes[key] for key in _COUNTS if key in changes}
    if changes.get("data", {}).get("name", "file") != "file":  # no name identifies a file
        changed["data"] = changes["data"]["name"]
    return Origin(source, changed)


def _read(name: str, path: Path) -> dict[str, Any]:
    """The table in a suite's file. Raises InputError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        _beside(path.parent, table)
    except FileNotFoundError:
        raise InputError(f"no suite file {name}", f"suites: {', '.join(suite_names())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{name}: {error}", "a suite is a TOML file") from None
    except RecursionError:
        raise InputError(f"{name}: too many nested brackets", _SUITES) from None
    except ValueError as error:  # a NUL in a path, an integer of thousands of digits
        why = str(error).partition(":")[0]
        raise InputError(f"{name}: {why}", _SUITES) from None
    return table


def _beside(folder: Path, table: dict[str, Any]) -> None:
    """Make the path of a plug-in file beside the suite absolute, so that it works in any folder."""

    def absolute(text: Any) -> Any:
        file, colon, attribute = str(text).rpartition(":")
        if file.endswith(".py") and not Path(file).exists() and (folder / file).is_file():
            return f"{(folder / file).resolve()}{colon}{attribute}"
        return text

    for key in ("model", "data"):
        if isinstance(table.get(key), str):
            table[key] = absolute(table[key])
        elif isinstance(table.get(key), dict) and "name" in table[key]:
            table[key]["name"] = absolute(table[key]["name"])
    optimizers = table.get("optimizers")
    for own in optimizers.values() if isinstance(optimizers, dict) else ():
        for key in ("use", "build") if isinstance(own, dict) else ():
            if key in own:
                own[key] = absolute(own[key])


def _check_values(value: Any, place: str = "") -> None:
    """Raises InputError for values that no run can have: a very large integer, a NUL."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_values(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, int) and abs(value) > MOST:
        raise InputError(f"{place}: got an integer beyond {MOST}", "name a smaller one")
    elif isinstance(value, str) and "\0" in value:
        raise InputError(f"{place}: got {value!r}, with a NUL", "take the character out")


def check_names(name: str, table: dict[str, Any]) -> None:
    """Raises InputError for a name that is not safe in a path, an XML id or code."""
    if not re.fullmatch(NAME, name) or name.startswith("."):
        raise InputError(
            f"the suite's name is {name!r}, allowed: {_ALLOWED}, no dot first",
            "rename the file: the suite has its name",
        )
    labels = table.get("optimizers")
    for label in labels if isinstance(labels, dict) else ():
        if not re.fullmatch(LABEL, label):
            raise InputError(
                f"optimizers: got the label {label!r}, allowed: {_ALLOWED}, "
                "with a letter or a digit first",
                f"for instance [optimizers.mine], with use = {label!r} where that is an optimizer",
            )


def parse_suite(table: dict[str, Any], overrides: dict[str, Any]) -> SuiteTable:
    """A table -> SuiteTable. Raises InputError for the first fault."""
    return checked(SuiteTable, {**table, **overrides})


def checked(kind: type[Parsed], values: dict[str, Any]) -> Parsed:
    """Values -> a table of this kind. Raises InputError for the first fault."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # An unknown key comes first: it is mostly a misspelling of the key that is missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        raise _readable(first, place) from None


def _readable(first: Any, place: str) -> InputError:
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        words = f"{place}: {cause}" if place else str(cause)
        return InputError(words, cause.hint, cures=cause.cures)
    if place == "fresh_seeds":
        return InputError(
            "fresh_seeds: no key of a suite any more: the seeds near an optimum judge it too",
            "write seeds = 3 and max_seeds = 8 in its place",
        )
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = SuiteTable
        if len(first["loc"]) > 1:
            model = Thresholds if first["loc"][0] == "thresholds" else OptimizerTable
        keys = [key for key in model.model_fields if key not in NOT_IN_A_FILE]
        hint = suggest(first["loc"][-1], keys) or f"keys: {', '.join(keys)}"
        return InputError(f"{place}: unknown key {first['loc'][-1]!r}", hint)
    if first["type"] == "missing":
        return InputError(f"{place}: missing", "every suite needs it; see hptransfer list suites")
    message = first["msg"][0].lower() + first["msg"][1:]
    return InputError(f"{place}: got {quoted(first['input'])}, {message}", _SUITES)
