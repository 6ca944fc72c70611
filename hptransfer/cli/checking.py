"""coords and validate: the commands whose exit code is the answer."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hptransfer.cli.common import FailedError, err, load, only, out, warn
from hptransfer.cli.options import RunOptions, SuiteName, takes

if TYPE_CHECKING:
    import pandas as pd

    from hptransfer.suite.claim import SuiteTable


@takes("as_json")
def validate(
    target: Annotated[
        str, typer.Argument(help="file.py:name, package.module:name, or a name of ours.")
    ],
    kind: Annotated[
        Literal["optimizer", "model", "dataset"] | None,
        typer.Option(help="What it is. Default: seen from its arguments."),
    ] = None,
    width: Annotated[int, typer.Option(min=2, help="Width that a model is built at.")] = 64,
    *,
    options: RunOptions,
) -> None:
    """Contract tests on an optimizer, a model or a data set of yours; exit code 1 if one fails."""
    from hptransfer.cli.tables import check_line, checks_head
    from hptransfer.testing import kind_of
    from hptransfer.testing import validate as checks

    kind = kind or kind_of(target)  # type: ignore[assignment]
    assert kind is not None
    clauses = []
    if not options.as_json:
        out.print(checks_head(target, kind))
    for check in checks(target, kind, width):
        clauses.append(check)
        if not options.as_json:
            out.print(check_line(check), soft_wrap=True)
    if options.as_json:
        typer.echo(json.dumps([asdict(check) for check in clauses]))
    broken = [check for check in clauses if not check.passed]
    if broken:
        raise FailedError(
            f"{target}: {len(broken)} of {len(clauses)} clauses do not hold",
            "the how-to pages of docs/ on parts of your own say what each has to give",
        )


@takes("optimizer", "steps", "data", "device", "results", "as_json", "quiet")
def coords(
    suite: SuiteName = "coords",
    width: Annotated[
        list[int] | None,
        typer.Option("--width", min=1, help="Repeatable. Default: 4 octaves of the suite's."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds; a verdict needs 3.")] = 3,
    own_head: Annotated[
        bool, typer.Option("--own-head", help="Start the head as the optimizer does, not at 0.")
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Coordinate check: how every layer's change scales with width; exit code 1 on a surprise."""
    from hptransfer.analysis import slopes
    from hptransfer.cli.tables import plain_table
    from hptransfer.cli.text import shown
    from hptransfer.records.store import Store
    from hptransfer.report import slopes_figure

    chosen = load(suite, options, seeds=seeds)
    labels = only(chosen, options.optimizer)
    warn(chosen, labels)
    store = Store(options.results, chosen.name)
    store.check()
    widths = sorted(set(width)) if width else _octaves(chosen, slopes.OCTAVES)
    frame = _measured(chosen, labels, widths, range(seeds), options, zero_head=not own_head)
    layers = slopes.by_layer(frame)
    verdicts = slopes.judge(layers, chosen.controls)
    result = slopes.as_json(layers, verdicts, own_head=own_head)
    store.write_text("coords.json", json.dumps(result, indent=1))
    store.write_text("coords.svg", slopes_figure.drawn(frame, layers, verdicts, chosen.name))
    if options.as_json:
        typer.echo(json.dumps(result))
    else:
        head = "its own init" if own_head else "zero"
        title = f"{chosen.name}: slopes of log2 RMS over log2 width, head from {head}"
        out.print(plain_table(title, *slopes.text_table(layers), text=2))
        for verdict in verdicts:
            out.print(shown(verdict.sentence), soft_wrap=True)
        out.print(shown(f"figure: {store.folder / 'coords.svg'}"), soft_wrap=True)
    surprises = [v.optimizer for v in verdicts if not v.expected]
    if surprises:
        raise FailedError(
            f"{', '.join(surprises)}: not as the suite says",
            "the suite's `controls` have to fail and the others to pass, in the middle of their lr",
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
    """One row per optimizer, width, seed, layer and step: how far the layer's output moved."""
    import pandas as pd

    from hptransfer.cli import progress
    from hptransfer.train import coords as check
    from hptransfer.train import engine

    where = engine.pick_device(options.device)
    data = engine.load_data(suite.data)
    resolved = suite.resolve(data.sha256)
    rows = []
    with progress.bar(err, len(labels) * len(widths) * len(seeds), options.quiet) as advance:
        for label in labels:
            run = resolved.template(label).point(sum(resolved.start_grid(label)) / 2, 0)
            for done in check.measure(label, run, data, widths, seeds, where, zero_head=zero_head):
                rows += [asdict(row) for row in done.rows]
                advance(f"{done.optimizer} width {done.width} seed {done.seed}")
    return pd.DataFrame(rows)


def _octaves(suite: "SuiteTable", least: float) -> list[int]:
    """The suite's widths where they span enough octaves, else doublings of the base width."""
    own = [suite.proxy, *suite.targets] if suite.axis == "width" else []
    if own and math.log2(max(own) / min(own)) >= least:
        return sorted(set(own))
    base = suite.base.get("width") or suite.width or suite.proxy
    return [base * 2**i for i in range(math.ceil(least) + 1)]
