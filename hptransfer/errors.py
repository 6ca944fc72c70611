"""Wrong input as one line and a hint, and foreign text in a form that is safe to show."""

import contextlib
import difflib
import re
import shlex
import sysconfig
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

_LIBRARIES = (str(Path(__file__).parent), sysconfig.get_path("stdlib"))
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")


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


class Note(UserWarning):
    """What a user should know though nothing is wrong; the message is one line.

    The command line prints it once, as a note.
    """


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
    """The InputError for an exception in a user's part: file, line, type and cause.

    The line is the last one in a file of the user's, where there is one: not of Python, of this
    package or of an installed one.
    """
    calls = traceback.extract_tb(error.__traceback__)
    own = [
        call
        for call in calls
        if not (call.filename.startswith(_LIBRARIES) or _INSTALLED.search(call.filename))
    ]
    line = (own or calls)[-1]
    where = f"{line.filename}:{line.lineno}"
    return InputError(f"{what} at {where}: {cause(error)}", hint)


def cause(error: BaseException) -> str:
    """Type and first line of an exception."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def suggest(got: object, names: Any) -> str:
    """`did you mean 'x'?`, or "" where no name resembles `got`."""
    pool = names.split(", ") if isinstance(names, str) else [str(name) for name in names]
    close = difflib.get_close_matches(str(got), pool, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
