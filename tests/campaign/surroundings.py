"""Disks and environments that a command does not expect: it works, or refuses with one line.

    python tests/campaign/surroundings.py [--repeats 5]

A full disk is a tmpfs of 1 MB where the process may mount one, and a limit on the size of a file.
After each refusal the command is run again without what was in its way, and must finish.
"""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

from places import Done, Place, delay, ended, environment, input_error, parser, table

RUN = ("run", "tiny.toml", "--workers", "1")
NOBODY = 54321  # a user without an entry in the table of users


class SkipError(Exception):
    """This machine does not let the case be made; says why."""


def mount(*arguments: str) -> None:
    """Raises SkipError where this process may not mount."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SkipError(f"mount: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(where: Path, *arguments: str) -> Generator[None]:
    where.mkdir(parents=True, exist_ok=True)
    mount(*arguments, str(where))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def limited(kind: int, amount: int) -> Callable[[], None]:
    """For a child process: this resource is limited."""
    return partial(resource.setrlimit, kind, (amount, amount))


def either(place: Place, done: Done, before: list[str]) -> list[str]:
    """What is wrong after a command that may finish or refuse, and after the run that follows.

    `before`: the runs that were recorded before the command.
    """
    found = [] if done.code == 0 else input_error(done)
    found += ["traceback"] if "Traceback" in done.text else []
    before = [*before, *place.lines()]
    return found + [f"then: {f}" for f in place.faults(place.command(*RUN), before)]


def full_disk(place: Place, generator: random.Random) -> list[str]:
    ballast = place.folder / "results" / "ballast"
    with mounted(place.folder / "results", "-t", "tmpfs", "-o", "size=1m", "none"):
        ballast.write_bytes(bytes(2**20 - generator.choice((0, 4, 8, 16, 32, 64, 128)) * 1024))
        done = place.command(*RUN)
        before = list(place.lines())
        ballast.unlink()
        return either(place, done, before)


def small_files(place: Place, generator: random.Random) -> list[str]:
    limit = limited(resource.RLIMIT_FSIZE, generator.choice((0, 500, 2000, 5000, 10_000, 50_000)))
    return either(place, place.command(*RUN, before=limit), [])


def removed(place: Place, generator: random.Random) -> list[str]:
    """The results are lost, so that none of them can be known afterwards."""
    command = place.start(*RUN)
    command.until(lambda: any(place.results.glob("running-*")))
    delay(generator, 2.0)
    shutil.rmtree(place.results, ignore_errors=True)
    done = command.end()
    if done.code == 0:
        shutil.rmtree(place.results, ignore_errors=True)
    return either(place, done, [])


def read_only(place: Place, generator: random.Random) -> list[str]:
    faults = place.faults(place.command(*RUN))
    before = list(place.lines())
    results = place.folder / "results"
    with mounted(results, "--bind", str(results)):
        mount("-o", "remount,ro,bind", str(results))
        for arguments in (("report", "tiny"), RUN):
            faults += [f"{arguments[0]}: {f}" for f in input_error(place.command(*arguments))]
        for arguments in (("export", "tiny.toml"), ("plan", "tiny.toml", "--workers", "1")):
            done = place.command(*arguments)
            faults += [f"{arguments[0]}: {done.text[-300:]}"] if done.code else []
    return faults + place.faults(place.command(*RUN), before)


def no_home(place: Place, generator: random.Random) -> list[str]:
    env = {k: v for k, v in environment().items() if k not in ("HOME", "XDG_CACHE_HOME")}
    return place.faults(place.command(*RUN, env=env))


def nobody(place: Place, generator: random.Random) -> list[str]:
    """HOME unset, and a user whose home no table names."""
    if os.geteuid():
        raise SkipError("needs root")
    for path in (place.folder, *place.folder.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    place.folder.parent.chmod(0o711)  # the folder of this campaign
    env = {k: v for k, v in environment().items() if k not in ("HOME", "XDG_CACHE_HOME")}
    try:
        done = place.command(*RUN, env=env, user=NOBODY)
    except PermissionError as error:
        raise SkipError("that user may not run this Python") from error
    return place.faults(done)


def few_files(place: Place, generator: random.Random) -> list[str]:
    """At most 64 open files, as after `ulimit -n 64`."""
    limit = limited(resource.RLIMIT_NOFILE, 64)
    command = (*RUN[:-1], generator.choice(("1", "2", "8")))
    return either(place, place.command(*command, before=limit), [])


CASES = (full_disk, small_files, removed, read_only, no_home, nobody, few_files)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--only", nargs="*", default=[case.__name__ for case in CASES])
    chosen = options.parse_args()
    rows: list[list[object]] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for case in (case for case in CASES if case.__name__ in chosen.only):
            began, own, skipped = time.monotonic(), [], ""
            for number in range(chosen.repeats):
                generator = random.Random(f"{chosen.seed} {number}")
                place = Place.make(Path(name) / f"{case.__name__}-{number}")
                try:
                    own += [f"{case.__name__} {number}: {f}" for f in case(place, generator)]
                except SkipError as why:
                    skipped = f"skipped: {why}"
                    break
            times = 0 if skipped else chosen.repeats
            seconds = time.monotonic() - began
            rows.append([case.__name__, times, skipped or len(own), f"{seconds:.0f}"])
            faults += own
    table(["surroundings", "times", "faults", "seconds"], rows)
    ended(faults)


if __name__ == "__main__":
    main()
