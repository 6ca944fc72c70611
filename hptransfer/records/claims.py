"""The processes at work on a suite, and the runs that each has claimed, as files in its folder.

A process has a file `running-<host>-<pid>-<hex>.json`, which it locks and renews while it lives. A
claim is a symbolic link `claim-<key>.<n>` to the file of its process, because the system makes a
link whole or not at all, and for one process alone. On a file system without links a regular file
takes its place, with the name of the process's file as its text.

The claim of a dead process is free: the process that takes over the run makes the claim with the
next number, so only one can take it over. Claims of dead processes stay until the run is recorded
or nobody else is at work.

The kernel frees the lock of a killed process. A file system may have no locks, or hide those of
another host. There a process counts as dead if it has not renewed its file for LEASE seconds, by
the clock of the file system, because the clocks of hosts differ.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import IO

from hptransfer.records.disk import HOST, disk, listing, lock, mark

LEASE = 120.0  # seconds; longer than a pause of a file server
BEAT = 10.0  # seconds between renewals

_START = "running-"
_RUNNING = re.compile(r"running-(?P<host>.+?)-(?P<pid>\d+)(-[0-9a-f]+)?\.json")
# Errors of file systems that have no symbolic links.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_CLAIM = re.compile(r"claim-(?P<key>[0-9a-f]+)\.(?P<number>\d+)")


class Claims:
    """The processes at work on the suite in this folder, and their claims."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = ""  # name of this process's file, "" outside `announce`
        self._file: IO[str] | None = None
        self._held: dict[str, int] = {}  # key -> number of the claim

    @contextlib.contextmanager
    def announce(self) -> Generator[None]:
        """In this block other processes see this one, and it can claim runs.

        The end of the block releases all claims. Raises InputError where the folder cannot be
        written.
        """
        self._own = f"running-{mark()}.json"
        path = self.folder / self._own
        since = time.strftime("%H:%M")
        with disk(path, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._show(since)
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over, since), daemon=True)
        beat.start()
        try:
            self._clear()
            yield
        finally:
            over.set()
            beat.join()
            self.release(list(self._held))
            self._clear()
            with disk(path, "written"):
                path.unlink(missing_ok=True)
            if self._file is not None:
                self._file.close()
            self._own, self._file = "", None

    def others(self) -> list[str]:
        """Other live processes on this suite, as `pid 1234 since 10:31`."""
        live = []
        for name in listing(self.folder, _RUNNING.pattern):
            if name == self._own:
                continue
            if self._lives(name):
                live.append(f"{_who(name)}{self._since(name)}")
            else:
                with contextlib.suppress(OSError):  # a reader may have no right to write
                    (self.folder / name).unlink(missing_ok=True)
        return sorted(live)

    def taken(self) -> dict[str, str]:
        """Claims of other live processes: run key -> `pid 1234`."""
        holders = {key: holder for key, (_, holder) in self._last_claims().items()}
        return {key: _who(name) for key, name in holders.items() if name not in ("", self._own)}

    def claim(self, keys: Iterable[str]) -> set[str]:
        """Claim those runs that no live process has claimed; returns the keys of these.

        Another process may have recorded such a run already, so look at the records afterwards.
        Raises InputError where the folder cannot be written.
        """
        assert self._own, "claim works inside announce"
        claims = self._last_claims()
        won = set()
        for key in keys:
            last, holder = claims.get(key, (-1, ""))
            if holder:
                continue
            path = self.folder / f"claim-{key}.{last + 1}"
            with disk(path, "written"), contextlib.suppress(FileExistsError):
                _make_claim(path, self._own)
                self._held[key] = last + 1
                won.add(key)
        return won

    def release(self, keys: Iterable[str], *, recorded: bool = False) -> None:
        """Give up the claims on these runs. `recorded`: a record makes older claims useless too."""
        for key in keys:
            number = self._held.pop(key, None)
            if number is None:
                continue
            for i in range(0 if recorded else number, number + 1):
                path = self.folder / f"claim-{key}.{i}"
                with disk(path, "written"):
                    path.unlink(missing_ok=True)

    def _last_claims(self) -> dict[str, tuple[int, str]]:
        """Run key -> number of its last claim, and the live process with a claim, "" for none."""
        lives: dict[str, bool] = {}
        claims: dict[str, tuple[int, str]] = {}
        for name in listing(self.folder, _CLAIM.pattern):
            claim = _CLAIM.fullmatch(name)
            assert claim is not None
            holder = self._holder(name)
            if holder is None:
                continue
            if holder not in lives:
                lives[holder] = self._lives(holder)
            last, other = claims.get(claim["key"], (-1, ""))
            live = holder if lives[holder] else ""
            claims[claim["key"]] = max(last, int(claim["number"])), other or live
        return claims

    def _holder(self, claim: str) -> str | None:
        """Name of the process's file behind a claim; None where the claim has just gone.

        A regular file with half its text stands for itself: it counts as a process that lives until
        the lease is over. Any other text belongs to no process, "".
        """
        path = self.folder / claim
        try:
            return os.readlink(path)
        except FileNotFoundError:
            return None
        except OSError:  # a regular file
            pass
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError:
            return ""
        if _RUNNING.fullmatch(text):
            return text
        return claim if _START.startswith(text[: len(_START)]) else ""

    def _clear(self) -> None:
        """Delete the claims of dead processes, if nobody else is at work."""
        if self.others():
            return
        for name in listing(self.folder, _CLAIM.pattern):
            holder = self._holder(name)
            if holder is not None and not self._lives(holder):
                with disk(self.folder / name, "written"):
                    (self.folder / name).unlink(missing_ok=True)

    def _show(self, since: str) -> None:
        """Make this process's file."""
        temporary = self.folder / f".{self._own}.tmp"
        file = temporary.open("w")
        try:
            lock(file)  # before the file has its name, or others would take this process for dead
            json.dump({"since": since}, file)
            file.flush()
            temporary.replace(self.folder / self._own)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
        if self._file is not None:
            self._file.close()
        self._file = file

    def _beat(self, over: threading.Event, since: str) -> None:
        """Renew this process's file until the work is over, also after an error of the disk."""
        while not over.wait(BEAT):
            with contextlib.suppress(OSError):
                try:
                    os.utime(self.folder / self._own)
                except FileNotFoundError:  # this process slept, and another took it for dead
                    self._show(since)

    def _lives(self, name: str) -> bool:
        """Whether the process with this file lives; also true where the disk does not tell."""
        if name in ("", self._own):
            return bool(name)
        try:
            file = (self.folder / name).open("rb")
        except FileNotFoundError:
            return False
        except OSError:
            return True
        with file:
            # fstat of an open file is up to date on a network; stat of a path may be cached.
            renewal = os.fstat(file.fileno()).st_mtime
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                pass  # a file system without locks
            else:
                if _parts(name)[0] == HOST:
                    return False
        try:
            return self._now() - renewal <= LEASE
        except OSError:
            return True

    def _now(self) -> float:
        """Seconds by the clock of the file system, which also dates the files of processes."""
        path = self.folder / f".{mark()}.tmp"
        try:
            path.touch()
            os.utime(path)
            return path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)

    def _since(self, name: str) -> str:
        try:
            return f" since {json.loads((self.folder / name).read_bytes())['since']}"
        except (OSError, ValueError, LookupError, TypeError):
            return ""  # the process has ended, or a newer version wrote its file


def _make_claim(path: Path, own: str) -> None:
    """Make a claim of the process with the file `own`.

    Raises FileExistsError where another process has made this claim, and OSError.
    """
    try:
        path.symlink_to(own)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            text = own.encode()
            if os.write(file, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)


def _parts(name: str) -> tuple[str, str]:
    """Host and pid of a process from the name of its file; empty for any other name."""
    match = _RUNNING.fullmatch(name)
    return (match["host"], match["pid"]) if match else ("", "")


def _who(name: str) -> str:
    host, pid = _parts(name)
    if not pid:  # the process has written half of its claim
        return "another process"
    return f"pid {pid}" if host == HOST else f"pid {pid} on {host}"
