"""What the command line shows: tables, progress bars, plain lines. Returns text; cli prints it."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hptransfer import registry
from hptransfer.errors import printable
from hptransfer.suite.claim import Suite, SuiteTable
from hptransfer.suite.file import load_suite, suite_names

if TYPE_CHECKING:
    from hptransfer.run.session import Event, Expected, Session, Status
    from hptransfer.spec import RunSpec
    from hptransfer.testing import Check

SPARKS = "▁▂▃▄▅▆▇█"


def shown(text: str, style: str = "") -> Text:
    """One line for the terminal, of whatever text: no markup of rich, control characters escaped.

    A name in a foreign file could move the cursor or begin a line of its own.
    """
    return Text(printable(text), style)


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def power(log2_lr: float) -> str:
    return f"2^{log2_lr:g}"


def plain_table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], *, text: int = 1
) -> Table:
    """A table whose first columns are text and whose others are numbers."""
    heading = shown(title, "bold")
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < text else "right", no_wrap=i < text)
    for row in rows:
        table.add_row(*map(shown, row))
    return table


def names(kind: str) -> list[str]:
    """Every name of a kind, `suite` included."""
    return suite_names() if kind == "suite" else registry.names(kind)


def plan_table(session: "Session", expected: "list[Expected]", known: int, costs: bool) -> Table:
    """One row an optimizer and axis value: runs, lanes of a process, processes, time.

    With `costs` FLOPs, and the memory of a process.
    """
    axis = session.suite.axis
    rows = [
        (
            cell.label,
            str(cell.n),
            str(len(cell.specs)),
            str(session.costs.lanes(cell.specs[0])),
            str(cell.speed.processes),
            duration(cell.seconds),
            *(
                (
                    f"{cell.flops(session.costs.cost(cell.specs[0])) / 1e12:.3g}",
                    f"{session.costs.memory(cell.specs[0]) / 2**20:.0f}",
                )
                if costs
                else ()
            ),
        )
        for cell in expected
    ]
    title = f"{session.suite.name}: {sum(len(c.specs) for c in expected)} runs to do, {known} known"
    columns = ("optimizer", axis, "runs", "lanes", "processes", "time")
    columns += ("TFLOP", "MiB") if costs else ()
    return plain_table(title, columns, rows)


def parts_table(kind: str) -> Table:
    """Names and one-line summaries of optimizers, models or data sets, or the suites."""
    if kind == "suite":
        rows = [(name, load_suite(name).claim) for name in suite_names()]
    else:
        rows = [(name, registry.describe(kind, name).summary) for name in registry.names(kind)]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for row in rows:
        table.add_row(*map(shown, row))
    table.title, table.title_justify = f"{kind}s", "left"
    return table


@contextlib.contextmanager
def bar(console: Console, total: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar with the time left on a terminal, else a line each; the caller advances it."""
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


def checks_head(target: str, kind: str) -> Text:
    article = "an" if kind == "optimizer" else "a"
    return Text.assemble(shown(target, "bold"), f" as {article} {kind}")


def check_line(check: "Check") -> Text:
    """One clause of a contract: its mark, its text, what was seen."""
    mark = Text("holds", "green") if check.passed else Text("fails", "red")
    line = Text.assemble("  ", mark, "  ", shown(check.name))
    return line.append("  ").append(shown(check.detail, "dim")) if check.detail else line


def bibtex(suite: SuiteTable) -> str:
    """Entries of references.bib that the suite's parts name as their source, and Optuna's.

    A part cites an entry by its arXiv id, or by the author and year of its key.
    """
    parts = [registry.describe("optimizer", t.use or k) for k, t in suite.optimizers.items()]
    parts.append(registry.describe("model", suite.model["name"]))
    doc = " ".join([part.doc for part in parts] + ["Akiba 2019"])
    text = (Path(__file__).parents[1] / "references.bib").read_text(encoding="utf-8")
    entries = [entry.strip() for entry in re.split(r"\n(?=@)", text)]
    return "\n\n".join(entry for entry in entries if _cites(doc, entry))


def _cites(doc: str, entry: str) -> bool:
    key = re.match(r"@\w+\{([a-z]+)(\d{4})", entry)
    assert key is not None
    arxiv = re.findall(r"\b\d{4}\.\d{5}\b", entry)
    named = re.search(rf"\b{key[1]}\b[^.;]{{0,60}}?(et al\. )?{key[2]}", doc, re.IGNORECASE)
    return any(number in doc for number in arxiv) or named is not None


def curve_table(suite: Suite, n: int, rows: Any) -> tuple[Table, list[str]]:
    """The lr curve of every optimizer at one axis value: a table, and a line of points each."""
    from hptransfer.analysis.metrics import clipped, optimum

    lines, points = [], []
    for label in suite.optimizers:
        own = rows[(rows.optimizer == label) & (rows.n == n) & (rows.stage == "search")]
        own = own[own.status != "failed"]
        if own.empty:
            continue
        best = optimum(own)
        mean = own.assign(loss=clipped(own)).groupby("log2_lr").loss.mean()
        diverged = (own.status == "diverged").groupby(own.log2_lr).all()
        flags = [] if best is None else [f"censored ({best.censored})"] if best.censored else []
        flags += ["cliff"] if best is not None and best.cliff else []
        shown = ("-", "-") if best is None else (power(round(best.log2_lr, 2)), f"{best.loss:.4f}")
        lines.append((label, *shown, str(len(own)), spark(list(mean)), " ".join(flags)))
        each = [f"{lr:g}: {'div' if diverged[lr] else f'{v:.3f}'}" for lr, v in mean.items()]
        points.append(f"{label} (log2 lr: loss)  {',  '.join(each)}")
    columns = ("optimizer", "best lr", "loss", "runs", "curve", "")
    title = f"{suite.name}: best learning rate at {suite.axis} {n}"
    return plain_table(title, columns, lines), points


def spark(values: list[float]) -> str:
    """A line of blocks, low to high."""
    low, high = min(values), max(values)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((v - low) * scale)] for v in values)


def others_line(suite: Suite, others: list[str]) -> str:
    """How many processes work on a suite; `others`: those beside this one."""
    count, named = 1 + len(others), ", ".join(others)
    return (
        f"note: with this one {count} processes work on {suite.name} ({named}) and share its runs"
    )


class Live:
    """Progress on stderr: bars on a terminal, one line a finished unit elsewhere.

    `others`: how many other processes the user knows of.
    """

    def __init__(self, console: Console, session: "Session", quiet: bool, others: int = 0) -> None:
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
        self.others, self.waits = others, False

    def __enter__(self) -> "Live":
        if self.bars:
            self.progress.start()
            self.total = self.progress.add_task("all runs", total=1, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self.bars:
            self.progress.stop()

    def name(self, unit: "list[RunSpec]") -> str:
        """`adamw width 128  2^-7..2^-5 (3 lanes)`."""
        label, n = self.session.suite.names(unit[:1])[unit[0].key]
        lrs = sorted({spec.log2_lr for spec in unit})
        lr = power(lrs[0]) if len(lrs) == 1 else f"{power(lrs[0])}..{power(lrs[-1])}"
        lanes = f" ({len(unit)} lanes)" if len(unit) > 1 else ""
        return f"{label} {self.session.suite.axis} {n}  {lr}{lanes}"

    def show(self, event: "Event") -> None:
        """Bring the display up to date with one event of a session."""
        from hptransfer.run import session
        from hptransfer.spec import RunRecord
        from hptransfer.train import engine

        match event:
            case session.Started(unit) if self.bars:
                name = shown(self.name(unit)).plain
                task = self.progress.add_task(name, total=unit[0].steps, note="")
                self.tasks[unit[0].key] = task
            case engine.Progress(keys, step, _, loss, alive) if self.bars:
                note = f"loss {loss:.3f}" if alive else "diverged"
                self.progress.update(self.tasks[keys[0]], completed=step, note=note)
            case RunRecord() as record:
                self.losses[record.key] = record.loss
            case session.Ended(unit, error):
                self._ended(unit, error)
            case session.Status() as status:
                self._status(status)
            case _:
                pass

    def _status(self, status: "Status") -> None:
        self.done, self.left = status.done, status.left
        if len(status.others) > self.others and not self.quiet:
            line = others_line(self.session.suite, status.others)
            self.console.print(line, markup=False, soft_wrap=True)
        self.others = max(self.others, len(status.others))
        waits = self._awaited(status.awaited) if status.awaited else ""
        if self.bars and self.total is not None:
            total = status.done + status.left
            note = f"{status.done}/{total}, {waits or f'about {duration(status.seconds)} left'}"
            self.progress.update(self.total, completed=status.done, total=total, note=note)
        elif waits and not (self.waits or self.quiet):  # once until this process trains again
            self.console.print(waits, markup=False, soft_wrap=True)
        self.waits = bool(waits)

    def _awaited(self, awaited: "list[tuple[RunSpec, str]]") -> str:
        """`waits for adamw width 128  2^-5 of pid 1234 and 2 other runs`."""
        (spec, process), *more = awaited
        runs = f" and {len(more)} other run{'s' if len(more) > 1 else ''}" if more else ""
        return f"waits for {self.name([spec])} of {process}{runs}"

    def _ended(self, unit: "list[RunSpec]", error: str) -> None:
        if unit[0].key in self.tasks:
            self.progress.remove_task(self.tasks.pop(unit[0].key))
        if self.quiet:
            return
        if error:
            self.console.print(shown(f"failed: {self.name(unit)}: {error}", "red"))
        elif not self.bars:
            best = min(self.losses.pop(spec.key, float("inf")) for spec in unit)
            loss = "diverged" if best == float("inf") else f"{best:.3f}"
            done = self.done + len(unit)
            line = f"[{done}/{max(done, self.done + self.left)}] {self.name(unit)}  {loss}"
            self.console.print(shown(line), soft_wrap=True)
