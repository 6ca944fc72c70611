"""The source of a part: its function, fields, choices and constants, read without running it."""

import ast
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptransfer.errors import InputError, suggest
from hptransfer.modules import source_of

Definition = ast.FunctionDef | ast.ClassDef
DEPTH = 20  # names to follow from one to the next; a name may lead back to itself


@dataclass(frozen=True)
class Field:
    """Default and allowed values of an argument; () allows any value."""

    default: Any
    choices: tuple[Any, ...] = ()


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

    def fields(self, kind: str, name: str, node: Definition) -> dict[str, Field]:
        """The arguments with a default; for a class, those of its __init__ without `lr`.

        An argument of a class whose default is no literal is no field: the class may come from
        another library. Raises InputError for such a default of a function, and for a class without
        an __init__ of its own.
        """
        function = node if isinstance(node, ast.FunctionDef) else _init(kind, name, node)
        plain = function.args.args[len(function.args.args) - len(function.args.defaults) :]
        defaults = [
            *zip(plain, function.args.defaults, strict=True),
            *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
        ]
        fields = {}
        for arg, default in defaults:
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
def _parsed(source: bytes) -> ast.Module:
    """The tree of a source, cached because many lookups read one module.

    Bytes say their own encoding, by a byte order mark or a coding line.
    """
    return ast.parse(source)


def _readable(path: Path) -> Module | None:
    """The module in a file; None for a file that is no Python source."""
    try:
        return Module(path, _parsed(path.read_bytes()))
    except (SyntaxError, ValueError):
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
    """The function or class of `module:name` or `file.py:name`, and the module that defines it.

    Follows a name that the module imports from another one. Raises InputError where there is no
    such file, module or name.
    """
    place, _, attribute = where.rpartition(":")
    path = _path(kind, place, name)
    try:
        module = Module(path, ast.parse(path.read_bytes(), filename=str(path)))
    except (OSError, SyntaxError, ValueError) as error:
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
