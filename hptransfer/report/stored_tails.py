"""tails.json in a suite's results folder -> the document `Tails`. InputError for any other text."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hptransfer.analysis.tails import LEAST_PAIRS
from hptransfer.documents.tails import TailRun, Tails
from hptransfer.documents.values import DOCUMENT
from hptransfer.errors import InputError
from hptransfer.records.disk import disk
from hptransfer.spec import COUNT, fits
from hptransfer.suite.resolved import Suite

FILE = "tails.json"


@dataclass(frozen=True)
class _Version:
    schema: int


def read_tails(folder: Path, suite: Suite) -> Tails | None:
    """The tails that were measured for a suite, None where there is no file.

    A document without the Hill plot, as earlier versions wrote, has empty curves. Raises InputError
    for a damaged file, a later version's, or another suite's.
    """
    path = folder / FILE
    try:
        with disk(path, "read"):
            data = path.read_bytes()
    except FileNotFoundError:
        return None
    again = f"hptransfer tails {suite.name} measures it again"
    try:
        version = TypeAdapter(_Version).validate_json(data, strict=True).schema
        if version > DOCUMENT:
            raise InputError(
                f"{path}: got schema {version}, this version reads {DOCUMENT}",
                "another version of hptransfer wrote it: pip install --upgrade hptransfer",
            )
        found = TypeAdapter(Tails).validate_json(data, strict=True)
    except ValidationError as error:
        raise InputError(f"{path}: damaged ({_cause(error)})", again) from None
    if found.suite != suite.name:
        raise InputError(f"{path}: got suite {found.suite!r}, needs {suite.name!r}", again)
    faults = [fault for run in found.runs if (fault := _fault(run))]
    if faults or not found.runs:
        raise InputError(f"{path}: damaged ({faults[0] if faults else 'no runs'})", again)
    return found


def _cause(error: ValidationError) -> str:
    """The first cause, with its place: `runs.0.pairs: Field required`."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _fault(run: TailRun) -> str:
    """What a run says that cannot be, "" where all can."""
    counts = (run.axis_value, run.steps, run.pairs, *run.curve_k)
    if not all(fits(number, COUNT) for number in counts):
        return f"{run.optimizer}: a number below 1 or too large"
    if run.pairs < LEAST_PAIRS:
        return f"{run.optimizer}: fewer than {LEAST_PAIRS} pairs"
    if not run.layers:
        return f"{run.optimizer}: no layers"
    for each in run.layers:
        if {len(each.curve_index), len(each.curve_norm)} != {len(run.curve_k)}:
            return f"{run.optimizer}, {each.layer}: curves and curve_k differ in length"
    return ""
