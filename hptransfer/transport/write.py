"""Manifest, runs and diagnostics of a study -> its page, gains.csv and transport.json."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hptransfer.analysis.frame import belonging
from hptransfer.analysis.statuses import finished
from hptransfer.datasets import Unread
from hptransfer.documents.values import as_json
from hptransfer.errors import InputError, command
from hptransfer.records.diagnostics import Diagnostic, DiagnosticStore
from hptransfer.records.disk import disk
from hptransfer.records.store import Store
from hptransfer.search.plan import forecast
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.transport.document import document, gains_csv
from hptransfer.transport.gains import Known, Relative, judged, known, relatives
from hptransfer.transport.page import page
from hptransfer.transport.search import propose
from hptransfer.transport.study import Cell, Group, Study

MANIFEST = "transport-study.json"


def is_stored(name: str, results: Path) -> bool:
    """Whether a results folder holds a study of transport of this name."""
    return os.path.isfile(results / name / MANIFEST)  # Path.is_file raises for long names


def write_manifest(study: Study, results: Path) -> None:
    """Keep the study beside its records, so that a report needs no file."""
    Store(results, study.name).write_text(MANIFEST, study.model_dump_json(indent=1) + "\n")


def stored(name: str, results: Path) -> Study:
    """The study of a results folder. Raises InputError."""
    path = results / name / MANIFEST
    try:
        with disk(path, "read"):
            return Study.model_validate_json(path.read_bytes())
    except (ValidationError, FileNotFoundError):
        raise InputError(
            f"{path}: holds no study of this version", f"{command('run', name)} writes it again"
        ) from None


@dataclass(frozen=True)
class Progress:
    """What is known of a study: its cells, its relatives, and how many runs are recorded."""

    cells: list[Known]
    relatives: list[Relative]
    n_runs: int
    n_expected: int


def group_store(group: Group, results: Path) -> Store:
    """The records of a group's runs: a suite's folder inside that of the study."""
    return Store(results / group.study.name, group.name)


def stars(found: list[Known]) -> dict[Cell, float]:
    """s* of the cells whose diagnostics are all there."""
    return {each.cell: each.star for each in found if each.star is not None}


def of_group(
    group: Group, store: Store, diagnostics: Mapping[str, Diagnostic]
) -> tuple[Suite, list[Known]]:
    """The suite of a group with the arms of s* that are known, and its cells.

    Raises InputError where its records cannot be read.
    """
    manifest, frame = store.read_manifest(), store.frame()
    data = Unread() if manifest is None else _read_by(manifest)
    plain = resolve(group.suite({}), data)
    whole = resolve(group.suite(stars(known(group, plain, frame, diagnostics))), data)
    return whole, known(group, whole, frame, diagnostics)


def recorded(
    group: Group, store: Store, diagnostics: Mapping[str, Diagnostic]
) -> tuple[Suite, list[Known]]:
    """As `of_group`, by the suite that was run last: later revisions of its parts change nothing.

    Where none was run, or one with other arms, the group's own suite stands.
    """
    manifest = store.read_manifest()
    if manifest is None or not group.suite({}).optimizers.keys() <= manifest.templates.keys():
        return of_group(group, store, diagnostics)
    return manifest, known(group, manifest, store.frame(), diagnostics)


def _read_by(manifest: Suite) -> Unread:
    """What the manifest of a group says of its data, which a report does not load."""
    template = next(iter(manifest.templates.values()))
    return Unread(template.data["sha256"], template.eval_examples)


def progress(study: Study, results: Path) -> Progress:
    """What the records of a results folder tell."""
    diagnostics = DiagnosticStore(results, study.name).read()
    cells: list[Known] = []
    others: list[Relative] = []
    runs = missing = 0
    for group in study.groups():
        store = group_store(group, results)
        suite, found = recorded(group, store, diagnostics)
        frame = store.frame()
        cells += found
        others += relatives(group, suite, frame)
        runs += len(finished(belonging(suite, frame)).drop_duplicates("key"))
        missing += len(forecast(suite, frame, propose))
    return Progress(judged(cells), others, runs, runs + missing)


def write_report(name: str, results: Path, target: Path | None) -> tuple[Path, dict[str, Any]]:
    """Write the page, gains.csv and transport.json; (path of the page, transport.json)."""
    study = stored(name, results)
    state = progress(study, results)
    place = [] if results == Path("results") else ["--results", str(results)]
    found = as_json(document(study, state.cells, state.n_runs, state.n_expected))
    text = page(
        study, state.cells, state.relatives, found, shlex.join(["hptransfer", "run", name, *place])
    )
    store = Store(results, name)
    store.write_text("gains.csv", gains_csv(state.cells))
    store.write_text("transport.json", json.dumps(found, indent=1) + "\n")
    if target is None:
        store.write_text("report.html", text)
        return store.folder / "report.html", found
    with disk(target, "written"):
        target.write_text(text, encoding="utf-8")
    return target, found
