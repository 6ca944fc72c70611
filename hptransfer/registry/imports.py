"""The import of a part from its module or its file; what fails there is wrong input."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from hptransfer.errors import InputError, broken


def loaded(kind: str, name: str, where: str) -> object:
    """The value of `module:name` or `file.py:name`.

    Raises InputError where the import fails, and names a package that it lacks.
    """
    place, _, attribute = where.rpartition(":")
    module = imported(kind, name, place)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        if module.__name__.startswith(_PREFIX):
            sys.modules.pop(module.__name__, None)
        raise broken(f"{kind} {name!r}: importing it failed", error, _again(place)) from None


def imported(kind: str, name: str, place: str) -> ModuleType:
    """The module of a part, `place` a name or a file. Raises InputError where the import fails."""
    what = f"{kind} {name!r}: importing it failed"
    try:
        return _module(place)
    except ModuleNotFoundError as error:
        if error.name and error.name != place:
            raise lacking(f"{kind} {name!r}", error.name) from None
        raise broken(what, error, _again(place)) from None
    except (Exception, SystemExit) as error:
        raise broken(what, error, _again(place)) from None


def lacking(what: str, module: str) -> InputError:
    """The InputError for a part that imports a module which is not there."""
    return InputError(
        f"{what}: it needs the module {module!r}, which is not installed here",
        "install the package that holds it, beside hptransfer",
    )


_PREFIX = "hptransfer_plugin_"


def _again(place: str) -> str:
    line = f"python {place}" if place.endswith(".py") else f"python -c 'import {place}'"
    return f"{line} shows the same"


def _module(place: str) -> ModuleType:
    """Import a module, or a file under a name that changes with its content."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    content = Path(place).read_bytes()
    unique = _PREFIX + hashlib.sha256(place.encode() + content).hexdigest()[:12]
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, place)
    assert spec is not None and spec.loader is not None
    plugin = importlib.util.module_from_spec(spec)
    sys.modules[unique] = plugin
    folder = str(Path(place).parent)
    if folder not in sys.path:
        sys.path.append(folder)  # a plug-in may import its neighbours
    try:
        spec.loader.exec_module(plugin)
    except BaseException:
        sys.modules.pop(unique, None)  # a later import would return the half module
        raise
    return plugin
