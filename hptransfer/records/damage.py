"""Lines that are no records, and files of a schema that this version does not read."""

from pathlib import Path
from typing import Any

from hptransfer.errors import InputError, Note
from hptransfer.spec import SCHEMA

Damage = tuple[int, str]  # number of a line that is no record, and the cause
_NAMED = 5  # line numbers that the warning names per file


class DamagedError(ValueError):
    """A line is no record; the message says why."""


class LeftOut(Note):
    """The reader left out damaged lines of a records file; the message is one line with a cure."""


def left_out(path: Path, damage: list[Damage]) -> str:
    """The warning of damaged lines in a file, one line with the cure."""
    first, why = damage[0]
    cause = f"line {first}: {why}"
    if len(damage) == 1:
        return (
            f"{path}: left out 1 damaged record line ({cause}); "
            "restore the file, or delete that line: hptransfer will train its run again"
        )
    numbers = ", ".join(str(number) for number, _ in damage[:_NAMED])
    numbers += ", ..." if len(damage) > _NAMED else ""
    return (
        f"{path}: left out {len(damage)} damaged record lines ({numbers}; {cause}); "
        "restore the file, or delete those lines: hptransfer will train their runs again"
    )


def newer(place: str, schema: Any) -> InputError:
    """The error for a file of another schema."""
    return InputError(
        f"{place}: got schema {schema}, this version reads {SCHEMA}",
        "another version of hptransfer wrote it: pip install --upgrade hptransfer",
    )
