"""Damaged suites, records, manifests and caches: each is read, or refused as InputError.

    python tests/campaign/mutate.py [--cases 10000] [--jobs 2] [--seed 0]

Half of the cases change bytes, half change a value, a key or the order in what the file says. A
case of more than ten seconds of the processor counts as a hang. Pages are drawn in one case of 40.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from places import Place, ended, parser, rest, stoppable, table, tell

LIMIT = 10.0  # seconds of the processor, so that a busy machine makes no hang
SLEEP = 1800.0  # seconds of the clock: a busy machine may hold up a case for minutes
KINDS = ("suite", "record", "manifest", "cache")
OUTCOMES = ("read", "refused", "fault", "hang")
NUMBERS = (0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e300, 1e-300)
TEXTS = ("", "\0", "x" * 5000, "[/red]", "$\\frac{$", "../..", "é\u202e", "=1+1", "2^-8..2^-4")
VALUES = (*NUMBERS, *TEXTS, None, True, [], {}, [1], [[1], [2]], {"name": "x"}, [None], "adamw")
JSON_WORDS = (b"NaN", b"1e999", b"null", b"[" * 3000, b"{", b"}", b'"', b",", b"9" * 5000, b"\xff")
TOML_WORDS = (b"= [", b"[a]\n", b'"""', b"inf", b"nan", b"2^-4", b"\n[optimizers.b]\n", b"\\u0000")


class OverTime(BaseException):
    """A case took longer than LIMIT or SLEEP. No `except Exception` may hold it up."""


@contextlib.contextmanager
def within(seconds: float) -> Generator[None]:
    def over(*_: object) -> None:
        raise OverTime

    signal.signal(signal.SIGPROF, over)
    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, SLEEP)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def bytes_changed(data: bytes, generator: random.Random, words: tuple[bytes, ...]) -> bytes:
    """One to four edits: a byte, a word, a cut, a copy, a swap."""
    for _ in range(generator.choice((1, 1, 2, 4))):
        i, j = sorted(generator.randrange(len(data) + 1) for _ in range(2))
        j = min(j, i + generator.choice((1, 4, 64, 1000)))
        data = generator.choice(
            (
                data[:i] + bytes([generator.randrange(256)]) + data[i + 1 :],
                data[:i] + generator.choice(words) + data[i:],
                data[:i] + generator.choice(words) + data[j:],
                data[:i] + data[j:],
                data[:j] + data[i:],
                data[:i],
                data[:i] + str(generator.choice(NUMBERS)).encode() + data[i + 1 :],
            )
        )
    return data


@dataclass(frozen=True)
class Field:
    """A value inside an object of a JSON text."""

    holder: dict[str, object]
    key: str

    def get(self) -> object:
        return self.holder[self.key]

    def set(self, value: object) -> None:
        self.holder[self.key] = value

    def remove(self) -> None:
        del self.holder[self.key]


@dataclass(frozen=True)
class Item:
    """A value inside a list of a JSON text."""

    holder: list[object]
    index: int

    def get(self) -> object:
        return self.holder[self.index]

    def set(self, value: object) -> None:
        self.holder[self.index] = value

    def remove(self) -> None:
        del self.holder[self.index]


def values_in(value: object) -> list[Field | Item]:
    """Every value inside, at any depth."""
    own: list[Field | Item] = []
    if isinstance(value, dict):
        own += [Field(value, key) for key in value]
    elif isinstance(value, list):
        own += [Item(value, i) for i in range(len(value))]
    return own + [inner for each in own for inner in values_in(each.get())]


def json_changed(data: bytes, generator: random.Random) -> bytes:
    """One or two values of a JSON text, replaced, taken out, renamed or put elsewhere."""
    value = json.loads(data)
    for _ in range(generator.choice((1, 1, 2))):
        inner = values_in(value)
        if not inner:
            return json.dumps(generator.choice(VALUES)).encode()
        one, other = generator.choice(inner), generator.choice(inner)
        way = generator.randrange(5)
        if way == 0:
            one.remove()
        elif way == 1 and isinstance(one, Field):
            one.holder[generator.choice(TEXTS)] = one.holder.pop(one.key)
        elif way == 2:
            one.set(json.loads(json.dumps(other.get())))
        else:
            one.set(generator.choice(VALUES))
    return json.dumps(value).encode()


def lines_changed(data: bytes, generator: random.Random) -> bytes:
    """A suite whose lines are out of order, doubled, or with another value."""
    lines = data.decode().splitlines()
    i, j = (generator.randrange(len(lines)) for _ in range(2))
    way = generator.randrange(4)
    if way == 0:
        lines[i], lines[j] = lines[j], lines[i]
    elif way == 1:
        lines.insert(i, lines[j])
    elif way == 2:
        del lines[i]
    else:
        name = lines[i].partition("=")[0] or "x "
        lines[i] = f"{name}= {json.dumps(generator.choice(VALUES))}"
    return "\n".join(lines).encode()


def suite_case(data: bytes, generator: random.Random) -> bytes:
    if generator.random() < 0.5:
        return bytes_changed(data, generator, TOML_WORDS + JSON_WORDS)
    return lines_changed(data, generator)


def json_case(data: bytes, generator: random.Random) -> bytes:
    if generator.random() < 0.5:
        return bytes_changed(data, generator, JSON_WORDS)
    return json_changed(data, generator)


def record_case(data: bytes, generator: random.Random) -> bytes:
    """One line of many is changed."""
    lines = data.splitlines(keepends=True)
    i = generator.randrange(len(lines))
    lines[i] = json_case(lines[i].rstrip(b"\n"), generator) + b"\n"
    return b"".join(lines)


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "suite": suite_case,
    "record": record_case,
    "manifest": json_case,
    "cache": json_case,
}


@dataclass(frozen=True)
class Files:
    """What is damaged: one file of each kind, and what it holds undamaged."""

    place: Place
    cache: Path

    def path(self, kind: str) -> Path:
        if kind == "record":
            return next(self.place.results.glob("records-*.jsonl"))
        return {
            "suite": self.place.folder / "tiny.toml",
            "manifest": self.place.results / "suite.json",
            "cache": self.cache / "hptransfer" / "known.json",
        }[kind]


def command(*arguments: str) -> int:
    """The command line in this process: its exit code."""
    from hptransfer import cli

    sys.argv = ["hptransfer", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def read(kind: str, pages: bool) -> int:
    """Whatever reads such a file: exit code 0, or 2 with an InputError."""
    if kind == "suite":
        return command(*(("plan", "--workers", "1") if pages else ("cite",)), "tiny.toml")
    if kind == "cache":
        return command("plan", "tiny.toml", "--workers", "1", "--results", "none")
    if pages:
        return command("report", "tiny")
    return command("export", "tiny.toml") or numbers()


def numbers() -> int:
    """The report without its figures."""
    from hptransfer.errors import InputError
    from hptransfer.records.store import Store
    from hptransfer.report import metrics_json, runs_table
    from hptransfer.report.write import section

    store = Store(Path("results"), "tiny")
    try:
        suite = store.read_manifest()
        if suite is not None and suite.templates:  # without them a report is refused
            frame = store.frame()
            json.dumps(metrics_json([section(suite, frame, Path("results"))]))
            runs_table(suite, frame)
            return 0
    except InputError as error:
        if "\n" in str(error) or not error.hint:
            raise RuntimeError(f"no cause and cure in one line each: {error}") from None
    return 2


def outcome(kind: str, pages: bool, limit: float = LIMIT) -> tuple[str, str]:
    """One of OUTCOMES, and what went wrong."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with within(limit), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = read(kind, pages)
    except OverTime:
        where = [f"{line.name}:{line.lineno}" for line in traceback.extract_tb(sys.exc_info()[2])]
        return "hang", " ".join(where[-8:])
    except Exception:
        return "fault", traceback.format_exc().strip()[-600:]
    if code in (0, 2):
        return ("refused" if code else "read"), ""
    return "fault", f"exit code {code}: {err.getvalue()[-300:]}"


def chunk(files: Files, seed: int, numbers: range) -> list[tuple[str, str, float, str]]:
    """These cases, in a copy of the files: kind, outcome, seconds, and what went wrong."""
    warnings.simplefilter("ignore")
    found = []
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(files.place.folder, f"{name}/place")
        shutil.copytree(files.cache, f"{name}/cache")
        own = Files(Place(Path(f"{name}/place")), Path(f"{name}/cache"))
        os.environ["XDG_CACHE_HOME"] = str(own.cache)
        os.chdir(own.place.folder)
        whole = {kind: own.path(kind).read_bytes() for kind in KINDS}
        paths = {kind: own.path(kind) for kind in KINDS}
        for kind in KINDS:  # also imports everything, outside the limits
            how, why = outcome(kind, pages=False, limit=SLEEP)
            assert how == "read", f"undamaged {kind}: {how} {why}"
        for number in numbers:
            generator = random.Random(f"{seed} {number}")
            kind = KINDS[number % len(KINDS)]
            paths[kind].write_bytes(CHANGES[kind](whole[kind], generator))
            began = time.process_time()
            how, why = outcome(kind, pages=number // len(KINDS) % 40 == 0)
            seconds = time.process_time() - began
            found.append((kind, how, seconds, why and f"case {number} ({kind}): {why}"))
            paths[kind].write_bytes(whole[kind])
        os.chdir("/")
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--cases", type=int, default=10_000)
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    began = time.monotonic()
    cases: list[tuple[str, str, float, str]] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        place = Place.make(Path(name) / "place")
        done = place.command("run", "tiny.toml", "--workers", "1")
        assert done.code == 0, done.text
        assert place.command("plan", "tiny.toml", "--workers", "1", "--results", "none").code == 0
        do = partial(chunk, Files(place, Path(name) / "cache"), chosen.seed)
        size = max(1, min(100, chosen.cases // chosen.jobs))
        parts = [range(i, min(i + size, chosen.cases)) for i in range(0, chosen.cases, size)]
        with ProcessPoolExecutor(chosen.jobs) as pool:
            with stoppable():
                for part in pool.map(do, parts):
                    cases += part
                    tell(len(cases), chosen.cases, [why for *_, why in part if why])
            pool.shutdown(cancel_futures=True)
    rows: list[list[object]] = []
    for kind in KINDS:
        own = [case for case in cases if case[0] == kind]
        counts = [sum(how == outcome for _, how, *_ in own) for outcome in OUTCOMES]
        slowest = max((seconds for *_, seconds, _ in own), default=0.0)
        rows.append([kind, len(own), *counts, f"{slowest:.1f}"])
    table(["damaged", "cases", *OUTCOMES, "slowest, s"], rows)
    print(f"\n{time.monotonic() - began:.0f} s")
    ended([why for *_, why in cases if why] + rest(len(cases), chosen.cases))


if __name__ == "__main__":
    main()
