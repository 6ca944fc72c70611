"""Files on disk: append a line whole or not at all, list a folder, name the errors of a disk."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Generator
from pathlib import Path
from typing import IO

from hptransfer.errors import InputError

HOST = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


class Appender:
    """A writer's own file `KIND-MARK.jsonl` in a folder. Nothing is created before a write."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._fd: int | None = None
        self._path = folder

    @property
    def name(self) -> str:
        """Name of the file; that of the folder before the first line."""
        return self._path.name

    def append(self, data: bytes) -> None:
        """Write a line through to the disk. Raises InputError on a full or read-only disk."""
        with disk(self._path, "written"):
            if self._fd is None:
                self._path = self._folder / f"{self._kind}-{mark()}.jsonl"
                self._folder.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._fd = os.open(self._path, flags, 0o644)
            before = os.fstat(self._fd).st_size
            try:
                if os.write(self._fd, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._fd)
            except BaseException as error:
                # No line may follow a torn one: cut it off and open a new file for the next record.
                # If the cut fails too, the torn line stays the last of its file. A line that was
                # whole before an interrupt counts.
                fd, self._fd = self._fd, None
                with contextlib.suppress(OSError):
                    if isinstance(error, OSError) or os.fstat(fd).st_size < before + len(data):
                        os.ftruncate(fd, before)
                os.close(fd)
                raise


def mark() -> str:
    """A part for a file's name that no other file has: host, pid and a random number."""
    return f"{HOST}-{os.getpid()}-{secrets.token_hex(4)}"


def listing(folder: Path, pattern: str) -> list[str]:
    """Names in a folder that match a regular expression; none where there is no folder.

    Raises InputError where the folder cannot be read.
    """
    with disk(folder, "read"), contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(folder) if re.fullmatch(pattern, name))
    return []


@contextlib.contextmanager
def disk(path: Path, what: str) -> Generator[None]:
    """An error of the disk in this block becomes InputError; `what`: "read" or "written".

    An error on the way out of Ctrl-C is still Ctrl-C.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # then a library failed to clean up
            raise error.__context__ from None
        # A missing file is no error to every caller.
        if what == "read" and isinstance(error, FileNotFoundError):
            raise
        message = f"{path}: cannot be {what} ({error.strerror})"
        hint, cures = "check its permissions, or name another results folder", ("results",)
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            file = next((p for p in (path, *path.parents) if p.is_file()), path)
            message = f"{file}: is a file, needs a folder"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint, cures = "free some space and start again; finished runs are safe", ()
        raise InputError(message, hint, cures=cures) from None


def lock(file: IO[str]) -> None:
    """Wait for the exclusive lock of a file; does nothing on a file system without locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
