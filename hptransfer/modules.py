"""Where the source of a module lies, found without an import of it or of a package around it."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path


def source_of(name: str) -> Path | None:
    """`package.module` -> its source file, None where there is none.

    A package that says only as it is imported where its modules lie hides them.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    found: ModuleSpec | None = None
    for depth in range(1, len(parts) + 1):
        folders = None if found is None else found.submodule_search_locations
        if depth > 1 and folders is None:
            return None
        found = _found(".".join(parts[:depth]), folders)
        if found is None:
            return None
    if found is None or not found.has_location or found.origin is None:
        return None
    return Path(found.origin)


def _found(name: str, folders: Iterable[str] | None) -> ModuleSpec | None:
    if "." not in name:
        with contextlib.suppress(ValueError):  # a module made by hand, as __main__ may be
            return importlib.util.find_spec(name)  # imports nothing for a name without a dot
        return None
    for finder in sys.meta_path:
        if found := finder.find_spec(name, list(folders or ())):
            return found
    return None
