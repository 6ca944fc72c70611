"""What compare found in two folders, as a document."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hptransfer.analysis.compare import Pairing, Side, compare
from hptransfer.analysis.frame import select
from hptransfer.analysis.holm import Tested, holm
from hptransfer.analysis.statuses import finished
from hptransfer.analysis.transfer import transfers
from hptransfer.documents import comparison as shapes
from hptransfer.documents.values import as_json
from hptransfer.errors import InputError
from hptransfer.records.store import Store, holds_suite, stored_suites
from hptransfer.report.optimum_shapes import interval_shape
from hptransfer.spec import FIRST_SCHEMA, SCHEMA


@dataclass(frozen=True, eq=False)
class ComparedSuite:
    """One suite in both folders."""

    name: str
    folders: tuple[Path, Path]
    a: Side
    b: Side
    pairing: Pairing

    @cached_property
    def verdicts(self) -> list[shapes.VerdictPair]:
        """One per optimizer and target that both have."""
        there = {(t.optimizer, t.n): t.verdict for t in transfers(self.b.suite, self.b.rows)}
        labels = self.pairing.labels
        return [
            shapes.VerdictPair(t.optimizer, t.n, t.verdict, there[labels[t.optimizer], t.n])
            for t in transfers(self.a.suite, self.a.rows)
            if (labels.get(t.optimizer), t.n) in there
        ]


@dataclass(frozen=True, eq=False)
class Compared:
    """Two folders: their common suites, the test of every difference, and the other suites."""

    a: Path
    b: Path
    suites: Sequence[ComparedSuite]
    tested: Sequence[Sequence[Tested]]
    only_in_a: Sequence[str]
    only_in_b: Sequence[str]

    @property
    def n_tests(self) -> int:
        return sum(each.n > 1 for own in self.tested for each in own)


def compared(a: Path, b: Path) -> Compared:
    """Compare two results folders, two folders of suites in them, or one of each.

    Suites of equal name belong together; two folders of suites do whatever their names.
    Raises InputError for a folder without records, and for two without a common suite.
    """
    ours, theirs = _suites(a), _suites(b)
    if holds_suite(a) and holds_suite(b):
        pairs = {a.name: (a, b)}
    else:
        pairs = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
    if not pairs:
        raise InputError(
            f"{a} and {b} have no suite in common",
            f"{a}: {', '.join(ours)}; {b}: {', '.join(theirs)}; name two folders of suites to "
            "compare suites of different names",
        )
    suites = []
    for name, folders in pairs.items():
        left, right = (_side(folder) for folder in folders)
        suites.append(ComparedSuite(name, folders, left, right, compare(left, right)))
    flat = iter(holm([each.values for suite in suites for each in suite.pairing.measured]))
    tested = [[next(flat) for _ in suite.pairing.measured] for suite in suites]
    shown = {folder for folders in pairs.values() for folder in folders}
    only_in_a, only_in_b = (
        [name for name, folder in own.items() if folder not in shown] for own in (ours, theirs)
    )
    return Compared(a, b, suites, tested, only_in_a, only_in_b)


def _suites(path: Path) -> dict[str, Path]:
    """Name -> folder of every suite with records at a path. Raises InputError for none."""
    if holds_suite(path):
        return {path.name: path}
    found = {name: path / name for name in sorted(stored_suites(path))}
    if not found:
        why = "no records there" if path.is_dir() else "no such folder"
        raise InputError(f"{path}: {why}", "name a results folder, or a suite's folder in one")
    return found


def _side(folder: Path) -> Side:
    """The records of today's schema, else those of the first. Raises InputError for neither."""
    for schema in (SCHEMA, FIRST_SCHEMA):
        store = Store(folder.parent, folder.name, schema)
        suite = store.read_manifest()
        if suite is not None and suite.templates:
            return Side(suite, select(suite, store.frame()))
    raise InputError(
        f"{folder}: holds records without the suite that they belong to",
        "hptransfer run of that suite writes its suite.json again",
    )


def compare_json(found: Compared) -> dict[str, Any]:
    """The document `Comparison` as JSON values."""
    both = zip(found.suites, found.tested, strict=True)
    return as_json(
        shapes.Comparison(
            a=str(found.a),
            b=str(found.b),
            n_tests=found.n_tests,
            suites=[_suite(suite, tested) for suite, tested in both],
            only_in_a=list(found.only_in_a),
            only_in_b=list(found.only_in_b),
        )
    )


def _suite(suite: ComparedSuite, tested: Sequence[Tested]) -> shapes.SuiteComparison:
    pairing = suite.pairing
    return shapes.SuiteComparison(
        suite=suite.name,
        a=_side_shape(suite.folders[0], suite.a),
        b=_side_shape(suite.folders[1], suite.b),
        n_paired=pairing.n_paired,
        differences=[
            shapes.Difference(
                optimizer=each.optimizer,
                axis_value=each.n,
                quantity=each.quantity,
                unit="octaves" if each.quantity == "drift" else "nats",
                difference=interval_shape(test.difference),
                n_seeds=test.n,
                p_value=test.p,
                p_value_holm=test.p_holm,
                differs=test.differs,
            )
            for each, test in zip(pairing.measured, tested, strict=True)
        ],
        verdicts=suite.verdicts,
        unpaired=pairing.unpaired,
    )


def _side_shape(folder: Path, side: Side) -> shapes.Side:
    versions = {str(env.get("versions", {}).get("hptransfer", "?")) for env in side.rows["env"]}
    hosts = {str(env.get("host", "?")) for env in side.rows["env"]}
    return shapes.Side(
        folder=str(folder),
        records_schema=side.suite.records_schema,
        n_runs=int(finished(side.rows)["key"].nunique()),
        versions=sorted(versions),
        hosts=sorted(hosts),
    )
