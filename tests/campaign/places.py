"""What the campaigns share: a place with a suite of seconds, commands there, and an account."""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from hptransfer.cost.machine import usable_cores

COMMAND = [sys.executable, "-m", "hptransfer"]
PATIENCE = 600.0  # seconds; a command that takes longer counts as one that never ends

SUITE = """
claim = "a claim"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }
data = { name = "file", path = "TEXT" }
base = { width = 8 }
proxy = 8
targets = [16]
steps = 10
batch = 2
eval_tokens = 512
seeds = 1
max_seeds = 1
trials = 4
verify = false
negative_control = "adamw"

[optimizers.adamw]
lr = "2^-8..2^-4"
[optimizers.scion]
lr = "2^-6..2^-2"
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended: exit code, and what it wrote to stdout and stderr."""

    code: int
    text: str


@dataclass(frozen=True)
class Place:
    """A folder with the suite `tiny.toml`, its text and, after a run, `results/`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Place":
        folder.mkdir(parents=True)
        text = folder / "text.txt"
        text.write_bytes(bytes(i * i % 251 for i in range(60_000)))
        (folder / "tiny.toml").write_text(SUITE.replace("TEXT", str(text)))
        return cls(folder)

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
        user: int | None = None,
    ) -> "Started":
        """A command in a process group of its own. `before` runs in the child process."""
        with (self.folder / f"out-{time.monotonic_ns()}.txt").open("w+b") as out:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.folder,
                env=environment() if env is None else env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=before,
                user=user,
            )
        return Started(process, Path(out.name))

    def command(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
        user: int | None = None,
    ) -> Done:
        """A command to its end. Takes the options of `start`."""
        return self.start(*arguments, env=env, before=before, user=user).end()

    def lines(self) -> Counter[str]:
        """How many whole records of finished training every run has."""
        found: Counter[str] = Counter()
        for path in self.results.glob("records-*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                for line in path.read_bytes().splitlines(keepends=True):
                    if line.endswith(b"\n"):
                        record = json.loads(line)
                        found[record["key"]] += record["status"] != "failed"
        return found

    def torn(self) -> int:
        """Records files whose last line has no end."""
        texts = [path.read_bytes() for path in self.results.glob("records-*.jsonl")]
        return sum(text != b"" and not text.endswith(b"\n") for text in texts)

    def litter(self) -> list[str]:
        """Temporary files, claims and marks of processes that nobody has cleared away."""
        names = (path.name for path in self.results.rglob("*"))
        return [n for n in names if n.endswith(".tmp") or n.startswith(("claim-", "running-"))]

    def faults(self, done: Done, before: Iterable[str] = ()) -> list[str]:
        """What is wrong after a command that had to finish the suite. `before`: runs known then."""
        found = [f"exit code {done.code}: {done.text[-300:]}"] if done.code else []
        lines = self.lines()
        found += ["traceback"] if "Traceback" in done.text else []
        found += [f"lost {key}" for key in before if not lines[key]]
        found += [f"trained {count} times: {key}" for key, count in lines.items() if count > 1]
        if not found:
            found += self._report_faults(len(lines))
        return found

    def _report_faults(self, runs: int) -> list[str]:
        page = (self.results / "report.html").read_text()
        metrics = json.loads((self.results / "metrics.json").read_text())
        counts = metrics["suites"][0]["runs"]
        found = [] if page.rstrip().endswith("</html>") else ["report.html is torn"]
        complete = counts["found"] == counts["expected"] == runs
        return found if complete else [*found, f"{runs} runs on disk, the report has {counts}"]


@dataclass(frozen=True)
class Started:
    """A command under way."""

    process: subprocess.Popen[bytes]
    out: Path

    def end(self) -> Done:
        """Wait for it, and kill it after PATIENCE."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = 124
        return Done(code, self.kill())

    def kill(self) -> str:
        """Kill -9 the process group; what the command wrote."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        text = self.out.read_text(errors="replace")
        self.out.unlink()
        return text

    def until(self, seen: Callable[[], bool]) -> bool:
        """Wait until this holds; False if the command ended first."""
        while not seen():
            if self.process.poll() is not None:
                return False
            time.sleep(0.002)
        return True


def environment(**changes: str) -> dict[str, str]:
    """This process's, with one thread a library."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def input_error(done: Done) -> list[str]:
    """What is wrong after a command that had to refuse with one line and a hint."""
    errors = sum(line.startswith("error: ") for line in done.text.splitlines())
    found = [] if done.code == 2 else [f"exit code {done.code}: {done.text[-300:]}"]
    found += [] if errors == 1 and "hint: " in done.text else [f"no cause and cure: {done.text}"]
    return [*found, "traceback"] if "Traceback" in done.text else found


def table(columns: list[str], rows: list[list[object]]) -> None:
    """Print a Markdown table, and the machine above it."""
    day = time.strftime("%Y-%m-%d")
    cores = usable_cores()
    print(f"{day}, {processor()}, {cores} cores, Python {platform.python_version()}\n")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def parser(text: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, default=0)
    return made


def tell(done: int, total: int, faults: list[str]) -> None:
    """How far the campaign is, and what it has just found, on stderr."""
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    print(f"{done} of {total}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stoppable() -> Generator[None]:
    """Ctrl-C and kill end the block alone, so that what it has done so far is told."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        return


def rest(done: int, total: int) -> list[str]:
    """The fault of a campaign that was stopped."""
    return [f"stopped after {done} of {total}"] if done < total else []


def ended(faults: list[str]) -> None:
    """Exit with 1 where there are faults, the first twenty of them on stderr."""
    for fault in faults[:20]:
        print(f"fault: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


def delay(generator: random.Random, seconds: float) -> None:
    time.sleep(generator.uniform(0.0, seconds))
