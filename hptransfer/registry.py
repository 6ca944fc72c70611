"""Names and targets -> parts (optimizers, models, data sets), described without importing them.

`describe` reads the source with `ast`, so that `list`, `plan` and `report` know every default
without importing torch; `load` imports. Built-in parts and plug-ins resolve the same way.
"""

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

BUILTINS: dict[str, dict[str, str]] = {
    "optimizer": {
        "adamw": "hptransfer.optimizers.adamw:adamw",
        "adamw_mup": "hptransfer.optimizers.adamw:adamw_mup",
        "muon": "hptransfer.optimizers.muon:muon",
        "muon_sp": "hptransfer.optimizers.muon:muon_sp",
        "scion": "hptransfer.optimizers.scion:scion",
        "scion_unconstrained": "hptransfer.optimizers.scion:scion_unconstrained",
        "transported_scion": "hptransfer.optimizers.scion:transported_scion",
    },
    "model": {
        "gpt": "hptransfer.models.gpt:gpt",
        "mlp": "hptransfer.models.mlp:mlp",
    },
    "dataset": {
        "python_source": "hptransfer.datasets.text:python_source",
        "english": "hptransfer.datasets.text:english",
        "file": "hptransfer.datasets.text:file",
        "mnist5k": "hptransfer.datasets.images:mnist5k",
    },
}


class InputError(ValueError):
    """Wrong input: one line that says where and what, and a hint that cures it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Part:
    """What is known of an optimizer, model or data set without importing it."""

    kind: str
    name: str
    target: str
    summary: str
    defaults: dict[str, Any]
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    revision: int | str = 0

    def resolve(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        """Defaults overridden by `given`, checked. Raises InputError at `where.key`."""
        resolved = dict(self.defaults)
        for key, value in given.items():
            place = f"{where}.{key}"
            if key not in self.defaults:
                allowed = ", ".join(self.defaults) or "none"
                raise InputError(
                    f"{place}: {self.name!r} has no field {key!r}",
                    suggest(key, self.defaults) or f"fields of {self.name}: {allowed}",
                )
            resolved[key] = self._checked(key, value, place)
        return resolved

    def _checked(self, key: str, value: Any, place: str) -> Any:
        default = self.defaults[key]
        if key in self.choices and value not in self.choices[key]:
            names = ", ".join(self.choices[key])
            raise InputError(f"{place}: got {value!r}, allowed: {names}", suggest(value, names))
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise InputError(
                f"{place}: got {value!r} ({type(value).__name__}), "
                f"needs a {type(default).__name__}",
                f"the default is {default!r}",
            )
        if key in self.limits:
            low, high = self.limits[key]
            if not low <= value <= high:
                raise InputError(
                    f"{place}: got {value}, allowed: {low} to {high}", f"the default is {default}"
                )
        return value


def suggest(got: object, names: Any) -> str:
    """`did you mean 'x'?`, or nothing where no name comes near."""
    pool = names.split(", ") if isinstance(names, str) else [str(name) for name in names]
    close = difflib.get_close_matches(str(got), pool, n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def names(kind: str) -> list[str]:
    """Every name of a kind: built-in and from entry points `hptransfer.<kind>s`."""
    return [*BUILTINS[kind], *(entry.name for entry in entry_points(group=f"hptransfer.{kind}s"))]


def target(kind: str, name: str) -> str:
    """A name, `file.py:name` or `pkg.mod:name` -> `module:name`. Raises InputError."""
    if name in BUILTINS[kind]:
        return BUILTINS[kind][name]
    for entry in entry_points(group=f"hptransfer.{kind}s"):
        if entry.name == name:
            return entry.value
    if ":" in name:
        return name
    known = names(kind)
    raise InputError(
        f"unknown {kind} {name!r}", suggest(name, known) or f"{kind}s: {', '.join(known)}"
    )


def _source(kind: str, where: str, name: str) -> Path:
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise InputError(
                f"{kind} {name!r}: no file {where}", "give the path from where you are"
            )
        return path
    try:
        found = importlib.util.find_spec(where)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise InputError(f"{kind} {name!r}: no module {where}", "is its package installed here?")
    return Path(found.origin)


def _literal(node: ast.expr | None) -> Any:
    return None if node is None else ast.literal_eval(node)


@functools.cache
def describe(kind: str, name: str) -> Part:
    """Signature, summary, limits and revision of a part, read from its source.

    Keyword-only arguments with a literal default are the fields; `Literal[...]` annotations are the
    choices; module constants LIMITS and REVISION are dictionaries by field and by name. A limit of
    `NAME.log2_lr` bounds the learning rate of one optimizer, in octaves.
    A plug-in without REVISION is identified by the sha256 of its source.
    """
    where = target(kind, name)
    module, _, attribute = where.rpartition(":")
    path = _source(kind, module, name)
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == attribute:
            break
    else:
        defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        raise InputError(
            f"{kind} {name!r}: {path.name} defines no {attribute!r}", suggest(attribute, defined)
        )
    function = node
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            raise InputError(f"{kind} {name!r}: class {attribute} has no __init__", "")
        function = inits[0]
    assert isinstance(function, ast.FunctionDef)
    fields = {
        arg.arg: (_literal(default), arg.annotation)
        for arg, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        if default is not None
    }
    revisions = _literal(constants.get("REVISION")) or {}
    limits: dict[str, tuple[float, float]] = _literal(constants.get("LIMITS")) or {}
    source_hash = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Part(
        kind=kind,
        name=name,
        target=where,
        summary=(ast.get_docstring(node) or "").split("\n")[0],
        defaults={key: default for key, (default, _) in fields.items()},
        choices={
            key: tuple(_literal_choices(annotation))
            for key, (_, annotation) in fields.items()
            if _literal_choices(annotation)
        },
        limits={
            key: limits[name]
            for key in (*fields, "log2_lr")
            for name in (key, f"{attribute}.{key}")
            if name in limits
        },
        revision=revisions.get(attribute, source_hash),
    )


def _literal_choices(annotation: ast.expr | None) -> list[str]:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        inner = annotation.slice
        return [_literal(n) for n in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]
    return []


@functools.cache
def load(kind: str, name: str) -> Any:
    """Import a part. Raises InputError where it cannot be found."""
    part = describe(kind, name)
    module, _, attribute = part.target.rpartition(":")
    if module.endswith(".py"):
        unique = "hptransfer_plugin_" + hashlib.sha256(module.encode()).hexdigest()[:12]
        found = importlib.util.spec_from_file_location(unique, module)
        assert found is not None and found.loader is not None
        loaded = importlib.util.module_from_spec(found)
        sys.modules[unique] = loaded
        found.loader.exec_module(loaded)
    else:
        loaded = importlib.import_module(module)
    return getattr(loaded, attribute)
