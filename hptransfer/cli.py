"""The command line. The only module that prints or exits."""

import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hptransfer import __version__
from hptransfer.registry import InputError, suggest
from hptransfer.suite import Suite, load_suite

DEFAULT_SUITE = "gpt_width"
ASK_ABOVE = 1800.0  # seconds

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does the learning rate tuned on a small model still hold on a wide one?",
)

SuiteName = Annotated[str, typer.Argument(help="A built-in suite or a path to a .toml file.")]
Optimizers = Annotated[
    list[str] | None, typer.Option("--optimizer", help="Only this label. Repeatable.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps, instead of the suite's.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Learning rates a search may try.")]
Data = Annotated[str | None, typer.Option(help="A data set's name, or a path to a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core or GPU.")]
Lanes = Annotated[int | None, typer.Option(min=1, help="Runs trained as one. Default: measured.")]
Results = Annotated[Path, typer.Option(help="Where the records lie.")]
Storage = Annotated[str | None, typer.Option(help="Optuna storage URL. Default: a journal file.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a long job.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def _version(value: bool) -> None:
    if value:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def _load(
    name: str, *, steps: int | None, trials: int | None, data: str | None, **changes: Any
) -> Suite:
    """The suite with what the command line overrides."""
    overrides = {k: v for k, v in {**changes, "steps": steps, "trials": trials}.items() if v}
    if data:
        is_path = os.sep in data or Path(data).exists()
        overrides["data"] = {"name": "file", "path": data} if is_path else {"name": data}
    if "verify" in changes:
        overrides["verify"] = changes["verify"]
    suite = load_suite(name, overrides)
    if trials:
        tables = {k: t.model_copy(update={"trials": None}) for k, t in suite.optimizers.items()}
        suite = suite.model_copy(update={"optimizers": tables})
    return suite


def _only(suite: Suite, labels: list[str] | None) -> list[str]:
    for label in labels or ():
        if label not in suite.optimizers:
            known = ", ".join(suite.optimizers)
            raise InputError(
                f"--optimizer: suite {suite.name!r} has no {label!r}",
                suggest(label, suite.optimizers) or f"its optimizers: {known}",
            )
    return labels or list(suite.optimizers)


def _confirm(seconds: float, yes: bool) -> None:
    """Ask before a job of more than half an hour. Raises InputError where nobody can answer."""
    from hptransfer.display import duration

    if seconds <= ASK_ABOVE or yes:
        return
    faster = "fewer --optimizer, a smaller width, --steps, or a GPU (--device cuda) would be faster"
    if not sys.stdin.isatty():
        raise InputError(f"this takes about {duration(seconds)}", f"add --yes; {faster}")
    err.print(f"This takes about {duration(seconds)}; {faster}.")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(130)


def _do(
    suite: Suite,
    optimizer: list[str] | None,
    where: tuple[Path, str, int | None, int | None, str | None],
    yes: bool,
    quiet: bool,
    dry_run: bool,
) -> Any:
    """Show the plan, then run it. The session, or None after --dry-run.

    `where`: results, device, workers, lanes, storage, the fields of execute.Options.
    """
    from hptransfer import display
    from hptransfer.execute import Finished, Options, Session

    session = Session(suite, Options(*where), _only(suite, optimizer))
    for other in session.store.others():
        err.print(f"note: {other} also runs {suite.name}; its records are shared")
    expected = session.expected(start=not dry_run)
    known = session.known()
    total = sum(cell.seconds for cell in expected) / session.workers
    if dry_run or (expected and not quiet):
        (out if dry_run else err).print(display.plan_table(session, expected, known, dry_run))
        on = f"{session.workers} process(es), {session.device}"
        (out if dry_run else err).print(f"about {display.duration(total)} on {on}\n")
    if dry_run:
        return None
    _confirm(total, yes)
    failed = []
    try:
        with display.Live(err, session, quiet) as live:
            for event in session.run():
                live.show(event)
                if isinstance(event, Finished):
                    failed = event.failed
    except KeyboardInterrupt:
        err.print("interrupted: finished runs are kept; the same command goes on from here")
        raise typer.Exit(130) from None
    if failed:
        first = failed[0]
        raise _FailedError(
            f"{len(failed)} run(s) failed, the first with: {first.error}",
            first.hint or "the records hold the traceback; the same command tries them again",
        )
    return session


class _FailedError(Exception):
    """Runs that failed although the input was right."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@app.command()
def tune(
    suite: SuiteName = DEFAULT_SUITE,
    width: Annotated[
        int | None, typer.Option(min=1, help="Proxy width (the axis value). Default: the suite's.")
    ] = None,
    optimizer: Optimizers = None,
    trials: Trials = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds near the optimum.")] = None,
    steps: Steps = None,
    data: Data = None,
    device: Device = "auto",
    workers: Workers = None,
    lanes: Lanes = None,
    results: Results = Path("results"),
    storage: Storage = None,
    as_json: Json = False,
    yes: Yes = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Best lr of every optimizer at a proxy width, with its curve."""
    from hptransfer.display import curve_table
    from hptransfer.report import metrics_json
    from hptransfer.report.write import section

    chosen = _load(suite, steps=steps, trials=trials, data=data, seeds=seeds)
    chosen = chosen.narrowed(proxy=width or chosen.proxy)
    where = (results, device, workers, lanes, storage)
    session = _do(chosen.narrowed(targets=[]), optimizer, where, yes, quiet, dry_run)
    if session is None:
        return
    if as_json:
        typer.echo(
            json.dumps(metrics_json([section(session.suite, session.store.frame(), results)]))
        )
        return
    table, points = curve_table(session.suite, session.suite.proxy, session.rows())
    out.print(table)
    for line in points:
        out.print(line, soft_wrap=True, markup=False)
    out.print(f"\nnext: hptransfer transfer {suite} --from {session.suite.proxy} --to WIDTH")


@app.command()
def transfer(
    suite: SuiteName = DEFAULT_SUITE,
    to: Annotated[
        list[int] | None, typer.Option("--to", min=1, help="Target width. Repeatable.")
    ] = None,
    source: Annotated[
        int | None, typer.Option("--from", min=1, help="Proxy width. Default: the suite's.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also find the optimum at the target.")
    ] = False,
    optimizer: Optimizers = None,
    trials: Trials = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Fresh seeds at the target.")] = None,
    steps: Steps = None,
    data: Data = None,
    device: Device = "auto",
    workers: Workers = None,
    lanes: Lanes = None,
    results: Results = Path("results"),
    storage: Storage = None,
    as_json: Json = False,
    yes: Yes = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Train wide models at the lr tuned on the proxy; --verify measures the regret."""
    chosen = _load(suite, steps=steps, trials=trials, data=data, fresh_seeds=seeds, verify=verify)
    chosen = chosen.narrowed(proxy=source or chosen.proxy, targets=to or chosen.targets)
    _say_proxy(chosen.only(_only(chosen, optimizer)), results, quiet)
    where = (results, device, workers, lanes, storage)
    session = _do(chosen, optimizer, where, yes, quiet, dry_run)
    if session is not None:
        _verdicts(session, as_json)


def _say_proxy(suite: Suite, results: Path, quiet: bool) -> None:
    """Where the lr comes from, before anything is trained."""
    from hptransfer.execute import proxy_lines

    for line in proxy_lines(suite, results):
        if not quiet:
            err.print(line)


def _verdicts(session: Any, as_json: bool) -> None:
    from hptransfer import verdicts
    from hptransfer.report import metrics_json
    from hptransfer.report.write import section

    found = section(session.suite, session.store.frame(), session.options.results)
    if as_json:
        typer.echo(json.dumps(metrics_json([found])))
        return
    rows = session.rows()
    table = verdicts.pairs(session.suite, rows)
    for sentence in table[table.n.isin(session.suite.targets)]["sentence"]:
        out.print(sentence, markup=False, soft_wrap=True)
    if session.suite.verify:  # else nothing was judged, the control neither
        _, control = verdicts.negative_control(session.suite, table)
        out.print(control, markup=False, soft_wrap=True)


@app.command()
def run(
    suite: SuiteName = DEFAULT_SUITE,
    optimizer: Optimizers = None,
    trials: Trials = None,
    steps: Steps = None,
    data: Data = None,
    device: Device = "auto",
    workers: Workers = None,
    lanes: Lanes = None,
    results: Results = Path("results"),
    storage: Storage = None,
    as_json: Json = False,
    yes: Yes = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Everything the suite claims, then the report."""
    chosen = _load(suite, steps=steps, trials=trials, data=data)
    where = (results, device, workers, lanes, storage)
    session = _do(chosen, optimizer, where, yes, quiet, dry_run)
    if session is None:
        return
    from hptransfer.report.write import write_report

    _verdicts(session, as_json)
    page, _ = write_report([session.suite.name], results, None)
    (err if as_json else out).print(f"report: {page}", soft_wrap=True)


@app.command()
def plan(
    suite: SuiteName = DEFAULT_SUITE,
    optimizer: Optimizers = None,
    trials: Trials = None,
    steps: Steps = None,
    data: Data = None,
    device: Device = "auto",
    workers: Workers = None,
    lanes: Lanes = None,
    results: Results = Path("results"),
) -> None:
    """What run would do: runs, FLOPs, memory and time on this device."""
    run(suite, optimizer, trials, steps, data, device, workers, lanes, results, dry_run=True)


@app.command()
def report(
    suites: Annotated[
        list[str] | None, typer.Argument(help="Suites. Default: all with records, newest first.")
    ] = None,
    results: Results = Path("results"),
    target: Annotated[Path | None, typer.Option("--out", help="Write the page here.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page, metrics.json and runs.csv."""
    from hptransfer.report.write import write_report
    from hptransfer.store import stored_suites

    names = [Path(s).stem if s.endswith(".toml") else s for s in suites or stored_suites(results)]
    if not names:
        raise InputError(f"no records under {results}", "hptransfer run quickstart makes some")
    page, metrics = write_report(names, results, target)
    if as_json:
        typer.echo(json.dumps(metrics))
    (err if as_json else out).print(f"report: {page}", soft_wrap=True)
    if show:
        webbrowser.open(page.resolve().as_uri())


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="optimizers, models, datasets or suites.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Built-in optimizers, models, data sets and suites."""
    from hptransfer import display

    kinds = {"optimizers": "optimizer", "models": "model", "datasets": "dataset", "suites": "suite"}
    if what is not None and what not in kinds:
        raise InputError(f"list: got {what!r}", suggest(what, kinds) or ", ".join(kinds))
    if as_json:
        typer.echo(
            json.dumps({key: display.names(kinds[key]) for key in ([what] if what else kinds)})
        )
        return
    for key in [what] if what else kinds:
        out.print(display.parts_table(kinds[key]))
        out.print()


def main() -> None:
    """Run the command line; wrong input is one line and a hint, exit code 2."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        _die(error, 2)
    except _FailedError as error:
        _die(error, 1)
    except BrokenPipeError:  # the reader of stdout has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _die(error: InputError | _FailedError, code: int) -> None:
    err.print(f"error: {error}", markup=False, soft_wrap=True)
    if error.hint:
        err.print(f"\nhint: {error.hint}", markup=False, soft_wrap=True)
    sys.exit(code)
