"""coords and validate: the commands whose exit code is the answer."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hptransfer.cli.options import (
    Data,
    Device,
    FailedError,
    Json,
    Optimizers,
    Quiet,
    Results,
    Steps,
    SuiteName,
    err,
    load,
    only,
    out,
    warn,
)

if TYPE_CHECKING:
    from hptransfer.suite.claim import SuiteTable


def validate(
    target: Annotated[
        str, typer.Argument(help="file.py:name, package.module:name, or a name of ours.")
    ],
    kind: Annotated[
        Literal["optimizer", "model", "dataset"] | None,
        typer.Option(help="What it is. Default: seen from its arguments."),
    ] = None,
    width: Annotated[int, typer.Option(min=2, help="Width that a model is built at.")] = 64,
    as_json: Json = False,
) -> None:
    """Contract tests on an optimizer, a model or a data set of yours; exit code 1 if one fails."""
    from hptransfer.cli.display import check_line, checks_head
    from hptransfer.testing import kind_of
    from hptransfer.testing import validate as checks

    kind = kind or kind_of(target)  # type: ignore[assignment]
    assert kind is not None
    found = []
    if not as_json:
        out.print(checks_head(target, kind))
    for check in checks(target, kind, width):
        found.append(check)
        if not as_json:
            out.print(check_line(check), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in found]))
    broken = [check for check in found if not check.passed]
    if broken:
        raise FailedError(
            f"{target}: {len(broken)} of {len(found)} clauses do not hold",
            "README, section Your own parts, says what each part has to give",
        )


def coords(
    suite: SuiteName = "coords",
    width: Annotated[
        list[int] | None,
        typer.Option("--width", min=1, help="Repeatable. Default: 4 octaves of the suite's."),
    ] = None,
    optimizer: Optimizers = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds; a verdict needs 3.")] = 3,
    own_head: Annotated[
        bool, typer.Option("--own-head", help="Start the head as the optimizer does, not at 0.")
    ] = False,
    steps: Steps = None,
    data: Data = None,
    device: Device = "auto",
    results: Results = Path("results"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Coordinate check: how every layer's change scales with width; exit code 1 on a surprise."""
    import pandas as pd

    from hptransfer.analysis import slopes
    from hptransfer.cli import display
    from hptransfer.records.store import Store
    from hptransfer.report import slopes_figure
    from hptransfer.train import coords as check
    from hptransfer.train import engine

    chosen = load(suite, steps=steps, trials=None, data=data)
    labels = only(chosen, optimizer)
    warn(chosen, labels)
    store = Store(results, chosen.name)
    store.check()
    where = engine.pick_device(device)
    loaded = engine.load_data(chosen.data)
    resolved = chosen.resolve(loaded.sha256)
    widths = sorted(set(width)) if width else _octaves(chosen, slopes.OCTAVES)
    rows = []
    with display.bar(err, len(labels) * len(widths) * seeds, quiet) as advance:
        for label in labels:
            run = resolved.template(label).point(sum(resolved.start_grid(label)) / 2, 0)
            for done in check.measure(
                label, run, loaded, widths, range(seeds), where, zero_head=not own_head
            ):
                rows += [asdict(row) for row in done.rows]
                advance(f"{done.optimizer} width {done.width} seed {done.seed}")
    frame = pd.DataFrame(rows)
    table = slopes.fit(frame)
    verdicts = slopes.judge(table, chosen.controls)
    found = slopes.as_json(table, verdicts, own_head=own_head)
    store.write_text("coords.json", json.dumps(found, indent=1))
    store.write_text("coords.svg", slopes_figure.drawn(frame, table, verdicts, chosen.name))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        head = "its own init" if own_head else "zero"
        title = f"{chosen.name}: slopes of log2 RMS over log2 width, head from {head}"
        out.print(display.plain_table(title, *slopes.text_table(table), text=2))
        for verdict in verdicts:
            out.print(display.shown(verdict.sentence), soft_wrap=True)
        out.print(display.shown(f"figure: {store.folder / 'coords.svg'}"), soft_wrap=True)
    surprises = [v.optimizer for v in verdicts if not v.expected]
    if surprises:
        raise FailedError(
            f"{', '.join(surprises)}: not as the suite says",
            "the suite's `controls` have to fail and the others to pass, in the middle of their lr",
        )


def _octaves(suite: "SuiteTable", least: float) -> list[int]:
    """The suite's widths where they span enough octaves, else doublings of the base width."""
    own = [suite.proxy, *suite.targets] if suite.axis == "width" else []
    if own and math.log2(max(own) / min(own)) >= least:
        return sorted(set(own))
    base = suite.base.get("width") or suite.width or suite.proxy
    return [base * 2**i for i in range(math.ceil(least) + 1)]
