"""tails: is the gradient noise of a training run heavy-tailed?"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from hptransfer.cli.common import err, load, only, out, tell, warn
from hptransfer.cli.options import RunOptions, SuiteName, takes

if TYPE_CHECKING:
    import pandas as pd

    from hptransfer.analysis.tails import LayerTail
    from hptransfer.report.tails import Measured
    from hptransfer.suite.claim import SuiteTable
    from hptransfer.suite.resolved import Suite
    from hptransfer.train.engine import Data
    from hptransfer.train.gradient_noise import LayerNoise


@takes("optimizer", "steps", "data", "device", "results", "as_json", "quiet")
def tails(
    suite: SuiteName = "quickstart",
    width: Annotated[
        int | None, typer.Option(min=1, help="Axis value of the run. Default: the suite's proxy.")
    ] = None,
    pairs: Annotated[
        int, typer.Option(help="Pairs of gradients per layer; 4096 decide most cases.")
    ] = 1024,
    *,
    options: RunOptions,
) -> None:
    """Tail index of each layer's gradient noise at moments of a training run.

    Without --optimizer the first one of the suite trains.
    """
    from hptransfer.analysis.tails import count
    from hptransfer.cli.text import shown
    from hptransfer.records.store import Store
    from hptransfer.report.tails import MISLEADS, tails_json
    from hptransfer.suite.resolved import resolve
    from hptransfer.train import engine

    count(pairs)
    table = load(suite, options)
    labels = only(table, options.optimizer)[: None if options.optimizer else 1]
    warn(table, labels)
    store = Store(options.results, table.name)
    store.check()
    reported = store.read_manifest() is not None  # read first: another suite's folder is refused
    data = engine.load_data(table.data)
    resolved = resolve(table, data)
    n = width or table.proxy
    frame = store.frame()
    runs = [_measured(resolved, data, frame, label, n, pairs, options) for label in labels]
    result = tails_json(table.name, table.axis, runs)
    store.write_text("tails.json", json.dumps(result, indent=1) + "\n")
    if options.as_json:
        tell(json.dumps(result))
        return
    for run in runs:
        _print(table, run)
    out.print(shown(MISLEADS), soft_wrap=True)
    out.print(shown(f"numbers: {store.folder / 'tails.json'}"), soft_wrap=True)
    if reported:
        out.print(shown(f"hptransfer report {table.name} shows them"), soft_wrap=True)


def _print(suite: "SuiteTable", run: "Measured") -> None:
    """The table of a run and its outcome in words."""
    from hptransfer.cli.tables import plain_table
    from hptransfer.cli.text import power, shown
    from hptransfer.report.tails import COLUMNS, rows, sentences

    title = (
        f"{suite.name}: {run.optimizer}, {suite.axis} {run.axis_value}, lr {power(run.log2_lr)} "
        f"({run.lr_source}), {run.pairs} pairs"
    )
    out.print(plain_table(title, COLUMNS, rows(run), text=2))
    for sentence in sentences(run):
        out.print(shown(sentence), soft_wrap=True)


def _measured(
    suite: "Suite",
    data: "Data",
    frame: "pd.DataFrame",
    label: str,
    n: int,
    pairs: int,
    options: RunOptions,
) -> "Measured":
    """Train a run of the label at its best recorded lr, else at the middle of its range."""
    from hptransfer.analysis.frame import groups, select
    from hptransfer.analysis.optimum import optimum
    from hptransfer.cli import progress
    from hptransfer.report.tails import Measured
    from hptransfer.train import engine, gradient_noise

    recorded = groups(select(suite, frame)).get((label, n))
    best = None if recorded is None else optimum(recorded)
    log2_lr = sum(suite.start_grid(label)) / 2 if best is None else best.log2_lr
    hp = {} if best is None else best.hp
    run = suite.template(label, n).point(suite.clip_lr(label, log2_lr), 0, **hp)
    source = "middle of the range" if best is None else "best recorded"
    steps, batches = gradient_noise.moments(run.steps), gradient_noise.batches(run)
    total = gradient_noise.PIECES * len(steps) * len(batches)
    layers = []
    device = engine.pick_device(options.device)
    with progress.bar(err, total, options.quiet) as advance:
        for piece in gradient_noise.measure(run, data, device, pairs=pairs):
            layers += [_judged(noise) for noise in piece.layers]
            advance(f"{label} step {piece.step}, batch {piece.batch}: {piece.pairs} pairs")
    settings = suite.identity(label, n) or ""
    return Measured(label, n, run.log2_lr, source, run.steps, pairs, settings, layers)


def _judged(noise: "LayerNoise") -> "LayerTail":
    from hptransfer.analysis import tails as analysis

    single = noise.batch == 1
    p_eff = analysis.effective_moment(list(noise.averages), list(noise.averages.values()))
    return analysis.LayerTail(
        layer=noise.layer,
        kind=noise.kind,
        shape=noise.shape,
        step=noise.step,
        batch=noise.batch,
        frobenius=analysis.tail(noise.frobenius),
        spectral=analysis.tail(noise.spectral),
        pooled_fit=analysis.pooled_stable_fit(noise.entries),
        p_eff=p_eff if single else float("nan"),
    )
