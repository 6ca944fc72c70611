"""What the source of a part says: its function, fields, choices and constants. Nothing is run."""

import ast
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptransfer.errors import InputError, suggest
from hptransfer.modules import source_of

Definition = ast.FunctionDef | ast.ClassDef
DEPTH = 20  # of names that stand for other names, which may stand for themselves


@dataclass(frozen=True)
class Field:
    """A default, and the values that are allowed, () for any."""

    default: Any
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Module:
    """The source of a module, and what its names stand for."""

    path: Path
    tree: ast.Module

    def definition(self, name: str) -> Definition | None:
        """Its function or class of this name."""
        for node in self.tree.body:
            if isinstance(node, Definition) and node.name == name:
                return node
        return None

    def imported(self, name: str) -> tuple[str, str] | None:
        """(module, name there) of a name that is imported from elsewhere by its full path."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return node.module, alias.name
        return None

    def constant(self, name: str) -> ast.expr | None:
        """The expression that is assigned to a name, with an annotation or without."""
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
        """What a name stands for, and the module that says so; other expressions as they are."""
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
            there = None if path is None else _readable(path)
            if there is not None:
                return there.followed(ast.Name(origin[1]), depth - 1)
        return self, node

    def table(self, name: str) -> dict[str, Any]:
        """A constant that is a dictionary of literals, {} where it is none."""
        node = self.constant(name)
        try:
            value = None if node is None else self._value(node)
        except (ValueError, TypeError):  # a constant of this name in a foreign file
            return {}
        return value if isinstance(value, dict) else {}

    def _value(self, node: ast.expr) -> Any:
        """A literal, or a dictionary of literals that may take others in (`**COMMON`)."""
        home, found = (self, node) if isinstance(node, ast.Constant) else self.followed(node)
        if not isinstance(found, ast.Dict):
            return ast.literal_eval(found)
        merged: dict[str, Any] = {}
        for key, value in zip(found.keys, found.values, strict=True):
            part = home._value(value)
            merged |= part if key is None else {home._value(key): part}
        return merged

    def choices(self, annotation: ast.expr | None) -> tuple[Any, ...]:
        """The values of a `Literal[...]`, by whatever name; () for another annotation."""
        if annotation is None:
            return ()
        home, found = self.followed(annotation)
        if not isinstance(found, ast.Subscript) or not home._is_literal(found.value):
            return ()
        inner = found.slice
        return tuple(
            ast.literal_eval(n) for n in (inner.elts if isinstance(inner, ast.Tuple) else [inner])
        )

    def _is_literal(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return (self.imported(node.id) or ("", node.id))[1] == "Literal"
        return isinstance(node, ast.Attribute) and node.attr == "Literal"

    def fields(self, kind: str, name: str, node: Definition) -> dict[str, Field]:
        """All arguments with a default but the first; of a class, those of its __init__.

        A class of another library may have defaults that are no literals: those are no fields.
        Raises InputError for a default that is none, and for a class without an __init__.
        """
        function = node if isinstance(node, ast.FunctionDef) else _init(kind, name, node)
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
                value = ast.literal_eval(default)
            except ValueError:
                if isinstance(node, ast.ClassDef):
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
    """By its text, for names of one module are looked up again and again."""
    return ast.parse(text)


def _readable(path: Path) -> Module | None:
    """The module in a file; None where that is no Python source."""
    try:
        return Module(path, _parsed(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError):
        return None


def _init(kind: str, name: str, node: ast.ClassDef) -> ast.FunctionDef:
    for own in node.body:
        if isinstance(own, ast.FunctionDef) and own.name == "__init__":
            return own
    raise InputError(
        f"{kind} {name!r}: class {node.name} has no __init__ of its own",
        "write one, or a function that builds it",
    )


def definition(kind: str, where: str, name: str, depth: int = DEPTH) -> tuple[Module, Definition]:
    """The function or class of `module:name` or `file.py:name`, and the module that holds it.

    A name that the module imports from another is looked up there. Raises InputError.
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
    defined = [n.name for n in module.tree.body if isinstance(n, Definition)]
    raise InputError(
        f"{kind} {name!r}: {path.name} defines no {attribute!r}",
        suggest(attribute, defined) or f"it defines: {', '.join(defined) or 'nothing'}",
    )


def _path(kind: str, where: str, name: str) -> Path:
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
