"""run and plan of a study of the noise laboratory, and its tables on the terminal."""

import json
import math
from typing import TYPE_CHECKING

import typer

from hptransfer.cli.common import confirm, err, out, tell
from hptransfer.cli.options import RunOptions
from hptransfer.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from hptransfer.laboratory.exponents import Fit
    from hptransfer.laboratory.plan import Progress

OTHERS = (
    "optimizer",
    "trials",
    "seeds",
    "max_seeds",
    "data",
    "device",
    "lanes",
    "storage",
)


def run_study(name: str, options: RunOptions) -> None:
    """Measure every missing cell, then print the exponents; with `dry_run` show what is missing."""
    from hptransfer.cli.progress import bar
    from hptransfer.cli.text import duration, shown
    from hptransfer.cost.machine import usable_cores
    from hptransfer.laboratory import session
    from hptransfer.laboratory.file import load_study
    from hptransfer.laboratory.plan import forecast, progress
    from hptransfer.laboratory.write import write_manifest, write_report
    from hptransfer.records.cells import CellStore
    from hptransfer.run import fork_server

    _refuse_others(options)
    study = load_study(name)
    if options.steps is not None:
        study = study.shortened(options.steps)
    store = CellStore(options.results, study.name)
    records = store.read()
    known = progress(study, records)
    workers = options.workers or usable_cores()
    missing, seconds = forecast(known, workers)
    points = sum(len(each.points) for each in known)
    told = f"{study.name}: {points} of {points + missing} points are known"
    told += f", the others take about {duration(seconds)} on cpu" if missing else ""
    (out if options.dry_run else err).print(shown(told))
    if options.dry_run:
        return
    confirm(seconds, options.yes)
    fork_server.start()
    write_manifest(study, options.results)
    try:
        with bar(err, missing, options.quiet) as advance:
            for point in session.run(study, store, workers, fork_server.context()):
                advance(point)
    except KeyboardInterrupt:
        err.print("interrupted: finished cells are safe; the same command goes on from here")
        raise typer.Exit(130) from None
    page, found = write_report(study.name, options.results, None)
    if options.as_json:
        tell(json.dumps(found))
    else:
        for table in tables(progress(study, store.read())):
            out.print(table)
    (err if options.as_json else out).print(shown(f"report: {page}"), soft_wrap=True)


def _refuse_others(options: RunOptions) -> None:
    """Raises InputError for an option that no study has."""
    for field in OTHERS:
        value = getattr(options, field)
        if value != getattr(RunOptions(), field) and value != "cpu":
            raise InputError(
                "a study of the noise laboratory has no such option",
                "it runs on the CPU; a copy of its file with other parts is another study",
                option=field,
            )


def tables(known: "list[Progress]") -> "list[Table]":
    """The exponents in 1/eps, and those in the number of directions."""
    from hptransfer.cli.tables import plain_table
    from hptransfer.laboratory.exponents import fits, growths

    columns = ("part", "method", "noise", "theory", "exponent", "lowest", "highest", "points")
    columns += ("verdict",)
    return [
        plain_table(title, columns, [_row(name, fit) for name, fit in found], text=3)
        for title, found in (
            ("exponent of the calls in 1/eps", fits(known)),
            ("exponent of the calls in min(m, n)", growths(known)),
        )
        if found
    ]


def _row(name: tuple[str, str, str], fit: "Fit") -> tuple[str, ...]:
    low, high = fit.union
    numbers = (fit.slope, low, high)
    theory = "" if fit.theory is None else f"{fit.theory:g}"
    told = (f"{x:.2f}" if math.isfinite(x) else "" for x in numbers)
    return (*name, theory, *told, str(fit.n_points), fit.verdict or "")
