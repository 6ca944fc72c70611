"""The source of a part: its function, fields, choices and constants, read without running it."""

import ast
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptransfer.errors import InputError, suggest
from hptransfer.modules import source_of
from hptransfer.registry import imports

Definition = ast.FunctionDef | ast.ClassDef
DEPTH = 20  # names to follow from one to the next; a name may lead back to itself


@dataclass(frozen=True)
class Field:
    """Default and allowed values of an argument; () allows any value."""

    default: Any
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Called:
    """The function that builds a part, or the `__init__` of its class (`of_class`)."""

    node: ast.FunctionDef
    of_class: bool

    @property
    def first(self) -> str:
        """The name of its first argument, without `self`; "" for none."""
        names = [arg.arg for arg in (*self.node.args.posonlyargs, *self.node.args.args)]
        return "".join(names[int(self.of_class) :][:1])

    @property
    def takes_lr(self) -> bool:
        """Whether it builds a torch optimizer, to which a run gives its learning rate."""
        return self.of_class or self.first == "model"


@dataclass(frozen=True)
class Module:
    """The source of a module, with a lookup of its names."""

    path: Path
    tree: ast.Module

    def definition(self, name: str) -> Definition | None:
        """The function or class of this name, None where there is none."""
        for node in self.tree.body:
            if isinstance(node, Definition) and node.name == name:
                return node
        return None

    @property
    def defined(self) -> list[str]:
        """The names of its functions and classes."""
        return [node.name for node in self.tree.body if isinstance(node, Definition)]

    def imported(self, name: str) -> tuple[str, str] | None:
        """(module, name there) of a name that comes from an absolute import, else None."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return node.module, alias.name
        return None

    def constant(self, name: str) -> ast.expr | None:
        """The expression that the module assigns to a name, else None."""
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=own)], value=value) if own == name:
                    return value
                case ast.AnnAssign(target=ast.Name(id=own), value=value) if own == name:
                    return value
                case _:
                    pass
        return None

    def followed(self, node: ast.expr, depth: int = DEPTH) -> tuple["Module", ast.expr]:
        """The expression that a name stands for, with its module; another expression unchanged."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body  # an annotation in quotes
            except SyntaxError:
                return self, node
        if not isinstance(node, ast.Name) or depth == 0:
            return self, node
        if (value := self.constant(node.id)) is not None:
            return self.followed(value, depth - 1)
        if (origin := self.imported(node.id)) is not None:
            path = source_of(origin[0])
            module = None if path is None else _readable(path)
            if module is not None:
                return module.followed(ast.Name(origin[1]), depth - 1)
        return self, node

    def table(self, name: str) -> dict[str, Any]:
        """The constant `name` if it is a dictionary of literals, else {}."""
        node = self.constant(name)
        try:
            value = None if node is None else self._value(node)
        except (ValueError, TypeError):  # a foreign file may use the name for something else
            return {}
        return value if isinstance(value, dict) else {}

    def _value(self, node: ast.expr) -> Any:
        """The value of a literal, or of a dictionary of literals and others (`**COMMON`)."""
        home, expr = (self, node) if isinstance(node, ast.Constant) else self.followed(node)
        if not isinstance(expr, ast.Dict):
            return ast.literal_eval(expr)
        merged: dict[str, Any] = {}
        for key, value in zip(expr.keys, expr.values, strict=True):
            part = home._value(value)
            merged |= part if key is None else {home._value(key): part}
        return merged

    def choices(self, annotation: ast.expr | None) -> tuple[Any, ...]:
        """The values of a `Literal[...]`, also under another name; () for another annotation."""
        if annotation is None:
            return ()
        home, expr = self.followed(annotation)
        if not isinstance(expr, ast.Subscript) or not home._is_literal(expr.value):
            return ()
        inner = expr.slice
        return tuple(
            ast.literal_eval(n) for n in (inner.elts if isinstance(inner, ast.Tuple) else [inner])
        )

    def _is_literal(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return (self.imported(node.id) or ("", node.id))[1] == "Literal"
        return isinstance(node, ast.Attribute) and node.attr == "Literal"

    def fields(self, kind: str, name: str, called: Called) -> dict[str, Field]:
        """The arguments with a default, without the `lr` of a torch optimizer.

        An argument of a class whose default is no literal is no field: the class may come from
        another library. Raises InputError for such a default of a function.
        """
        function = called.node
        plain = function.args.args[len(function.args.args) - len(function.args.defaults) :]
        defaults = [
            *zip(plain, function.args.defaults, strict=True),
            *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
        ]
        fields = {}
        for arg, default in defaults:
            if default is None or (called.takes_lr and arg.arg == "lr"):
                continue
            try:
                value = ast.literal_eval(default)
            except ValueError:
                if called.of_class:
                    continue
                raise InputError(
                    f"{kind} {name!r}: the default of {arg.arg} is {ast.unparse(default)}",
                    "write it as a literal (a number, a string, True or False), which can be read "
                    "without running the file",
                ) from None
            if type(value) is int and self._is_float(arg.annotation):
                value = float(value)
            value = list(value) if isinstance(value, tuple) else value
            fields[arg.arg] = Field(value, self.choices(arg.annotation))
        return fields

    def _is_float(self, annotation: ast.expr | None) -> bool:
        return annotation is not None and "float" in ast.unparse(self.followed(annotation)[1])


@functools.cache
def _parsed(text: str) -> ast.Module:
    """The tree of a source text, cached because many lookups read one module."""
    return ast.parse(text)


def _readable(path: Path) -> Module | None:
    """The module in a file; None for a file that is no Python source."""
    try:
        return Module(path, _parsed(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError):
        return None


def called(
    kind: str, name: str, where: str, module: Module, node: Definition
) -> tuple[Module, Called]:
    """The function of a part, or the `__init__` of its class, and the module that holds it.

    A class without an `__init__` of its own is imported, as its bases may come from anywhere.
    Raises InputError where no source shows it.
    """
    if isinstance(node, ast.FunctionDef):
        return module, Called(node, of_class=False)
    if (own := _init(node)) is not None:
        return module, Called(own, of_class=True)
    for base in imports.bases(kind, name, where):
        place, _, attribute = base.rpartition(":")
        path = Path(place) if place.endswith(".py") else source_of(place)
        home = None if path is None else _readable(path)
        found = None if home is None else home.definition(attribute)
        own = _init(found) if isinstance(found, ast.ClassDef) else None
        if home is not None and own is not None:
            return home, Called(own, of_class=True)
    raise InputError(
        f"{kind} {name!r}: no source shows the __init__ of class {node.name}",
        "write one, or a function that builds it",
    )


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    for own in node.body:
        if isinstance(own, ast.FunctionDef) and own.name == "__init__":
            return own
    return None


def definition(kind: str, where: str, name: str, depth: int = DEPTH) -> tuple[Module, Definition]:
    """The function or class of `module:name` or `file.py:name`, and the module that defines it.

    Follows a name that the module imports from another one. A name that a package takes from
    elsewhere, as by `from .part import *`, is imported and then looked for where it was defined.
    Raises InputError where there is no such file, module or name.
    """
    place, _, attribute = where.rpartition(":")
    path = _path(kind, place, name)
    try:
        module = Module(path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{kind} {name!r}: {error}", "the file has to be valid Python") from None
    if (node := module.definition(attribute)) is not None:
        return module, node
    if depth and (origin := module.imported(attribute)) is not None:
        return definition(kind, ":".join(origin), name, depth - 1)
    if depth == 0:
        raise _undefined(kind, name, path, attribute, module.defined)
    imported = imports.imported(kind, name, place)
    origin = imports.origin(imported, attribute)
    if origin is None or origin == where:
        public = [own for own in dir(imported) if not own.startswith("_")]
        raise _undefined(kind, name, path, attribute, sorted({*module.defined, *public}))
    return definition(kind, origin, name, depth=0)


def _undefined(kind: str, name: str, path: Path, attribute: str, names: list[str]) -> InputError:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return InputError(
        f"{kind} {name!r}: {path.name} defines no {attribute!r}",
        suggest(attribute, names) or f"it defines: {shown or 'nothing'}",
    )


def _path(kind: str, where: str, name: str) -> Path:
    if where.endswith(".py"):
        path = Path(where)
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            raise InputError(
                f"{kind} {name!r}: no file {where}",
                "give the path from where you are, or from where the suite file lies",
            )
        return path
    path = source_of(where)
    if path is None:
        raise InputError(
            f"{kind} {name!r}: no module {where} with a source file",
            "is its package installed here?",
        )
    return path
