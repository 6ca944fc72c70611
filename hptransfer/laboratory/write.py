"""Manifest and cells of a study -> its page, points.csv and exponents.json."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hptransfer.documents.exponents import ExponentFit, ExponentGap, Exponents
from hptransfer.documents.values import Interval, as_json
from hptransfer.errors import InputError, command
from hptransfer.laboratory.exponents import Fit, Name, fits, growths
from hptransfer.laboratory.gap import THEORY, Gap, gaps
from hptransfer.laboratory.page import page, points_csv
from hptransfer.laboratory.plan import Progress, progress
from hptransfer.laboratory.study import Study
from hptransfer.records.cells import CellStore
from hptransfer.records.disk import disk
from hptransfer.records.store import Store

MANIFEST = "study.json"


def is_stored(name: str, results: Path) -> bool:
    """Whether a results folder holds a study of this name."""
    return os.path.isfile(results / name / MANIFEST)  # Path.is_file raises for long names


def write_manifest(study: Study, results: Path) -> None:
    """Keep the study beside its cells, so that a report needs no file."""
    Store(results, study.name).write_text(MANIFEST, study.model_dump_json(indent=1) + "\n")


def stored(name: str, results: Path) -> Study:
    """The study of a results folder. Raises InputError."""
    path = results / name / MANIFEST
    short = re.fullmatch(r"(.+)-steps-(\d+)", name)
    again = (short[1], "--steps", short[2]) if short else (name,)
    try:
        with disk(path, "read"):
            return Study.model_validate_json(path.read_bytes())
    except (ValidationError, FileNotFoundError):
        raise InputError(
            f"{path}: holds no study of this version", f"{command('run', *again)} writes it again"
        ) from None


def write_report(name: str, results: Path, target: Path | None) -> tuple[Path, dict[str, Any]]:
    """Write the page, points.csv and exponents.json; (path of the page, exponents)."""
    study = stored(name, results)
    known = progress(study, CellStore(results, name).read())
    place = [] if results == Path("results") else ["--results", str(results)]
    short = ["--steps", str(study.steps)] if study.steps else []
    text = page(study, known, shlex.join(["hptransfer", "run", study.source, *short, *place]))
    store, found = Store(results, name), exponents_json(study, known)
    store.write_text("points.csv", points_csv(known))
    store.write_text("exponents.json", json.dumps(found, indent=1) + "\n")
    if target is None:
        store.write_text("report.html", text)
        return store.folder / "report.html", found
    with disk(target, "written"):
        target.write_text(text, encoding="utf-8")
    return target, found


def exponents_json(study: Study, known: Sequence[Progress]) -> dict[str, Any]:
    """The fits of a study as a document."""
    in_goal, in_directions = (
        [_shape(name, fit) for name, fit in found] for found in (fits(known), growths(known))
    )
    apart = [_gap_shape(each) for each in gaps(known)]
    return as_json(Exponents(study.name, study.claim, in_goal, in_directions, apart))


def _gap_shape(gap: Gap) -> ExponentGap:
    return ExponentGap(
        gap.part,
        gap.noise,
        theory=THEORY,
        by_seeds=Interval(gap.value, *gap.seeds),
        by_points=Interval(gap.value, *gap.left_out),
        by_grid=Interval(gap.value, *gap.grid),
        n_points=gap.n_points,
        excludes_zero=gap.excludes_zero,
        holds_theory=gap.holds_theory,
        verdict=gap.verdict,
    )


def _shape(name: Name, fit: Fit) -> ExponentFit:
    return ExponentFit(
        *name,
        theory=fit.theory,
        by_seeds=Interval(fit.slope, *fit.seeds),
        by_points=Interval(fit.slope, *fit.left_out),
        by_grid=Interval(fit.slope, *fit.grid),
        n_points=fit.n_points,
        verdict=fit.verdict,
    )
