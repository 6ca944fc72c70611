"""coords and validate: commands whose exit code gives the answer."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hptransfer.cli.common import FailedError, err, load, only, out, tell, warn
from hptransfer.cli.options import RunOptions, SuiteName, takes
from hptransfer.suite.resolved import resolve

if TYPE_CHECKING:
    import pandas as pd

    from hptransfer.suite.claim import SuiteTable
    from hptransfer.testing import Check


@takes("as_json")
def validate(
    target: Annotated[
        str, typer.Argument(help="file.py:name, package.module:name, or a built-in name.")
    ],
    kind: Annotated[
        Literal["optimizer", "model", "dataset"] | None,
        typer.Option(help="Kind of the part. Default: its arguments decide."),
    ] = None,
    width: Annotated[int, typer.Option(min=2, help="Width of a model.")] = 64,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="How long a clause may take before it fails.")
    ] = 120.0,
    *,
    options: RunOptions,
) -> None:
    """Test the contract of an optimizer, a model or a data set; exit code 1 if a clause fails."""
    from hptransfer.cli.tables import check_line, checks_head
    from hptransfer.documents.answers import Clause, Validation
    from hptransfer.documents.values import as_json
    from hptransfer.testing import kind_of
    from hptransfer.testing import validate as checks

    kind = kind or kind_of(target)  # type: ignore[assignment]
    assert kind is not None
    clauses = []
    if not options.as_json:
        out.print(checks_head(target, kind))
    for check in _shown(checks, target, kind, width, seconds):
        clauses.append(check)
        if not options.as_json:
            out.print(check_line(check), soft_wrap=True)
    if options.as_json:
        listed = [Clause(check.name, check.passed, check.detail) for check in clauses]
        passed = all(check.passed for check in clauses)
        tell(json.dumps(as_json(Validation(target, kind, passed, listed))))
    failures = [check for check in clauses if not check.passed]
    if failures:
        raise FailedError(
            f"{target}: {len(failures)} of {len(clauses)} clauses fail",
            "the how-to pages on your own parts, in docs/how-to, state the contract",
        )


def _shown(
    checks: Callable[..., Iterator["Check"]], target: str, kind: str, width: int, seconds: float
) -> Iterator["Check"]:
    """The clauses as they end; the one at work stands on a line of its own on a terminal."""
    from hptransfer.cli.text import shown

    status = err.status("")

    def begins(name: str) -> None:
        status.update(shown(f"{name} (at most {seconds:g} s)"))

    running = checks(target, kind, width, seconds=seconds, begins=begins)
    while True:
        with status:  # it ends before the caller prints
            check = next(running, None)
        if check is None:
            return
        yield check


@takes("optimizer", "steps", "data", "device", "results", "as_json", "quiet")
def coords(
    suite: SuiteName = "coords",
    width: Annotated[
        list[int] | None,
        typer.Option("--width", min=1, help="Repeatable. Default: the suite's, or four octaves."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; a verdict needs 3.")] = 3,
    own_head: Annotated[
        bool, typer.Option("--own-head", help="Start the head with the optimizer's init, not at 0.")
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Coordinate check: does every layer move alike at every width? Exit code 1 on a surprise."""
    from hptransfer.analysis import slopes
    from hptransfer.cli.tables import plain_table
    from hptransfer.cli.text import shown
    from hptransfer.records.store import Store
    from hptransfer.report import slopes_figure
    from hptransfer.report.coordinates import coordinates_json

    claim = load(suite, replace(options, seeds=seeds, max_seeds=seeds))
    labels = only(claim, options.optimizer)
    warn(claim, labels)
    store = Store(options.results, claim.name)
    store.check()
    widths = sorted(set(width)) if width else _octaves(claim, slopes.OCTAVES)
    frame = _measured(claim, labels, widths, range(seeds), options, zero_head=not own_head)
    layers = slopes.by_layer(frame)
    verdicts = slopes.judge(layers, claim.controls)
    result = coordinates_json(claim.name, layers, verdicts, own_head=own_head)
    store.write_text("coords.json", json.dumps(result, indent=1))
    store.write_text("coords.svg", slopes_figure.drawn(frame, layers, verdicts, claim.name))
    if options.as_json:
        tell(json.dumps(result))
    else:
        head = "its own init" if own_head else "zero"
        title = f"{claim.name}: slopes of log2 RMS over log2 width, head from {head}"
        out.print(plain_table(title, *slopes.text_table(layers), text=2))
        for verdict in verdicts:
            out.print(shown(verdict.sentence), soft_wrap=True)
        out.print(shown(f"figure: {store.folder / 'coords.svg'}"), soft_wrap=True)
    surprises = [v.optimizer for v in verdicts if not v.expected]
    if surprises:
        raise FailedError(
            f"{', '.join(surprises)}: not what the suite states",
            "the suite's `controls` must fail and its other optimizers pass, each in the middle of "
            "its lr range",
        )


def _measured(
    suite: "SuiteTable",
    labels: list[str],
    widths: list[int],
    seeds: range,
    options: RunOptions,
    *,
    zero_head: bool,
) -> "pd.DataFrame":
    """One row per optimizer, width, seed, layer and step, with the change of the layer's output.

    The change is the RMS of h(t) - h(0).
    """
    import pandas as pd

    from hptransfer.cli import progress
    from hptransfer.train import coords as check
    from hptransfer.train import engine

    where = engine.pick_device(options.device)
    data = engine.load_data(suite.data)
    resolved = resolve(suite, data)
    rows = []
    with progress.bar(err, len(labels) * len(widths) * len(seeds), options.quiet) as advance:
        for label in labels:
            run = resolved.template(label).point(sum(resolved.start_grid(label)) / 2, 0)
            for done in check.measure(label, run, data, widths, seeds, where, zero_head=zero_head):
                rows += [asdict(row) for row in done.rows]
                advance(f"{done.optimizer} width {done.width} seed {done.seed}")
    return pd.DataFrame(rows)


def _octaves(suite: "SuiteTable", least: float) -> list[int]:
    """The suite's widths if they span `least` octaves, else doublings of the base width."""
    own = suite.axis_values if suite.axis == "width" else []
    if own and math.log2(own[-1] / own[0]) >= least:
        return own
    base = suite.base.get("width") or suite.width or suite.proxy
    return [base * 2**i for i in range(math.ceil(least) + 1)]
