"""tune, transfer, run, plan: the commands that train, or say what training would take."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
)

if TYPE_CHECKING:
    from hptransfer.suite import Suite


def _do(
    suite: "Suite",
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

    session = Session(suite, Options(*where), only(suite, optimizer))
    others = session.sharing.claims.others()
    if others:
        err.print(display.others_line(suite, others), markup=False, soft_wrap=True)
    expected = session.expected(start=not dry_run)
    known = session.known()
    total = sum(cell.seconds for cell in expected)
    if dry_run or (expected and not quiet):
        (out if dry_run else err).print(display.plan_table(session, expected, known, dry_run))
        (out if dry_run else err).print(f"about {display.duration(total)} on {session.device}\n")
    if dry_run:
        return None
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
    return session


def _ahead(dry_run: bool) -> None:
    """Let the workers import torch while this process does, and plans."""
    if not dry_run:
        from hptransfer import ahead

        ahead.start()


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
    session = _do(chosen.narrowed(targets=[]), optimizer, where, yes, quiet, dry_run)
    if session is None:
        return
    if as_json:
        _metrics(session)
        return
    from hptransfer.display import curve_table

    table, points = curve_table(session.suite, session.suite.proxy, session.rows())
    out.print(table)
    for line in points:
        out.print(line, soft_wrap=True, markup=False)
    out.print(f"\nnext: hptransfer transfer {suite} --from {session.suite.proxy} --to WIDTH")


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
    chosen = chosen.narrowed(proxy=source or chosen.proxy, targets=to or chosen.targets)
    _say_proxy(chosen.only(only(chosen, optimizer)), results, quiet)
    where = (results, device, workers, lanes, storage)
    session = _do(chosen, optimizer, where, yes, quiet, dry_run)
    if session is not None:
        _verdicts(session, as_json)


def _say_proxy(suite: "Suite", results: Path, quiet: bool) -> None:
    """Where the lr comes from, before anything is trained."""
    from hptransfer.export import proxy_lines

    for line in proxy_lines(suite, results):
        if not quiet:
            err.print(line)


def _metrics(session: Any) -> None:
    """What the report would say, as JSON."""
    from hptransfer.report import metrics_json
    from hptransfer.report.write import section

    found = section(session.suite, session.store.frame(), session.options.results)
    typer.echo(json.dumps(metrics_json([found])))


def _verdicts(session: Any, as_json: bool) -> None:
    from hptransfer import verdicts

    if as_json:
        _metrics(session)
        return
    rows = session.rows()
    table = verdicts.pairs(session.suite, rows)
    for sentence in table[table.n.isin(session.suite.targets)]["sentence"]:
        out.print(sentence, markup=False, soft_wrap=True)
    if session.suite.verify:  # else nothing was judged, the control neither
        _, control = verdicts.negative_control(session.full, table)  # also where it was not chosen
        out.print(control, markup=False, soft_wrap=True)


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
    session = _do(chosen, optimizer, where, yes, quiet, dry_run)
    if session is None:
        return
    from hptransfer.report.write import write_report

    _verdicts(session, as_json)
    page, _ = write_report([session.suite.name], results, None)
    (err if as_json else out).print(f"report: {page}", soft_wrap=True)


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
