"""check and compare: commands that judge recorded runs."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hptransfer.cli.common import err, load, only, out, tell
from hptransfer.cli.options import RunOptions, SuiteName, takes
from hptransfer.errors import InputError, command

if TYPE_CHECKING:
    import pandas as pd

    from hptransfer.report.checked import Checked
    from hptransfer.report.compared import Compared
    from hptransfer.suite.claim import SuiteTable
    from hptransfer.suite.resolved import Suite


Train = Annotated[
    bool,
    typer.Option("--run", help="Train the missing runs first and write the report, as run does."),
]
MaxRegret = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="NAT",
        help="Largest regret in nats. At the largest target the upper bound of the regret's "
        "interval must be at most this, for every optimizer that is expected to transfer: "
        "refuted where it is above, undecided where there is no interval.",
    ),
]
MaxDrift = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="OCTAVES",
        help="Largest drift in octaves, up or down. At the largest target both bounds of the "
        "drift's interval must lie within this of 0, for every optimizer that is expected to "
        "transfer: refuted where one lies further out, undecided where there is no interval.",
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Also write JUnit XML: refuted is a failure, undecided an error."
    ),
]


@takes(
    "optimizer", "trials", "steps", "data", "device", "workers", "lanes", "results", "storage",
    "as_json", "yes", "quiet",
)  # fmt: skip
def check(
    suite: SuiteName,
    train: Train = False,
    max_regret: MaxRegret = None,
    max_drift: MaxDrift = None,
    junit: Junit = None,
    *,
    options: RunOptions,
) -> None:
    """Judge the suite's expectations by the recorded runs. It trains nothing without --run.

    Exit code 0: all expectations and limits held. 1: one was refuted.
    3: none was refuted, and one is undecided: runs are missing, for instance.

    An expected "transfers" is held by transfers, refuted by drifts and diverged.
    An expected "drifts" is held by drifts, refuted by transfers and insensitive.
    Any other verdict leaves it undecided. The largest target decides.

    The suite is read as its file says now: runs of an optimizer that has changed
    since do not count. The data set is that of the last run.
    """
    from hptransfer.cli.training import finish, say_where, write_its_report
    from hptransfer.report.checked import check_json, junit_xml

    table = load(suite, options)
    labels = _expected(table, options)
    limits = {"max_regret": max_regret, "max_drift": max_drift}
    _check_finite(limits)
    session = finish(table, options) if train else None
    if session is None:
        full, frame = _recorded(table, options)
    else:
        full, frame = session.full, session.store.frame()
    checked = _checked(full, frame, labels, limits)
    if junit is not None:
        _write(junit, junit_xml(checked))
    page = None if session is None else write_its_report(session, options)
    if options.as_json:
        tell(json.dumps(check_json(checked)))
    else:
        _print(checked)
    if page is not None:
        say_where(page, options)
    raise typer.Exit(checked.exit_code)


def _expected(table: "SuiteTable", options: RunOptions) -> list[str]:
    """The labels to judge. Raises InputError where the suite expects nothing of them."""
    if not table.expect:
        raise InputError(
            f"suite {table.name!r} states no expectation, so nothing can be judged",
            f"add the verdicts that its claim needs: expect = {{ {next(iter(table.optimizers))} = "
            '"transfers" }',
        )
    labels = only(table, options.optimizer)
    if not table.expect.keys() & set(labels):
        raise InputError(
            f"suite {table.name!r} expects nothing of {', '.join(labels)}",
            f"it expects something of {', '.join(table.expect)}",
            option="optimizer",
        )
    return labels


def _check_finite(limits: dict[str, float | None]) -> None:
    """Raises InputError for a limit that is infinite or no number."""
    for name, limit in limits.items():
        if limit is not None and not math.isfinite(limit):
            raise InputError(f"got {limit}, needs a finite number", "0.02", option=name)


def _checked(
    full: "Suite", frame: "pd.DataFrame", labels: list[str], limits: dict[str, float | None]
) -> "Checked":
    """The records of these labels, judged."""
    from hptransfer.analysis import claims, transfer
    from hptransfer.analysis.frame import select
    from hptransfer.report.checked import Checked

    judged = full.only(labels)
    found = transfer.transfers(judged, select(judged, frame))
    judgements = claims.judgements(judged, found)
    gates = claims.gates(judgements, found, **limits)
    return Checked(judged, full, found, judgements, gates)


def _recorded(table: "SuiteTable", options: RunOptions) -> "tuple[Suite, pd.DataFrame]":
    """The suite and the records in its folder. Raises InputError where there are none."""
    from hptransfer.analysis.frame import select
    from hptransfer.cli.text import shown
    from hptransfer.records.store import Store
    from hptransfer.spec import FIRST_SCHEMA
    from hptransfer.suite.recorded import as_recorded, differing_fields

    store = Store(options.results, table.name)
    kept = store.read_manifest()
    train = f"{command('run', table.address)} makes them, and so does check with --run"
    if kept is None or not kept.templates:
        if Store(options.results, table.name, FIRST_SCHEMA).read_manifest() is not None:
            raise InputError(
                f"the records of suite {table.name!r} under {options.results} are of an earlier "
                "version, under the rule of 0.1, and are not judged by today's",
                f"{command('report', table.name)} shows them; records of today: {train}",
            )
        raise InputError(f"no records of suite {table.name!r} under {options.results}", train)
    suite, frame = as_recorded(table, kept), store.frame()
    known = set(select(suite, frame)["optimizer"])
    for label in (x for x in suite.expect if x in kept.templates and x not in known):
        if changed := differing_fields(suite.template(label), kept.template(label)):
            told = f"note: {label}: no run as the suite has it now: {'; '.join(changed)}"
            err.print(shown(told), soft_wrap=True)
    return suite, frame


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}", "name a writable file", option="junit"
        ) from None


def _print(checked: "Checked") -> None:
    """A table of the expectations at all targets, the grounds, the limits, and the judgement."""
    from hptransfer.analysis.claims import claim_sentence
    from hptransfer.analysis.sentences import sentence
    from hptransfer.cli.tables import plain_table
    from hptransfer.cli.text import shown
    from hptransfer.report.checked import gate_sentence

    suite = checked.suite
    rows, grounds = [], []
    for claim in checked.claims:
        for at in (*claim.nearer, *filter(None, [claim.widest])):
            judgement = at.judgement if at == claim.widest else f"({at.judgement})"
            rows.append((claim.optimizer, claim.expected, at.verdict, judgement, str(at.target)))
        decides = checked.transfer(claim.optimizer, claim.widest.target if claim.widest else None)
        grounds += [sentence(suite, decides)] if decides else []
    columns = ("optimizer", "expected", "verdict", "judgement", suite.axis)
    out.print(plain_table(f"{suite.name}: {suite.claim}", columns, rows, text=4))
    out.print()
    for line in (
        *grounds,
        *(gate_sentence(suite, gate) for gate in checked.gates),
        checked.control.sentence,
        claim_sentence(suite, checked.claims),
    ):
        out.print(shown(line), soft_wrap=True)


@takes("as_json")
def compare(
    a: Annotated[Path, typer.Argument(help="A results folder, or a suite's folder in one.")],
    b: Annotated[Path, typer.Argument(help="The other one.")],
    *,
    options: RunOptions,
) -> None:
    """Compare two folders of records, of two versions or two machines, run by run.

    Runs are pairs if all is equal but the version of hptransfer and of the parts.
    For each optimizer and axis value it tests B - A over the common seeds: the
    loss near the best lr, the drift and the regret. The intervals are t-intervals
    with Holm's correction: the chance that one of them excludes 0 by chance is 5%.
    """
    from hptransfer.report.compared import compare_json, compared

    found = compared(a, b)
    if options.as_json:
        tell(json.dumps(compare_json(found)))
    else:
        _print_compared(found)


def _print_compared(found: "Compared") -> None:
    """Per suite a table of differences, the verdicts that changed, and what has no pair."""
    from hptransfer.cli.tables import compared_table
    from hptransfer.cli.text import shown

    n_differs = 0
    for suite, tested in zip(found.suites, found.tested, strict=True):
        n_differs += sum(each.differs for each in tested)
        pairing, axis = suite.pairing, suite.a.suite.axis
        out.print(compared_table(suite, tested))
        lines = [
            f"{each.optimizer} at {axis} {each.target}: {each.a} in A, {each.b} in B"
            for each in suite.verdicts
            if each.a != each.b
        ]
        lines += [
            f"not paired: {each.n_runs} run(s) of {each.optimizer} at {axis} {each.axis_value} in "
            f"{each.side.upper()}: {each.reason}"
            for each in pairing.unpaired
        ]
        for line in lines:
            out.print(shown(line), soft_wrap=True)
        out.print()
    for side, names in (("A", found.only_in_a), ("B", found.only_in_b)):
        if names:
            out.print(shown(f"only in {side}: {', '.join(names)}"), soft_wrap=True)
    pairs = sum(suite.pairing.n_paired for suite in found.suites)
    told = f"{n_differs} of {found.n_tests} tested differences exclude 0; {pairs} pairs of runs"
    out.print(shown(told), soft_wrap=True)
