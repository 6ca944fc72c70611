"""Progress on a terminal as bars, elsewhere as one line per finished unit."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hptransfer.cli.text import duration, power, shown
from hptransfer.spec import Unit
from hptransfer.suite.resolved import Suite

if TYPE_CHECKING:
    from hptransfer.run.session import Event, Session, Status
    from hptransfer.spec import RunSpec

REPEAT = 60.0  # seconds between two lines about the other processes


@contextlib.contextmanager
def bar(console: Console, total: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar with the time left on a terminal, elsewhere one line per call.

    The caller calls the result with a text after each of `total` pieces of work.
    """
    if quiet or not console.is_terminal:
        done = 0

        def line(text: str) -> None:
            nonlocal done
            done += 1
            if not quiet:
                console.print(shown(f"[{done}/{total}] {text}"))

        yield line
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda text: progress.update(task, advance=1, description=shown(text).plain)


def others_line(suite: Suite, others: list[str]) -> str:
    """A note of the processes on a suite; `others`: names of those beside this one."""
    if not others:
        return f"note: this process alone works on {suite.name} now"
    count, named = 1 + len(others), ", ".join(others)
    return (
        f"note: with this one {count} processes work on {suite.name} ({named}) and share its runs"
    )


class Live:
    """Progress on stderr: bars on a terminal, one line per finished unit elsewhere.

    `others`: number of other processes that the user knows of. A note of a new number comes at most
    every REPEAT seconds of `clock`.
    """

    def __init__(
        self,
        console: Console,
        session: "Session",
        quiet: bool,
        others: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self.console = console
        self.quiet = quiet
        self.bars = console.is_terminal and not quiet
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.total: TaskID | None = None
        self.tasks: dict[str, TaskID] = {}
        self.losses: dict[str, float] = {}
        self.done = self.left = 0
        self.clock = clock
        self.others, self.waits = others, False
        self.unwritten = False  # the study, as the user knows already
        self.noted = clock() if others else -REPEAT  # time of the last note of others

    def __enter__(self) -> "Live":
        if self.bars:
            self.progress.start()
            self.total = self.progress.add_task("all runs", total=1, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self.bars:
            self.progress.stop()

    def name(self, unit: Unit) -> str:
        """`adamw width 128  2^-7..2^-5 (3 lanes)`."""
        label, n = self.session.suite.names([unit.spec])[unit.spec.key]
        lrs = sorted({spec.log2_lr for spec in unit.runs})
        lr = power(lrs[0]) if len(lrs) == 1 else f"{power(lrs[0])}..{power(lrs[-1])}"
        lanes = f" ({unit.lanes} lanes)" if unit.lanes > 1 else ""
        return f"{label} {self.session.suite.axis} {n}  {lr}{lanes}"

    def show(self, event: "Event") -> None:
        """Bring the display up to date with one event of a session."""
        from hptransfer.run import session
        from hptransfer.spec import RunRecord, Unit
        from hptransfer.train import engine

        match event:
            case session.Started(unit) if self.bars:
                name = shown(self.name(unit)).plain
                task = self.progress.add_task(name, total=unit.spec.steps, note="")
                self.tasks[unit.spec.key] = task
            case engine.Progress(keys, step, _, loss, alive) if self.bars:
                note = f"loss {loss:.3f}" if alive else "diverged"
                self.progress.update(self.tasks[keys[0]], completed=step, note=note)
            case engine.Restarted(spec, reason) if not self.quiet:
                line = f"note: {self.name(Unit((spec,)))} starts anew: {reason}"
                self.console.print(shown(line), soft_wrap=True)
            case engine.Unsaved(spec, reason) if not self.quiet:
                line = f"note: {self.name(Unit((spec,)))} keeps no snapshot: {reason}"
                self.console.print(shown(line), soft_wrap=True)
            case RunRecord() as record:
                self.losses[record.key] = record.loss
            case session.Ended(unit, error):
                self._ended(unit, error)
            case session.Status() as status:
                self._status(status)
            case session.Unwritten(error, last) if last or not self.unwritten:
                self.unwritten = True
                after = "the next command tries again" if last else "it is tried again later"
                line = f"warning: the Optuna study was not written ({error}); the records are, and"
                self.console.print(shown(f"{line} {after}"), soft_wrap=True)
            case _:
                pass

    def _status(self, status: "Status") -> None:
        self.done, self.left = status.done, status.left
        self._tell_others(status.others)
        waits = self._awaited(status.awaited) if status.awaited else ""
        if self.bars and self.total is not None:
            total = status.done + status.left
            note = f"{status.done}/{total}, {waits or f'about {duration(status.seconds)} left'}"
            self.progress.update(self.total, completed=status.done, total=total, note=note)
        elif waits and not (self.waits or self.quiet):  # one line until this process trains again
            self.console.print(waits, markup=False, soft_wrap=True)
        self.waits = bool(waits)

    def _tell_others(self, others: list[str]) -> None:
        if self.quiet or len(others) == self.others or self.clock() - self.noted < REPEAT:
            return
        self.console.print(shown(others_line(self.session.suite, others)), soft_wrap=True)
        self.others, self.noted = len(others), self.clock()

    def _awaited(self, awaited: "list[tuple[RunSpec, str]]") -> str:
        """`waits for adamw width 128  2^-5 of pid 1234 and 2 other runs`."""
        (spec, process), *more = awaited
        runs = f" and {len(more)} other run{'s' if len(more) > 1 else ''}" if more else ""
        return f"waits for {self.name(Unit((spec,)))} of {process}{runs}"

    def _ended(self, unit: Unit, error: str) -> None:
        if unit.spec.key in self.tasks:
            self.progress.remove_task(self.tasks.pop(unit.spec.key))
        if self.quiet:
            return
        if error:
            self.console.print(shown(f"failed: {self.name(unit)}: {error}", "red"))
        elif not self.bars:
            best = min(self.losses.pop(spec.key, float("inf")) for spec in unit.runs)
            loss = "diverged" if best == float("inf") else f"{best:.3f}"
            done = self.done + unit.lanes
            line = f"[{done}/{max(done, self.done + self.left)}] {self.name(unit)}  {loss}"
            self.console.print(shown(line), soft_wrap=True)
