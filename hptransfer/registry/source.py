"""The source of a part: its function, fields, choices and constants, read without running it."""

import ast
import functools
import os
from collections.abc import Iterator
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
    """The source of a module, with a lookup of its names; `name`: dotted, "" for a file."""

    path: Path
    tree: ast.Module
    name: str = ""

    def statements(self) -> Iterator[ast.stmt]:
        """Those at its top, also under `if`, `try` and `with`."""
        waiting = list(self.tree.body)
        while waiting:
            node = waiting.pop(0)
            yield node
            for inner in ("body", "handlers", "orelse", "finalbody"):
                if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                    waiting.extend(getattr(node, inner, []))

    def definition(self, name: str) -> Definition | None:
        """The function or class of this name, None where there is none."""
        for node in self.statements():
            if isinstance(node, Definition) and node.name == name:
                return node
        return None

    def names(self) -> list[str]:
        """The names of its functions and classes, and of those that it takes from others."""
        found: set[str] = set()
        for node in self.statements():
            if isinstance(node, Definition):
                found.add(node.name)
            elif isinstance(node, ast.ImportFrom):
                found |= {alias.asname or alias.name for alias in node.names} - {"*"}
        return sorted(name for name in found if not name.startswith("_"))

    def starred(self) -> list["Module"]:
        """The modules all of whose names it takes in: `from .part import *`."""
        places = [
            self._absolute(node)
            for node in self.statements()
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        ]
        modules = (_readable(source_of(place), place) for place in places)
        return [module for module in modules if module is not None]

    def _absolute(self, node: ast.ImportFrom) -> str:
        """The module that an import names, without leading dots."""
        if not node.level:
            return node.module or ""
        packages = self.name.split(".")
        inside = node.level - (self.path.name == "__init__.py")
        kept = packages[: len(packages) - inside]
        return ".".join([*kept, *([node.module] if node.module else [])])

    def imported(self, name: str) -> tuple[str, str] | None:
        """(module, name there) of a name that comes from an import by name, else None."""
        for node in self.statements():
            if isinstance(node, ast.ImportFrom) and (self.name or not node.level):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._absolute(node), alias.name
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
            module = _readable(source_of(origin[0]), origin[0])
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
def _parsed(source: bytes) -> ast.Module:
    """The tree of a source, cached because many lookups read one module.

    Bytes say their own encoding, by a byte order mark or a coding line.
    """
    return ast.parse(source)


def _readable(path: Path | None, name: str) -> Module | None:
    """The module in a file; None without a file, and for one that is no Python source."""
    if path is None:
        return None
    try:
        return Module(path, _parsed(path.read_bytes()), name)
    except (SyntaxError, ValueError):
        return None


def called(kind: str, name: str, module: Module, node: Definition) -> tuple[Module, Called]:
    """The function of a part, or the `__init__` of its class, and the module that holds it.

    A class may inherit it. Raises InputError where no source shows it.
    """
    if isinstance(node, ast.FunctionDef):
        return module, Called(node, of_class=False)
    lineage = [(module, node)]
    for home, own in lineage:  # grows as bases are found
        if (function := _init(own)) is not None:
            return home, Called(function, of_class=True)
        found = [_found(home, *_base(home, base), set()) for base in own.bases]
        lineage += [(m, n) for m, n in filter(None, found) if isinstance(n, ast.ClassDef)][:DEPTH]
        if len(lineage) > DEPTH:
            break
    raise InputError(
        f"{kind} {name!r}: no source shows the __init__ of class {node.name}",
        "write one, or a function that builds it",
    )


def _base(module: Module, base: ast.expr) -> tuple[str, str]:
    """(module, name there) of a base class; "" stands for the module itself."""
    place, _, name = ast.unparse(base).rpartition(".")
    first, dot, rest = place.partition(".")
    for node in module.statements():
        for alias in node.names if isinstance(node, ast.Import) else ():
            if first and (alias.asname or alias.name.partition(".")[0]) == first:
                return (alias.name if alias.asname else first) + dot + rest, name
    return place, name


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    for own in node.body:
        if isinstance(own, ast.FunctionDef) and own.name == "__init__":
            return own
    return None


def definition(kind: str, where: str, name: str) -> tuple[Module, Definition]:
    """The function or class of `module:name` or `file.py:name`, and the module that defines it.

    Follows a name that the module takes from another one, and runs neither. Raises InputError where
    there is no such file, module or name.
    """
    place, _, attribute = where.rpartition(":")
    path = _path(kind, place, name)
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{kind} {name!r}: {error}", "the file has to be valid Python") from None
    module = Module(path, tree, "" if place.endswith(".py") else place)
    if (found := _found(module, "", attribute, set())) is not None:
        return found
    origin = module.imported(attribute)
    if origin is not None and source_of(origin[0]) is None:
        _path(kind, origin[0], name)  # raises
    names = module.names()
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise InputError(
        f"{kind} {name!r}: {path.name} defines no {attribute!r}",
        suggest(attribute, names)
        or f"name the module that does; this one defines: {shown or 'nothing'}",
    )


def _found(
    module: Module, place: str, name: str, seen: set[tuple[Path, str]]
) -> tuple[Module, Definition] | None:
    """What a name stands for in a module, or in another one, `place`; `seen`: where it was sought.

    A name may be an assignment of another, an import by name, or one of `import *`.
    """
    home = _readable(source_of(place), place) if place else module
    if home is None or (home.path, name) in seen:
        return None
    seen.add((home.path, name))
    if (node := home.definition(name)) is not None:
        return home, node
    value = home.constant(name)
    if isinstance(value, ast.Name):
        return _found(home, "", value.id, seen)
    if (origin := home.imported(name)) is not None:
        return _found(home, *origin, seen)
    for other in () if name.startswith("_") else home.starred():
        if (found := _found(other, "", name, seen)) is not None:
            return found
    return None


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
