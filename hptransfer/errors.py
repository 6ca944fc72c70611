"""Wrong input as one line and a hint, and foreign text in a form that is safe to show."""

import contextlib
import difflib
import re
import shlex
import traceback
from collections.abc import Generator
from typing import Any


class InputError(ValueError):
    """Wrong input: one line that says where and what, and a hint with the cure.

    `option`: the option whose value is wrong; the message begins with it. `cures`: the options that
    the hint names. Both are names of fields; the command line shows them as flags.
    """

    def __init__(
        self, message: str, hint: str = "", *, option: str = "", cures: tuple[str, ...] = ()
    ) -> None:
        super().__init__(_cut(f"{option}: {message}" if option else message))
        self.hint = _cut(hint)
        self.option = option
        self.cures = cures


def _cut(text: str) -> str:
    """Text with every word cut at 200 characters; a second cut changes nothing."""
    return re.sub(r"([^\s'\",:]{199})[^\s'\",:]{2,}", r"\1…", text)


def printable(text: str) -> str:
    """Text on one line: escapes stand for control characters and line ends."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def command(*words: object) -> str:
    """A command of hptransfer as a user types it, for a hint: names with spaces are quoted."""
    return shlex.join(["hptransfer", *map(str, words)])


def quoted(value: object) -> str:
    """The repr of a value, cut at 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + "…"


@contextlib.contextmanager
def located(where: str) -> Generator[None]:
    """An InputError of this block gets `where: ` before its message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}", error.hint, cures=error.cures) from None


def broken(what: str, error: BaseException, hint: str) -> InputError:
    """The InputError for an exception in a user's part: file, line, type and cause."""
    line = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{line.filename}:{line.lineno}"
    cause = next(iter(str(error).splitlines()), "")
    return InputError(f"{what} at {where}: {type(error).__name__}: {cause}", hint)


def suggest(got: object, names: Any) -> str:
    """`did you mean 'x'?`, or "" where no name resembles `got`."""
    pool = names.split(", ") if isinstance(names, str) else [str(name) for name in names]
    close = difflib.get_close_matches(str(got), pool, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
