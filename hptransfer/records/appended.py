"""Records that a folder holds as JSON lines, one file per writer, beside the runs of suites."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from hptransfer.records.damage import Damage, DamagedError, LeftOut, left_out
from hptransfer.records.disk import disk, listing

Decoded = TypeVar("Decoded")


def appended(
    folder: Path, kind: str, decode: Callable[[bytes], Decoded], warned: set[str]
) -> Iterator[Decoded]:
    """The records in the files `KIND-*.jsonl` of a folder, which Appenders of this kind wrote.

    Skips a last line without its end, which a killed writer leaves. Warns about other lines that
    are no records (LeftOut), once per file: `warned` keeps the names of these. `decode` raises
    DamagedError. Raises InputError for an unreadable folder.
    """
    for name in listing(folder, rf"{kind}-.*\.jsonl"):
        path, damage = folder / name, list[Damage]()
        with disk(path, "read"):
            lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                continue
            try:
                record = decode(line)
            except DamagedError as error:
                damage.append((number, str(error)))
            else:
                yield record
        if damage and name not in warned:
            warned.add(name)
            warnings.warn(left_out(path, damage), LeftOut, stacklevel=3)
