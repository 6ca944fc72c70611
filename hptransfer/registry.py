"""Names and targets -> parts (optimizers, models, data sets), described without importing them.

`describe` reads the source with `ast`, so that `list`, `plan` and `report` know every default
without importing torch; `load` imports. Built-in parts and plug-ins resolve the same way.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hptransfer.errors import InputError, broken, quoted, suggest
from hptransfer.modules import source_of

BUILTINS: dict[str, dict[str, str]] = {
    "optimizer": {
        "adamw": "hptransfer.optimizers.adamw:adamw",
        "adamw_emb": "hptransfer.optimizers.adamw:adamw_emb",
        "adamw_mup": "hptransfer.optimizers.adamw:adamw_mup",
        "lion": "hptransfer.optimizers.lion:lion",
        "moga_col": "hptransfer.optimizers.moga:moga_col",
        "moga_row": "hptransfer.optimizers.moga:moga_row",
        "muon": "hptransfer.optimizers.muon:muon",
        "muon_sp": "hptransfer.optimizers.muon:muon_sp",
        "nsgd": "hptransfer.optimizers.sgd:nsgd",
        "scion": "hptransfer.optimizers.scion:scion",
        "scion_light": "hptransfer.optimizers.scion:scion_light",
        "scion_unconstrained": "hptransfer.optimizers.scion:scion_unconstrained",
        "sgd": "hptransfer.optimizers.sgd:sgd",
        "signsgd": "hptransfer.optimizers.sgd:signsgd",
        "transported_scion": "hptransfer.optimizers.transported:transported_scion",
    },
    "model": {
        "gpt": "hptransfer.models.gpt:gpt",
        "mlp": "hptransfer.models.mlp:mlp",
        "vit": "hptransfer.models.vit:vit",
        "cnn": "hptransfer.models.cnn:cnn",
    },
    "dataset": {
        "python_source": "hptransfer.datasets.text:python_source",
        "english": "hptransfer.datasets.text:english",
        "file": "hptransfer.datasets.text:file",
        "mnist5k": "hptransfer.datasets.images:mnist5k",
    },
}


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
    doc: str = ""

    @property
    def address(self) -> str:
        """What names this part to a person: its name, or the target of a plug-in."""
        return self.name if self.name in BUILTINS[self.kind] else self.target

    def lr_limits(self, hp: dict[str, Any]) -> tuple[float, float] | None:
        """Limits of log2 lr under these hyperparameters; a flag that is set may narrow them."""
        for key, value in hp.items():
            if value is True and f"{key}.log2_lr" in self.limits:
                return self.limits[f"{key}.log2_lr"]
        return self.limits.get("log2_lr")

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
            raise InputError(
                f"{place}: got {quoted(value)}, allowed: {names}", suggest(value, names)
            )
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise InputError(
                f"{place}: got {quoted(value)} ({type(value).__name__}), "
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


def _entries(kind: str) -> Any:
    from importlib.metadata import entry_points  # slow to import, and --help has no need of it

    return entry_points(group=f"hptransfer.{kind}s")


def names(kind: str) -> list[str]:
    """Every name of a kind: built-in and from entry points `hptransfer.<kind>s`."""
    return [*BUILTINS[kind], *(entry.name for entry in _entries(kind))]


def target(kind: str, name: str) -> str:
    """A name, `file.py:name` or `pkg.mod:name` -> `module:name`. Raises InputError."""
    if name in BUILTINS[kind]:
        return BUILTINS[kind][name]
    for entry in _entries(kind):
        if entry.name == name:
            return entry.value
    if ":" in name:
        module, _, attribute = name.rpartition(":")
        if module.endswith(".py"):  # absolute, for a worker may start elsewhere
            return f"{os.path.realpath(os.path.expanduser(module))}:{attribute}"
        return name
    known = names(kind)
    raise InputError(
        f"unknown {kind} {name!r}",
        suggest(name, known) or f"{kind}s: {', '.join(known)}, or my_file.py:my_{kind}",
    )


def _source(kind: str, where: str, name: str) -> Path:
    if where.endswith(".py"):
        path = Path(where)
        if not os.path.isfile(path):  # of a name that is too long Path.is_file raises
            raise InputError(
                f"{kind} {name!r}: no file {where}",
                "give the path from where you are, or from where the suite file lies",
            )
        return path
    found = source_of(where)
    if found is None:
        raise InputError(
            f"{kind} {name!r}: no module {where} with a source file",
            "is its package installed here?",
        )
    return found


def _literal(node: ast.expr | None) -> Any:
    return None if node is None else ast.literal_eval(node)


def _definition(
    kind: str, where: str, name: str
) -> tuple[Path, ast.Module, ast.FunctionDef | ast.ClassDef]:
    """The file, its tree and the function or class; a re-export is followed to its module."""
    module, _, attribute = where.rpartition(":")
    path = _source(kind, module, name)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{kind} {name!r}: {error}", "the file has to be valid Python") from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == attribute:
            return path, tree, node
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == attribute:
                    return _definition(kind, f"{node.module}:{alias.name}", name)
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    raise InputError(
        f"{kind} {name!r}: {path.name} defines no {attribute!r}",
        suggest(attribute, defined) or f"it defines: {', '.join(defined) or 'nothing'}",
    )


def _fields(kind: str, name: str, node: ast.FunctionDef | ast.ClassDef) -> dict[str, Any]:
    """Argument -> (default, annotation), of all but the first; of a class, its __init__'s.

    A class of another library may have defaults that are no literals: those are no fields here.
    """
    function: Any = node
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            raise InputError(
                f"{kind} {name!r}: class {node.name} has no __init__ of its own",
                "write one, or a function that builds it",
            )
        function = inits[0]
    plain = function.args.args[len(function.args.args) - len(function.args.defaults) :]
    given = [
        *zip(plain, function.args.defaults, strict=True),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    fields = {}
    for arg, default in given:
        if default is None or (isinstance(node, ast.ClassDef) and arg.arg == "lr"):
            continue
        try:
            value = _literal(default)
        except ValueError:
            if isinstance(node, ast.ClassDef):
                continue
            raise InputError(
                f"{kind} {name!r}: the default of {arg.arg} is {ast.unparse(default)}",
                "write it as a literal (a number, a string, True or False), which can be read "
                "without running the file",
            ) from None
        if type(value) is int and arg.annotation and "float" in ast.unparse(arg.annotation):
            value = float(value)
        fields[arg.arg] = (list(value) if isinstance(value, tuple) else value, arg.annotation)
    return fields


_PLUGINS: dict[tuple[str, str, str], str] = {}


def plugins() -> dict[tuple[str, str, str], str]:
    """(kind, name, revision) -> target of every plug-in described so far; for a worker process."""
    return dict(_PLUGINS)


def admit(known: dict[tuple[str, str, str], str]) -> None:
    """Let specs that name these plug-ins be loaded in this process."""
    _PLUGINS.update(known)


def describe(kind: str, name: str) -> Part:
    """Signature, summary, limits and revision of a part, read from its source.

    Arguments after the first, with a literal default, are the fields; `Literal[...]` annotations
    are the choices; module constants LIMITS and REVISION are dictionaries by field and by name.
    A limit of `NAME.log2_lr` bounds the learning rate of one optimizer, in octaves, and
    `NAME.FLAG.log2_lr` while its field FLAG is true. A plug-in is identified by the sha256 of its
    file.
    """
    where = target(kind, name)
    if where in BUILTINS[kind].values():
        return _built_in(kind, name, where)
    return _describe(kind, name, where)


@functools.cache
def _built_in(kind: str, name: str, where: str) -> Part:
    return _describe(kind, name, where)


def _describe(kind: str, name: str, where: str) -> Part:
    path, tree, node = _definition(kind, where, name)
    attribute = where.rpartition(":")[2]
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    fields = _fields(kind, name, node)
    builtin = where in BUILTINS[kind].values()
    revisions = _literal(constants.get("REVISION")) if builtin else {}
    limits: dict[str, tuple[float, float]] = {}
    with contextlib.suppress(ValueError):  # a constant of this name in a foreign file
        limits = _literal(constants.get("LIMITS")) or {}
    flags = [key for key, (default, _) in fields.items() if isinstance(default, bool)]
    part = Part(
        kind=kind,
        name=attribute if ":" in name else name,
        target=where,
        summary=(ast.get_docstring(node) or "").split("\n")[0],
        defaults={key: default for key, (default, _) in fields.items()},
        choices={
            key: tuple(_literal_choices(annotation))
            for key, (_, annotation) in fields.items()
            if _literal_choices(annotation)
        },
        limits={
            key: limits[known]
            for key in (*fields, "log2_lr", *(f"{flag}.log2_lr" for flag in flags))
            for known in (key, f"{attribute}.{key}")
            if known in limits
        },
        revision=(revisions or {}).get(attribute)
        or hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        doc=ast.get_docstring(node) or "",
    )
    if not builtin:
        _PLUGINS[(kind, part.name, str(part.revision))] = where
    return part


def _literal_choices(annotation: ast.expr | None) -> list[str]:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        inner = annotation.slice
        return [_literal(n) for n in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]
    return []


def with_field(kind: str, field: str) -> list[str]:
    """The built-in parts that have a field."""
    return [name for name in BUILTINS[kind] if field in describe(kind, name).defaults]


def load_spec(kind: str, table: dict[str, Any]) -> Any:
    """Import the part that a run's spec names. Raises InputError where it is not the same any more.

    `table`: name and revision, of a plug-in the sha256 of its source.
    """
    name, revision = table["name"], table["revision"]
    where = _PLUGINS.get((kind, name, str(revision)))
    if where is None:
        return load(kind, name)
    if describe(kind, where).revision != revision:
        raise InputError(
            f"{kind} {name!r}: its source has changed since the run began", "start again"
        )
    return load(kind, where)


def load(kind: str, name: str) -> Any:
    """Import a part. Raises InputError where it cannot be found."""
    part = describe(kind, name)
    return _load(kind, name, part.target, part.revision)


@functools.cache
def _load(kind: str, name: str, target: str, revision: int | str) -> Any:
    """`revision` is in the cache's key: an edited file is loaded again."""
    module, _, attribute = target.rpartition(":")
    if not module.endswith(".py"):
        try:
            return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            what = f"{kind} {name!r}: importing it failed"
            raise broken(what, error, f"python -c 'import {module}' shows the same") from None
    unique = "hptransfer_plugin_" + hashlib.sha256(f"{module}{revision}".encode()).hexdigest()[:12]
    found = importlib.util.spec_from_file_location(unique, module)
    assert found is not None and found.loader is not None
    loaded = importlib.util.module_from_spec(found)
    sys.modules[unique] = loaded
    folder = str(Path(module).parent)
    if folder not in sys.path:
        sys.path.append(folder)  # so that a plug-in may import its neighbours
    try:
        found.loader.exec_module(loaded)
        return getattr(loaded, attribute)
    except BaseException as error:
        sys.modules.pop(unique, None)  # half a module is none
        if not isinstance(error, Exception | SystemExit):
            raise
        what = f"{kind} {name!r}: importing it failed"
        raise broken(what, error, f"python {module} shows the same") from None
