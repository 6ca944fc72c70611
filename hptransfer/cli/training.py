"""tune, transfer, run and plan: commands that train, or forecast what training takes."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from hptransfer.cli.common import (
    DEFAULT_SUITE,
    FailedError,
    confirm,
    err,
    load,
    note_short_runs,
    only,
    out,
    tell,
    warn,
    warn_of_few_steps,
    warn_of_precision,
)
from hptransfer.cli.options import RunOptions, Source, SuiteName, takes
from hptransfer.errors import InputError, command

if TYPE_CHECKING:
    from pathlib import Path

    from hptransfer.run.session import Session
    from hptransfer.suite.claim import SuiteTable


def _session(suite: "SuiteTable", options: RunOptions) -> "Session":
    from hptransfer.run.session import Options, Session

    labels = only(suite, options.optimizer)
    warn(suite, labels)
    where = Options(
        results=options.results,
        device=options.device,
        workers=options.workers,
        lanes=options.lanes,
        storage=options.storage,
    )
    session = Session(suite, where, labels)
    warn_of_precision(suite, session.device)
    warn_of_few_steps(session.suite)
    return session


def _do(session: "Session", options: RunOptions) -> bool:
    """Show the plan, then run it. False after a dry run, which trains nothing."""
    from hptransfer.cli import progress
    from hptransfer.cli.tables import more_seeds, plan_table
    from hptransfer.cli.text import duration, shown
    from hptransfer.datasets import Tokens
    from hptransfer.spec import tokens

    quiet, dry_run = options.quiet, options.dry_run
    others = session.sharing.claims.others()
    if others:
        err.print(shown(progress.others_line(session.suite, others)), soft_wrap=True)
    forecasts = session.expected(start=not dry_run)
    known = session.known()
    total = sum(cell.seconds for cell in forecasts)
    if dry_run or (forecasts and not quiet):
        (out if dry_run else err).print(plan_table(session, forecasts, known, dry_run))
        (out if dry_run else err).print(f"about {duration(total)} on {session.device}\n")
        if line := more_seeds(session.suite, forecasts):
            (out if dry_run else err).print(shown(line), soft_wrap=True)
        if isinstance(session.data, Tokens):
            runs = [session.suite.template(label) for label in session.suite.templates]
            note_short_runs(session.suite, min(tokens(run.to_json()) for run in runs))
    if dry_run:
        return False
    confirm(total, options.yes)
    try:
        follow(session, options, len(others))
    except KeyboardInterrupt:
        err.print("interrupted: finished runs are safe; the same command goes on from here")
        raise typer.Exit(130) from None
    return True


def follow(session: "Session", options: RunOptions, others: int = 0) -> None:
    """Train what a session lacks and show its progress. Raises FailedError where a run failed.

    `others`: number of other processes on the suite that the user knows of.
    """
    from hptransfer.cli import progress
    from hptransfer.run.session import Finished

    failures = []
    with progress.Live(err, session, options.quiet, others) as live:
        for event in session.run():
            live.show(event)
            if isinstance(event, Finished):
                failures = event.failed
    if failures:
        first = failures[0]
        raise FailedError(
            f"{len(failures)} run(s) failed, the first with: {first.error}",
            first.hint or "the records hold the traceback; the same command tries again",
        )


def _start_workers(options: RunOptions) -> None:
    """Start the server of workers, so that it imports torch while this process plans."""
    if not options.dry_run:
        from hptransfer.run import fork_server

        fork_server.start()


@takes()
def tune(
    suite: SuiteName = DEFAULT_SUITE,
    width: Annotated[
        int | None, typer.Option(min=1, help="Proxy (axis value). Default: the suite's.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Find the best lr of every optimizer at the proxy, and show its curve."""
    table = load(suite, options)
    _start_workers(options)
    table = table.narrowed(proxy=width or table.proxy)
    session = _session(table.narrowed(targets=[]), options)
    if not _do(session, options):
        return
    if options.as_json:
        _print_metrics(session)
        return
    from hptransfer.cli.tables import curve_table
    from hptransfer.cli.text import shown

    curves, points = curve_table(session.suite, session.suite.proxy, session.rows())
    out.print(curves)
    for line in points:
        out.print(shown(line), soft_wrap=True)
    next_ = command("transfer", suite, "--from", session.suite.proxy, "--to", "WIDTH")
    out.print()
    out.print(shown(f"next: {next_}"))


@takes()
def transfer(
    suite: SuiteName = DEFAULT_SUITE,
    to: Annotated[
        list[int] | None, typer.Option("--to", min=1, help="Target (axis value). Repeatable.")
    ] = None,
    source: Source = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Find the optimum at each target too.")
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Train at the targets with the lr of the proxy; --verify measures what that costs."""
    table = load(suite, options, verify=verify)
    _start_workers(options)
    targets = to or _above(table, source)
    session = _session(table.narrowed(proxy=source or table.proxy, targets=targets), options)
    if not options.quiet:
        _print_proxy(session)
    if _do(session, options):
        _print_verdicts(session, options.as_json)


def _above(suite: "SuiteTable", source: int | None) -> list[int]:
    """The suite's targets, those above `source` if it is given. Raises InputError for none."""
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


def _print_proxy(session: "Session") -> None:
    """Say where the lr comes from, before the training starts."""
    from hptransfer.cli.tables import proxy_lines
    from hptransfer.cli.text import shown

    for line in proxy_lines(session.suite, session.store):
        err.print(shown(line))


def _print_metrics(session: "Session") -> None:
    """Print the numbers of the report as JSON."""
    from hptransfer.report import metrics_json
    from hptransfer.report.write import section

    own = section(session.suite, session.store.frame(), session.options.results)
    tell(json.dumps(metrics_json([own])))


def _print_verdicts(session: "Session", as_json: bool) -> None:
    from hptransfer.analysis.sentences import negative_control, sentence
    from hptransfer.analysis.transfer import transfers
    from hptransfer.cli.text import shown

    if as_json:
        _print_metrics(session)
        return
    pairs = transfers(session.suite, session.rows())
    for each in pairs:
        if each.n in session.suite.axis_values:
            out.print(shown(sentence(session.suite, each)), soft_wrap=True)
    if session.suite.verify:  # without a verification there is no verdict
        # The control belongs to the whole suite, also where --optimizer leaves it out.
        control = negative_control(session.full, pairs)
        out.print(shown(control.sentence), soft_wrap=True)
    else:
        out.print("--verify measures the optimum at each target", soft_wrap=True)


def trained(table: "SuiteTable", options: RunOptions) -> "Session | None":
    """The session of a suite that lacks no run any more; None after a dry run."""
    _start_workers(options)
    session = _session(table, options)
    return session if _do(session, options) else None


def _print_claim(session: "Session") -> None:
    """Print whether the suite's expectations held, if it states any."""
    from hptransfer.analysis.claims import claim_sentence, judgements
    from hptransfer.analysis.transfer import transfers
    from hptransfer.cli.text import shown

    found = judgements(session.suite, transfers(session.suite, session.rows()))
    if told := claim_sentence(session.suite, found):
        out.print(shown(told), soft_wrap=True)


def _run(suite: str, options: RunOptions) -> None:
    session = trained(load(suite, options), options)
    if session is None:
        return
    page = write_its_report(session, options)
    _print_verdicts(session, options.as_json)
    if not options.as_json:
        _print_claim(session)
    say_where(page, options)


def write_its_report(session: "Session", options: RunOptions) -> "Path":
    """Write the report of the session's suite, before what is printed may fail; its path."""
    from hptransfer.report.write import write_report

    page, _ = write_report([session.suite.name], options.results, None)
    return page


def say_where(page: "Path", options: RunOptions) -> None:
    """Print the path of a report, on stderr where stdout holds JSON."""
    from hptransfer.cli.text import shown

    (err if options.as_json else out).print(shown(f"report: {page}"), soft_wrap=True)


def finish(table: "SuiteTable", options: RunOptions) -> "Session":
    """Train what the suite lacks, for a judgement of its session's records.

    A run that fails is told and leaves its gap: the judgement says what that means.
    """
    from hptransfer.cli.text import shown

    _start_workers(options)
    session = _session(table, options)
    try:
        _do(session, options)
    except FailedError as error:
        err.print(shown(f"warning: {error}; {error.hint}"), soft_wrap=True)
    return session


@takes()
def run(suite: SuiteName = DEFAULT_SUITE, *, options: RunOptions) -> None:
    """Run all that the suite's claim needs, or a study, then write the report."""
    if not _is_study(suite, options):
        _run(suite, options)


@takes(
    *("optimizer", "trials", "seeds", "max_seeds", "steps", "data"),
    *("device", "workers", "lanes", "results"),
)
def plan(suite: SuiteName = DEFAULT_SUITE, *, options: RunOptions) -> None:
    """Forecast runs, FLOPs, memory and time on this device, and train nothing.

    It imports the parts that the suite names: a stranger's suite is a stranger's code.
    """
    dry = dataclasses.replace(options, dry_run=True)
    if not _is_study(suite, dry):
        _run(suite, dry)


def _is_study(name: str, options: RunOptions) -> bool:
    """Whether a name is that of a study, which is run or planned here."""
    from hptransfer.suite.file import LABORATORY, TRANSPORT, read_table

    kind = read_table(name)[0].get("kind")
    if kind == LABORATORY:
        from hptransfer.cli.laboratory import run_study

        run_study(name, options)
    elif kind == TRANSPORT:
        from hptransfer.cli import transport

        transport.run_study(name, options)
    return kind in (LABORATORY, TRANSPORT)
