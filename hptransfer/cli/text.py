"""Short texts for the terminal: foreign text, durations, learning rates."""

import codecs

from rich.text import Text

from hptransfer.errors import printable

SPARKS = "▁▂▃▄▅▆▇█"
_PLAIN = {"−": "-", "–": "-", "±": "+-", "…": "...", **dict(zip(SPARKS, "_.,-=+*#", strict=True))}


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    wrong = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "?") for c in wrong), error.end


ERRORS = "hptransfer"
"""Handler for characters that a terminal does not know: a minus and a curve keep their meaning."""
codecs.register_error(ERRORS, _plainly)


def shown(text: str, style: str = "") -> Text:
    """Text as one line for the terminal; rich reads no markup in it.

    Escapes stand for control characters, with which a foreign name could move the cursor.
    """
    return Text(printable(text), style)


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def power(log2_lr: float) -> str:
    """`2^-4.25`."""
    return f"2^{log2_lr:g}"
