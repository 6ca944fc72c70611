"""Tables on the terminal: the plan, learning-rate curves, parts, clauses of a contract."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hptransfer import registry
from hptransfer.cli.text import SPARKS, duration, power, shown
from hptransfer.suite.file import load_suite, read_table, study_names, suite_names
from hptransfer.suite.resolved import Suite

if TYPE_CHECKING:
    import pandas as pd

    from hptransfer.analysis.holm import Tested
    from hptransfer.records.store import Store
    from hptransfer.report.compared import ComparedSuite
    from hptransfer.run.session import Forecast, Session
    from hptransfer.testing import Check


def plain_table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], *, text: int = 1
) -> Table:
    """A table with `text` columns of text, then columns of numbers.

    A column without a space breaks nowhere: a narrow terminal would cut its numbers.
    """
    rows, columns = [list(row) for row in rows], list(columns)
    heading = shown(title, "bold")
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        whole = i < text or not any(" " in each for each in (column, *(row[i] for row in rows)))
        table.add_column(column, justify="left" if i < text else "right", no_wrap=whole)
    for row in rows:
        table.add_row(*map(shown, row))
    return table


def names(kind: str) -> list[str]:
    """Every name of a kind, `suite` and `study` included."""
    match kind:
        case "suite":
            return suite_names()
        case "study":
            return study_names()
        case _:
            return registry.names(kind)


def plan_table(session: "Session", expected: "list[Forecast]", known: int, costs: bool) -> Table:
    """One row per optimizer and axis value: runs, lanes per process, processes, time.

    `known`: number of recorded runs. `costs`: also show FLOPs, and memory per process.
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
    count = sum(len(cell.specs) for cell in expected)
    title = f"{session.suite.name}: {count} runs to do, {known} known"
    if (most := session.most()) > count:
        title += f", at most {most} to do where verdicts stay undecided"
    columns = ("optimizer", axis, "runs", "lanes", "processes", "time")
    columns += ("TFLOP", "MiB") if costs else ()
    return plain_table(title, columns, rows)


def more_seeds(suite: Suite, expected: "list[Forecast]") -> str:
    """Which verdicts are undecided on the seeds that ran, and how many they get; "" for none."""
    counts = {(cell.label, cell.n): 1 + max(s.seed for s in cell.specs) for cell in expected}
    added = [
        f"{label} at {suite.axis} {n} ({count} seeds)"
        for (label, n), count in counts.items()
        if count > suite.seeds
    ]
    return f"undecided, so more seeds run: {', '.join(added)}" if added else ""


def parts_table(kind: str) -> Table:
    """Names and one-line summaries of optimizers, models or data sets, or the suites."""
    if kind == "suite":
        rows = [(name, load_suite(name).claim) for name in suite_names()]
    elif kind == "study":
        rows = [(name, read_table(name)[0]["claim"]) for name in study_names()]
    else:
        rows = [(name, registry.describe(kind, name).summary) for name in registry.names(kind)]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for row in rows:
        table.add_row(*map(shown, row))
    table.title = "studies" if kind == "study" else f"{kind}s"
    table.title_justify = "left"
    return table


def proxy_lines(suite: Suite, store: "Store") -> list[str]:
    """A line per optimizer with its lr at the proxy, or a note that it has none yet."""
    from hptransfer.analysis.frame import select
    from hptransfer.analysis.optimum import optimum
    from hptransfer.analysis.statuses import finished

    manifest = store.read_manifest()
    rows = finished(select(suite, store.frame()))
    rows = rows[~rows["tuning"].astype(bool)]
    lines = []
    for label in suite.optimizers:
        own = rows[rows["optimizer"] == label]
        at_proxy = own[own["n"] == suite.proxy]
        best = optimum(at_proxy)
        if best is not None:
            lr = suite.clip_lr(label, best.log2_lr)
            where = f"{suite.axis} {suite.proxy} ({best.n_points} points)"
            lines.append(f"{label}: lr 2^{lr:g} from {where}")
        elif manifest is not None and len(own):
            others = ", ".join(str(n) for n in sorted(set(own["n"])))
            lines.append(
                f"{label}: not tuned at {suite.axis} {suite.proxy}, so the search there runs first "
                f"(tuned: {others}; --from takes one of these)"
            )
        else:
            where = f"{suite.axis} {suite.proxy}"
            lines.append(f"{label}: not tuned at {where}, so the search there runs first")
    return lines


def checks_head(target: str, kind: str) -> Text:
    """The heading above the clauses of a contract."""
    article = "an" if kind == "optimizer" else "a"
    return Text.assemble(shown(target, "bold"), f" as {article} {kind}")


def check_line(check: "Check") -> Text:
    """One clause of a contract: mark, text and observation."""
    mark = Text("holds", "green") if check.passed else Text("fails", "red")
    line = Text.assemble("  ", mark, "  ", shown(check.name))
    return line.append("  ").append(shown(check.detail, "dim")) if check.detail else line


def curve_table(suite: Suite, n: int, rows: "pd.DataFrame") -> tuple[Table, list[str]]:
    """The lr curve of every optimizer at axis value `n`: a table, and a line of points each."""
    from hptransfer.analysis.curve import best_by_lr
    from hptransfer.analysis.optimum import optimum
    from hptransfer.analysis.statuses import finished

    lines, points = [], []
    rows = rows[~rows["tuning"].astype(bool)]
    for label in suite.optimizers:
        own = finished(rows[(rows.optimizer == label) & (rows.n == n)])
        if own.empty:
            continue
        best = optimum(own)
        losses = best_by_lr(own)  # the means that the optimum rests on
        diverged = (own.status == "diverged").groupby(own.log2_lr).all()
        flags = [] if best is None else [f"censored ({best.censored})"] if best.censored else []
        flags += ["cliff"] if best is not None and best.cliff else []
        cells = ("-", "-") if best is None else (power(round(best.log2_lr, 2)), f"{best.loss:.4f}")
        lines.append((label, *cells, str(len(own)), spark(list(losses.values())), " ".join(flags)))
        each = [f"{lr:g}: {'div' if diverged[lr] else f'{v:.3f}'}" for lr, v in losses.items()]
        points.append(f"{label} (log2 lr: loss)  {',  '.join(each)}")
    columns = ("optimizer", "best lr", "loss", "runs", "curve", "")
    title = f"{suite.name}: best learning rate at {suite.axis} {n}"
    return plain_table(title, columns, lines), points


def spark(values: list[float]) -> str:
    """A line of blocks, one per value, from the least value to the largest."""
    low, high = min(values), max(values)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((v - low) * scale)] for v in values)


def compared_table(suite: "ComparedSuite", tested: "Sequence[Tested]") -> Table:
    """One row per optimizer, axis value and quantity: B - A, its interval, seeds and p."""
    from hptransfer.analysis.sentences import signed

    rows = []
    for each, test in zip(suite.pairing.measured, tested, strict=True):
        value, low, high = vars(test.difference).values()
        known = test.n > 1
        rows.append(
            (
                each.optimizer,
                each.quantity,
                "differs" if test.differs else "",
                str(each.n),
                signed(value, 4) if test.n else "-",
                f"{signed(low, 4)} to {signed(high, 4)}" if known else "-",
                str(test.n),
                f"{test.p_holm:.3g}" if known else "-",
            )
        )
    title = f"{suite.name}: {suite.folders[1]} (B) less {suite.folders[0]} (A)"
    columns = (
        "optimizer",
        "quantity",
        "",
        suite.a.suite.axis,
        "B - A",
        "interval",
        "seeds",
        "Holm p",
    )
    return plain_table(title, columns, rows, text=3)
