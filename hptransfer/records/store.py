"""Records on disk: append one, read all as a DataFrame. Only claims.py writes here too.

Every writer has its own append-only file of JSON lines. A killed writer may leave a last line
without its end: the reader skips it. The reader warns about any other line that is no record,
because hptransfer would otherwise train its run again without a word.
"""

import contextlib
import gc
import itertools
import json
import os
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hptransfer.errors import InputError
from hptransfer.records import lines
from hptransfer.records.damage import Damage, LeftOut, left_out, newer
from hptransfer.records.disk import Appender, disk, listing, lock, mark
from hptransfer.records.lines import Row
from hptransfer.spec import FIRST_SCHEMA, SCHEMA, RunRecord
from hptransfer.suite.manifest import as_manifest, stored_suite
from hptransfer.suite.resolved import Suite

if TYPE_CHECKING:
    import pandas as pd

_MANIFEST, _FIRST_MANIFEST = "suite.json", "suite-1.json"  # the second: of FIRST_SCHEMA
_OF_A_SUITE = r"records-.*\.jsonl|suite\.json|suite-1\.json"
_BATCH = 500  # lines per call of the decoder, which shares the strings of equal keys in a call


@dataclass
class _Source:
    """How far the store has read one records file, and what it read there."""

    inode: int
    offset: int = 0
    lines: int = 0
    rows: list[Row] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


class Store:
    """The records of one suite, in the folder root/suite. Nothing is created before a write.

    `schema`: which records and which manifest count; those of FIRST_SCHEMA are only read.
    """

    def __init__(self, root: Path, suite: str, schema: int = SCHEMA) -> None:
        self.suite = suite
        self.schema = schema
        self.folder = Path(root) / suite
        self._writer = Appender(self.folder, "records")
        self._sources: dict[str, _Source] = {}
        self._reader = lines.Reader(schema)
        self._frame: pd.DataFrame | None = None

    def append(self, record: RunRecord) -> None:
        """Write one record through to the disk. Raises InputError on a full or read-only disk."""
        self._writer.append(lines.encode(record))

    def frame(self) -> "pd.DataFrame":
        """One row per run, in the order of finishing; reads only new lines from disk.

        The columns are those of `Row`; `curve` is an array (points, 2) of step and loss. Several
        records may have one key: then the first one that did not fail counts, or the last failed
        one. Warns about damaged lines (LeftOut) when it first meets them.
        Raises InputError for another schema or an unreadable folder.
        """
        collecting = gc.isenabled()
        gc.disable()  # the collector would search the growing heap many times
        try:
            self._read_new()
        finally:
            if collecting:
                gc.enable()
        if self._frame is None:
            self._frame = self._build()
        return self._frame.copy(deep=False)

    def from_others(self) -> int:
        """Number of record lines that other processes wrote; reads only new lines from disk."""
        self._read_new()
        own = self._writer.name
        return sum(source.lines for name, source in self._sources.items() if name != own)

    def _build(self) -> "pd.DataFrame":
        import pandas as pd

        best: dict[str, Row] = {}
        rows = [row for source in self._sources.values() for row in source.rows]
        for row in sorted(rows, key=attrgetter("finished")):
            earlier = best.get(row.key)
            if earlier is None or earlier.status == "failed":
                best[row.key] = row
        rows = sorted(best.values(), key=attrgetter("finished", "key"))
        columns = zip(*rows, strict=True) if rows else itertools.repeat(())
        kinds = lines.COLUMNS.items()
        return pd.DataFrame(
            {n: pd.Series(column, dtype=k) for (n, k), column in zip(kinds, columns, strict=False)}
        )

    def _read_new(self) -> None:
        """Read new lines from disk, and drop the frame if there were any."""
        names = listing(self.folder, r"records-.*\.jsonl")
        for name in self._sources.keys() - set(names):
            del self._sources[name]
            self._frame = None
        for name in names:
            path = self.folder / name
            with disk(path, "read"), path.open("rb") as file:
                stat = os.fstat(file.fileno())
                source = self._sources.get(name)
                if source is None or source.inode != stat.st_ino or source.offset > stat.st_size:
                    source = self._sources[name] = _Source(stat.st_ino)
                    self._frame = None
                self._read(path, file, source)

    def _read(self, path: Path, file: IO[bytes], source: _Source) -> None:
        file.seek(source.offset)
        torn, before = False, len(source.damage)
        while not torn and (batch := list(itertools.islice(file, _BATCH))):
            # Stop at a line without its end, although its writer may have gone on since.
            whole = list(itertools.takewhile(lambda line: line.endswith(b"\n"), batch))
            torn = len(whole) < len(batch)
            rows, damage = self._reader.read(path, whole, source.lines)
            source.rows += rows
            source.damage += damage
            source.offset += sum(len(line) for line in whole)
            source.lines += len(whole)
            self._frame = None
        if len(source.damage) > before:
            warnings.warn(left_out(path, source.damage), LeftOut, stacklevel=2)

    def write_manifest(self, suite: Suite) -> None:
        """Write the resolved suite beside its records.

        Raises InputError where the folder belongs to another suite, or cannot be written.
        """
        path = self.folder / _MANIFEST
        schema, earlier = self._manifest_at(path)
        if earlier is not None and schema == FIRST_SCHEMA:
            with disk(path, "written"):
                path.replace(self.folder / _FIRST_MANIFEST)
        manifest = {"schema": SCHEMA, **as_manifest(suite)}
        self.write_text(_MANIFEST, json.dumps(manifest, indent=1) + "\n")

    def read_manifest(self) -> Suite | None:
        """The suite of the last run here with this store's schema, None before the first run.

        Raises InputError for a damaged manifest, an unknown schema, or another suite's folder.
        """
        names = (_FIRST_MANIFEST, _MANIFEST) if self.schema == FIRST_SCHEMA else (_MANIFEST,)
        for name in names:
            schema, suite = self._manifest_at(self.folder / name)
            if suite is not None and schema == self.schema:
                return suite
        return None

    def _manifest_at(self, path: Path) -> tuple[int, Suite | None]:
        """Schema and suite of a manifest; no suite where there is no file."""
        try:
            with disk(path, "read"):
                data = path.read_bytes()
        except FileNotFoundError:
            return self.schema, None
        try:
            manifest = json.loads(data)
            schema = manifest.pop("schema")
            if type(schema) is not int:
                raise ValueError(f"schema is {schema!r:.40}")
            known = schema in (FIRST_SCHEMA, SCHEMA)
            suite = stored_suite(manifest, schema) if known else None
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}: damaged suite manifest ({error})",
                "delete that file; the next run writes it again",
            ) from None
        if suite is None:
            raise newer(str(path), schema)
        if suite.name != self.suite:
            raise InputError(
                f"{path}: got suite {suite.name!r}, needs {self.suite!r}: "
                "this folder holds another suite's records",
                "rename the folder back, or name another results folder",
                cures=("results",),
            )
        return schema, suite

    def check(self) -> None:
        """Raises InputError where this suite's folder cannot be written."""
        path = self.folder / f".{mark()}.tmp"
        with disk(path, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.unlink()

    def write_text(self, name: str, text: str) -> None:
        """Write a file of this suite whole or not at all."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of this suite whole or not at all."""
        with self.replacing(name) as temporary:
            temporary.write_bytes(data)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Generator[Path]:
        """A temporary path that replaces `name` if the block ends without an error."""
        final = self.folder / name
        temporary = final.with_name(f".{final.name}.{mark()}.tmp")
        with disk(final, "written"):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield temporary
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(final)
            finally:
                temporary.unlink(missing_ok=True)

    def save_snapshot(self, key: str, write: Callable[[Path], None]) -> None:
        """Write the state of a unit between two steps; a kill leaves the snapshot before it."""
        with self.replacing(f"snapshots/{key}.pt") as temporary:
            write(temporary)

    def find_snapshot(self, key: str) -> Path | None:
        """Path of the snapshot of a unit, None where it has none."""
        path = self.folder / f"snapshots/{key}.pt"
        return path if path.is_file() else None

    def drop_snapshot(self, key: str) -> None:
        """Delete the snapshot of a unit. Raises InputError where the folder cannot be written."""
        path = self.folder / f"snapshots/{key}.pt"
        with disk(path, "written"):
            path.unlink(missing_ok=True)

    def drop_torn_snapshots(self) -> None:
        """Delete half-written snapshots of killed processes. No process may be at work here."""
        for name in listing(self.folder / "snapshots", r".*\.tmp"):
            path = self.folder / "snapshots" / name
            with disk(path, "written"):
                path.unlink(missing_ok=True)

    def study_url(self) -> Path:
        """Path of this suite's Optuna journal."""
        return self.folder / "studies.journal"

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Generator[None]:
        """Only one process is in this block of a file; a killed one loses the lock."""
        with disk(self.folder / name, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f".{name}.lock").open("a") as file:
                lock(file)
                yield


def stored_suites(root: Path) -> list[str]:
    """Names of the suites with records or a manifest under `root`, newest first."""
    times: dict[str, float] = {}
    for folder in (root / name for name in listing(root, r"[^.].*") if (root / name).is_dir()):
        for path in (folder / n for n in listing(folder, _OF_A_SUITE)):
            with disk(path, "read"):
                times[folder.name] = max(path.stat().st_mtime, times.get(folder.name, 0.0))
    return sorted(times, key=lambda suite: (-times[suite], suite))


def holds_suite(folder: Path) -> bool:
    """Whether a folder has records or a manifest of its own. Raises InputError as `listing`."""
    return folder.is_dir() and bool(listing(folder, _OF_A_SUITE))
