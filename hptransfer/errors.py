"""Wrong input as one line and a hint, and foreign text as a message shows it."""

import contextlib
import difflib
import re
import traceback
from collections.abc import Generator
from typing import Any


class InputError(ValueError):
    """Wrong input: one line that says where and what, and a hint that cures it.

    `option`: the option whose value is wrong; the message begins with its name. `cures`: options
    that the hint speaks of. Both are names of fields; the command line shows them as flags.
    """

    def __init__(
        self, message: str, hint: str = "", *, option: str = "", cures: tuple[str, ...] = ()
    ) -> None:
        super().__init__(_cut(f"{option}: {message}" if option else message))
        self.hint = _cut(hint)
        self.option = option
        self.cures = cures


def _cut(text: str) -> str:
    """Text whose words end after 200 characters; a second cut changes nothing."""
    return re.sub(r"([^\s'\",:]{199})[^\s'\",:]{2,}", r"\1…", text)


def printable(text: str) -> str:
    """Text on one line: control characters, line ends too, as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """The repr of a value, cut at 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + "…"


@contextlib.contextmanager
def located(where: str) -> Generator[None]:
    """Puts `where: ` before the message of an InputError that the block raises."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}", error.hint, cures=error.cures) from None


def broken(what: str, error: BaseException, hint: str) -> InputError:
    """The InputError for an exception in a user's own part: where it was raised, and what it is."""
    line = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{line.filename}:{line.lineno}"
    cause = next(iter(str(error).splitlines()), "")
    return InputError(f"{what} at {where}: {type(error).__name__}: {cause}", hint)


def suggest(got: object, names: Any) -> str:
    """`did you mean 'x'?`, or nothing where no name comes near."""
    pool = names.split(", ") if isinstance(names, str) else [str(name) for name in names]
    close = difflib.get_close_matches(str(got), pool, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
