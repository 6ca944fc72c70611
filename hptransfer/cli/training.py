"""tune, transfer, run, plan: the commands that train, or say what training would take."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hptransfer.cli.options import (
    DEFAULT_SUITE,
    Data,
    Device,
    DryRun,
    FailedError,
    Json,
    Lanes,
    Optimizers,
    Quiet,
    Results,
    Steps,
    Storage,
    SuiteName,
    Trials,
    Workers,
    Yes,
    confirm,
    err,
    load,
    only,
    out,
    warn,
)
from hptransfer.errors import InputError

if TYPE_CHECKING:
    from hptransfer.run.session import Session
    from hptransfer.suite.claim import SuiteTable


def _session(
    suite: "SuiteTable",
    optimizer: list[str] | None,
    where: tuple[Path, str, int | None, int | None, str | None],
) -> "Session":
    """`where`: results, device, workers, lanes, storage, the fields of execute.Options."""
    from hptransfer.run.session import Options, Session

    labels = only(suite, optimizer)
    warn(suite, labels)
    return Session(suite, Options(*where), labels)


def _do(session: "Session", yes: bool, quiet: bool, dry_run: bool) -> bool:
    """Show the plan, then run it. Whether it ran: not after --dry-run."""
    from hptransfer.cli import display
    from hptransfer.run.session import Finished

    others = session.sharing.claims.others()
    if others:
        line = display.others_line(session.suite, others)
        err.print(display.shown(line), soft_wrap=True)
    expected = session.expected(start=not dry_run)
    known = session.known()
    total = sum(cell.seconds for cell in expected)
    if dry_run or (expected and not quiet):
        (out if dry_run else err).print(display.plan_table(session, expected, known, dry_run))
        (out if dry_run else err).print(f"about {display.duration(total)} on {session.device}\n")
    if dry_run:
        return False
    confirm(total, yes)
    failed = []
    try:
        with display.Live(err, session, quiet, len(others)) as live:
            for event in session.run():
                live.show(event)
                if isinstance(event, Finished):
                    failed = event.failed
    except KeyboardInterrupt:
        err.print("interrupted: finished runs are kept; the same command goes on from here")
        raise typer.Exit(130) from None
    if failed:
        first = failed[0]
        raise FailedError(
            f"{len(failed)} run(s) failed, the first with: {first.error}",
            first.hint or "the records hold the traceback; the same command tries them again",
        )
    return True


def _ahead(dry_run: bool) -> None:
    """Let the workers import torch while this process does, and plans."""
    if not dry_run:
        from hptransfer.run import fork_server

        fork_server.start()


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
    chosen = load(suite, steps=steps, trials=trials, data=data, seeds=seeds)
    _ahead(dry_run)
    chosen = chosen.narrowed(proxy=width or chosen.proxy)
    where = (results, device, workers, lanes, storage)
    session = _session(chosen.narrowed(targets=[]), optimizer, where)
    if not _do(session, yes, quiet, dry_run):
        return
    if as_json:
        _metrics(session)
        return
    from hptransfer.cli.display import curve_table, shown

    table, points = curve_table(session.suite, session.suite.proxy, session.rows())
    out.print(table)
    for line in points:
        out.print(shown(line), soft_wrap=True)
    next_ = f"hptransfer transfer {suite} --from {session.suite.proxy} --to WIDTH"
    out.print()
    out.print(shown(f"next: {next_}"))


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
    chosen = load(suite, steps=steps, trials=trials, data=data, fresh_seeds=seeds, verify=verify)
    _ahead(dry_run)
    targets = to or _above(chosen, source)
    chosen = chosen.narrowed(proxy=source or chosen.proxy, targets=targets)
    where = (results, device, workers, lanes, storage)
    session = _session(chosen, optimizer, where)
    _say_proxy(session, quiet)
    if _do(session, yes, quiet, dry_run):
        _verdicts(session, as_json)


def _above(suite: "SuiteTable", source: int | None) -> list[int]:
    """The suite's targets, with another proxy those above it. Raises InputError if none is."""
    if source is None:
        return suite.targets
    above = [n for n in suite.targets if n > source]
    others = ", ".join(str(n) for n in suite.targets if n <= source)
    if others and not above:
        raise InputError(
            f"--from {source}: no target of {suite.name} lies above it (targets: {others})",
            "name a target with --to, or a smaller proxy with --from",
        )
    if others:
        err.print(f"left out: {suite.axis} {others}, not above --from {source}")
    return above


def _say_proxy(session: "Session", quiet: bool) -> None:
    """Where the lr comes from, before anything is trained."""
    from hptransfer.cli.display import shown
    from hptransfer.export import proxy_lines

    for line in proxy_lines(session.suite, session.store):
        if not quiet:
            err.print(shown(line))


def _metrics(session: "Session") -> None:
    """What the report would say, as JSON."""
    from hptransfer.report import metrics_json
    from hptransfer.report.write import section

    found = section(session.suite, session.store.frame(), session.options.results)
    typer.echo(json.dumps(metrics_json([found])))


def _verdicts(session: "Session", as_json: bool) -> None:
    from hptransfer.analysis import verdicts
    from hptransfer.cli.display import shown

    if as_json:
        _metrics(session)
        return
    rows = session.rows()
    table = verdicts.pairs(session.suite, rows)
    for sentence in table[table.n.isin(session.suite.targets)]["sentence"]:
        out.print(shown(sentence), soft_wrap=True)
    if session.suite.verify:  # else nothing was judged, the control neither
        _, control = verdicts.negative_control(session.full, table)  # also where it was not chosen
        out.print(shown(control), soft_wrap=True)


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
    chosen = load(suite, steps=steps, trials=trials, data=data)
    _ahead(dry_run)
    where = (results, device, workers, lanes, storage)
    session = _session(chosen, optimizer, where)
    if not _do(session, yes, quiet, dry_run):
        return
    from hptransfer.cli.display import shown
    from hptransfer.report.write import write_report

    _verdicts(session, as_json)
    page, _ = write_report([session.suite.name], results, None)
    (err if as_json else out).print(shown(f"report: {page}"), soft_wrap=True)


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
    """What run would do: runs, FLOPs, memory and time on this device.

    It imports the parts that the suite names: a stranger's suite is a stranger's code.
    """
    run(suite, optimizer, trials, steps, data, device, workers, lanes, results, dry_run=True)
