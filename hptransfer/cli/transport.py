"""run and plan of a study of transport in training, and its table on the terminal."""

import json
from typing import TYPE_CHECKING

import typer

from hptransfer.cli.common import confirm, err, out, tell
from hptransfer.cli.options import RunOptions
from hptransfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from hptransfer.run.session import Session
    from hptransfer.transport.gains import Known
    from hptransfer.transport.study import Cell, Group, Study

OTHERS = ("optimizer", "trials", "seeds", "max_seeds", "steps", "data", "storage")
GUESS = 0.7  # s* of a forecast, where it is not known: no run of another arm
OCTAVES = 5  # of a cell that have a diagnostic, roughly


def run_study(name: str, options: RunOptions) -> None:
    """Train every missing arm, take the diagnostics, then the arms of s*; with `dry_run` plan."""
    from hptransfer.cli.text import shown
    from hptransfer.run import fork_server
    from hptransfer.transport.study import load_study
    from hptransfer.transport.write import progress, write_manifest, write_report

    for field in OTHERS:
        if getattr(options, field) != getattr(RunOptions(), field):
            raise InputError(
                "a study of transport has no such option",
                "a copy of its file with other cells is another study",
                option=field,
            )
    study = load_study(name)
    if not options.dry_run:
        fork_server.start()
    table, told, seconds = planned(study, options)
    console = out if options.dry_run else err
    console.print(table)
    console.print(shown(told), soft_wrap=True)
    if options.dry_run:
        return
    confirm(seconds, options.yes)
    write_manifest(study, options.results)
    try:
        for group in study.groups():
            _finish(group, options)
    except KeyboardInterrupt:
        err.print("interrupted: finished runs are safe; the same command goes on from here")
        raise typer.Exit(130) from None
    page, found = write_report(study.name, options.results, None)
    if options.as_json:
        tell(json.dumps(found))
    else:
        state = progress(study, options.results)
        out.print(verdicts(study, state.cells))
        out.print(shown(f"prediction: {found['prediction']}"))
    (err if options.as_json else out).print(shown(f"report: {page}"), soft_wrap=True)


def planned(study: "Study", options: RunOptions) -> "tuple[Table, str, float]":
    """Runs and time of every group as a table, those of all in words, and the seconds of all.

    Where s* is not known its arms count as runs of their own.
    """
    from hptransfer.cli.tables import plain_table
    from hptransfer.cli.text import duration
    from hptransfer.records.diagnostics import DiagnosticStore
    from hptransfer.transport.write import group_store, of_group, stars

    diagnostics = DiagnosticStore(options.results, study.name).read()
    rows, whole, known, todo = [], 0.0, 0, 0
    for group in study.groups():
        _, found = of_group(group, group_store(group, options.results), diagnostics)
        sure = stars(found)
        session = _session(group, {cell: sure.get(cell, GUESS) for cell in group.cells()}, options)
        with session.pool:
            forecasts = session.expected()
        asked = {point.key for each in found for point in each.asked}
        # While runs are missing, the best lr is not known, and so neither are all diagnostics.
        guess = len(found) * (study.seeds + OCTAVES) if forecasts else 0
        left = max(len(asked), guess) - len(asked & diagnostics.keys())
        # A diagnostic trains half a run, and its large batch passes four times.
        share = 0.5 + 4 * study.examples / (group.table.batch * group.table.steps)
        one = forecasts[0].speed.run(forecasts[0].specs[0]) if forecasts else 0.0
        seconds = sum(each.seconds for each in forecasts) + left * share * one
        missing = sum(len(each.specs) for each in forecasts)
        counts = (session.known(), missing, left)
        rows.append((group.name, *map(str, counts), duration(seconds)))
        whole, known, todo = whole + seconds, known + session.known(), todo + missing
    columns = ("model and batch", "known", "to do", "diagnostics", "time")
    told = f"{study.name}: {known} of {known + todo} runs are known"
    told += f", the others take about {duration(whole)}" if todo else ""
    return plain_table(f"{study.name}: runs", columns, rows), told, whole


def _session(group: "Group", stars: "Mapping[Cell, float]", options: RunOptions) -> "Session":
    from hptransfer.run.session import Options, Session
    from hptransfer.transport.search import propose

    suite = group.suite(stars)
    where = Options(
        results=options.results / group.study.name,
        device=options.device,
        workers=options.workers,
        lanes=options.lanes,
    )
    return Session(suite, where, list(suite.optimizers), propose)


def _finish(group: "Group", options: RunOptions) -> None:
    """Train what a group lacks, take its diagnostics, and train the arms of s*."""
    from hptransfer.cli.training import follow
    from hptransfer.records.diagnostics import DiagnosticStore
    from hptransfer.transport.take import take
    from hptransfer.transport.write import group_store, of_group, stars

    store = group_store(group, options.results)
    diagnostics = DiagnosticStore(options.results, group.study.name)
    for _ in range(2):
        _, found = of_group(group, store, diagnostics.read())
        session = _session(group, stars(found), options)
        if session.plan():
            follow(session, options)
        _, found = of_group(group, store, diagnostics.read())
        points = [point for each in found for point in each.asked]
        for done in take(points, diagnostics, session.data, session.device):
            if not options.quiet:
                err.print(f"{group.name}: {done}", markup=False, soft_wrap=True)


def verdicts(study: "Study", found: "list[Known]") -> "Table":
    """One row per cell."""
    from hptransfer.analysis.sentences import signed
    from hptransfer.cli.tables import plain_table
    from hptransfer.transport.study import FULL

    rows = []
    for each in found:
        full = each.arm(FULL)
        gain = None if full is None or full.gain is None else full.gain.difference
        bounds = () if gain is None else (gain.value, gain.low, gain.high)
        told = (
            *([signed(x) for x in bounds] or [""] * 3),
            signed(each.straightness.value, 1),
            signed(each.signal.value, 1),
            each.verdict(study.tol),
        )
        rows.append((each.cell.name, *told))
    columns = ("cell", "gain", "lowest", "highest", "e1/e2", "e1/nu", "verdict")
    return plain_table("gain of strength 1, nats, beside log2 e1/e2 and e1/nu", columns, rows)
