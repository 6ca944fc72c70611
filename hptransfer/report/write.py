"""Manifest and records of suites -> report.html, metrics.json and runs.csv, through the store."""

import json
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from hptransfer.analysis.frame import belonging
from hptransfer.analysis.statuses import finished
from hptransfer.documents.tails import Tails
from hptransfer.errors import InputError, command
from hptransfer.records.damage import LeftOut
from hptransfer.records.store import Store
from hptransfer.report.alignment_figure import alignment
from hptransfer.report.metrics import metrics_json
from hptransfer.report.render import render
from hptransfer.report.runs_csv import runs_csv
from hptransfer.report.section import OLDER, Section
from hptransfer.report.stored_tails import read_tails
from hptransfer.report.svg import INK, to_svg
from hptransfer.report.tails_tables import remark
from hptransfer.search.plan import forecast
from hptransfer.spec import FIRST_SCHEMA, SCHEMA, RunSpec
from hptransfer.suite.resolved import Suite


def section(suite: Suite, frame: pd.DataFrame, results: Path) -> Section:
    """What the report needs of a suite: its records, what is missing, how to reproduce it."""
    commands = _commands(suite, results)
    try:
        missing = _missing(suite, frame)
    except InputError as error:  # the suite ran elsewhere, with a sampler that is not here
        return Section(suite, frame, commands=commands, uncounted=str(error))
    names = suite.names(missing)
    return Section(
        suite,
        frame,
        n_expected=finished(belonging(suite, frame))["key"].nunique() + len(missing),
        missing=[
            f"{names[s.key][0]} {suite.axis} {names[s.key][1]} 2^{s.log2_lr:g} seed {s.seed}"
            for s in missing
        ],
        commands=commands,
    )


def _missing(suite: Suite, frame: pd.DataFrame) -> list[RunSpec]:
    """Runs that the suite still lacks, by the sampler of each optimizer.

    Raises InputError where a sampler is code outside Optuna, which a report does not import, or
    is not installed.
    """
    samplers = {str(suite.setting(label, "sampler")) for label in suite.optimizers}
    for name in sorted(samplers):
        if ":" in name:
            raise InputError(
                f"sampler {name} is code that a report does not import",
                f"{command('plan', suite.address)} imports it and counts",
            )
    if samplers <= {"bracket"}:
        return forecast(suite, frame)
    from hptransfer.search import samplers  # Optuna takes long to import

    return forecast(suite, frame, samplers.propose)


def _commands(suite: Suite, results: Path) -> list[str]:
    """Lines that reproduce a suite's records."""
    shared = [suite.address, *_steps(suite), *_option(suite, "trials", "--trials"), *_data(suite)]
    seeds, most = _option(suite, "seeds", "--seeds"), _option(suite, "max_seeds", "--max-seeds")
    lines = [["tune", *shared, "--width", str(suite.proxy), *seeds, *most]]
    more = [*(["--verify"] if suite.verify else []), *seeds, *most]
    once = ["--seeds", "1", "--max-seeds", "1"]
    for n in suite.waypoints:
        to = ["--from", str(suite.proxy), "--to", str(n), *(["--verify"] if suite.verify else [])]
        lines.append(["transfer", *shared, *to, *once])
    for n in suite.targets:
        lines.append(["transfer", *shared, "--from", str(suite.proxy), "--to", str(n), *more])
    lines.append(["report", suite.name])
    return [shlex.join(["hptransfer", *line, *_place(results)]) for line in lines]


def _place(results: Path) -> list[str]:
    return [] if results == Path("results") else ["--results", str(results)]


def _steps(suite: Suite) -> list[str]:
    return [] if suite.steps is None else ["--steps", str(suite.steps)]


def _data(suite: Suite) -> list[str]:
    if suite.data["name"] == "file":
        return ["--data", suite.data["path"]]
    return _option(suite, "data", "--data")


def _option(suite: Suite, key: str, option: str) -> list[str]:
    changed = suite.origin.changed
    return [option, str(changed[key])] if key in changed else []


def stored(name: str, results: Path) -> Iterator[Section]:
    """The sections of a suite: one per schema that its folder holds. Raises InputError."""
    measured = False  # the tails belong to the section of the newest schema
    for schema in (SCHEMA, FIRST_SCHEMA):
        store = Store(results, name, schema)
        suite = store.read_manifest()
        if suite is None:
            continue
        if not suite.templates:
            raise InputError(
                f"{store.folder / 'suite.json'}: holds no resolved suite",
                "delete that file; the next run writes it again",
            )
        if schema == SCHEMA:
            own = section(suite, store.frame(), results)
        else:
            own = Section(suite, store.frame(), uncounted=OLDER)
        yield own if measured else with_tails(own, store.folder, results)
        measured = True


def with_tails(own: Section, folder: Path, results: Path) -> Section:
    """The section with the tails of its folder. Warns (LeftOut) where they cannot be read."""
    suite = own.recorded
    assert suite is not None, "a sweep that was made elsewhere has no folder of tails"
    try:
        found = read_tails(folder, suite)
    except InputError as error:
        fault = f"{error}; {error.hint}"
        warnings.warn(f"left out of the report: {fault}", LeftOut, stacklevel=2)
        return replace(own, tails_fault=fault)
    if found is None:
        return own
    again = [] if any(remark(suite, run) for run in found.runs) else [_again(suite, found)]
    lines = [shlex.join(["hptransfer", *line, *_place(results)]) for line in again]
    return replace(own, tails=found, commands=[*own.commands, *lines])


def _again(suite: Suite, found: Tails) -> list[str]:
    """The words that measure the tails again; one call made all runs of the document."""
    first = found.runs[0]
    labels = [word for run in found.runs for word in ("--optimizer", run.optimizer)]
    size = ["--width", str(first.axis_value), "--pairs", str(first.pairs)]
    return ["tails", suite.address, *_steps(suite), *_data(suite), *labels, *size]


def write_report(
    names: list[str], results: Path, target: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Render suites from their manifests and records; (page, metrics)."""
    sections: list[Section] = []
    for name in names:
        own = list(stored(name, results))
        if not own:
            raise InputError(
                f"no records of suite {name!r} under {results}",
                f"{command('run', name)} makes them",
            )
        sections += own
    page = render(sections)
    metrics = metrics_json(sections)
    first = Store(results, names[0]) if len(names) == 1 else Store(results, "")
    first.write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")
    for each in {each.suite.name: each for each in reversed(sections)}.values():  # today's schema
        own = Store(results, each.suite.name)
        own.write_text("runs.csv", runs_csv(each.all_rows))
        figure = alignment(each.suite, each.rows)
        own.write_text("alignment.svg", to_svg(figure, each.suite.name, ink=INK))
    if target is None:
        first.write_text("report.html", page)
        target = first.folder / "report.html"
    else:
        try:
            target.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{target}: {error.strerror}", "name a writable file", cures=("out",)
            ) from None
    return target, metrics
