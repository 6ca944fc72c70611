"""Wrong input as one line and a hint, and how it shows what somebody else wrote."""

import contextlib
import difflib
import re
import traceback
from collections.abc import Generator
from typing import Any


class InputError(ValueError):
    """Wrong input: one line that says where and what, and a hint that cures it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(_cut(message))
        self.hint = _cut(hint)


def _cut(text: str) -> str:
    """Without the rest of a word above 200 characters, a cut one of which stays as it is."""
    return re.sub(r"([^\s'\",:]{199})[^\s'\",:]{2,}", r"\1…", text)


def printable(text: str) -> str:
    """Text on one line: control characters, line ends too, as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """A value as a message shows it: repr, cut at 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + "…"


@contextlib.contextmanager
def located(where: str) -> Generator[None]:
    """Puts `where: ` before the message of an InputError raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}", error.hint) from None


def broken(what: str, error: BaseException, hint: str) -> InputError:
    """Whatever a part of a user's does wrong is wrong input: where and what, on one line."""
    line = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{line.filename}:{line.lineno}"
    cause = next(iter(str(error).splitlines()), "")
    return InputError(f"{what} at {where}: {type(error).__name__}: {cause}", hint)


def suggest(got: object, names: Any) -> str:
    """`did you mean 'x'?`, or nothing where no name comes near."""
    pool = names.split(", ") if isinstance(names, str) else [str(name) for name in names]
    close = difflib.get_close_matches(str(got), pool, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
