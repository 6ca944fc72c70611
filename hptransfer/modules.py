"""The source file of a module, without an import of the module or of its packages."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path


def source_of(name: str) -> Path | None:
    """`package.module` -> its source file, None where there is none.

    Some packages compute the place of their modules during their import. Theirs is None too.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    spec: ModuleSpec | None = None
    for depth in range(1, len(parts) + 1):
        folders = None if spec is None else spec.submodule_search_locations
        if depth > 1 and folders is None:
            return None
        spec = _spec(".".join(parts[:depth]), folders)
        if spec is None:
            return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin)


def _spec(name: str, folders: Iterable[str] | None) -> ModuleSpec | None:
    if "." not in name:
        with contextlib.suppress(ValueError):  # some modules, such as __main__, have no spec
            return importlib.util.find_spec(name)  # without a dot in the name it imports nothing
        return None
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, list(folders or ())):
            return spec
    return None
