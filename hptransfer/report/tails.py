"""The tails of gradient noise -> tails.json, a table and sentences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hptransfer.analysis import tails
from hptransfer.documents import tails as shapes
from hptransfer.documents.values import as_json
from hptransfer.spec import Axis

DIGITS = 5  # significant digits of a number in tails.json

COLUMNS = ("layer", "verdict", "step", "batch", "index", "2%  10%", "gamma", "p_eff", "pooled fit")
"""Columns of `rows`, the first two of text. `index`: at 5%."""
MISLEADS = (
    "pooled fit: a stable law fitted to all entries of a layer at once. Where rows differ in scale "
    "it calls Gaussian noise heavy, so no verdict rests on it"
)


@dataclass(frozen=True)
class Measured:
    """A run and the tails of its layers; `log2_lr` in octaves, `settings` by `Suite.identity`."""

    optimizer: str
    axis_value: int
    log2_lr: float
    lr_source: Literal["best recorded", "middle of the range"]
    steps: int
    pairs: int
    settings: str
    layers: Sequence[tails.LayerTail]


def tails_json(suite: str, axis: Axis, runs: Sequence[Measured]) -> dict[str, Any]:
    """The document `Tails` as JSON values."""
    return as_json(shapes.Tails(suite, axis, [_run(each) for each in runs]))


def sentences(run: Measured) -> list[str]:
    """The outcome in words, one sentence per number of examples."""
    said = []
    for each in counts(run):
        examples = "single examples" if each.batch == 1 else f"batches of {each.batch}"
        of = f"{each.heavy + each.light + each.undecided + each.no_noise} layers and moments"
        silent = f", {each.no_noise} without noise" if each.no_noise else ""
        said.append(
            f"{run.optimizer}, {examples}: of {of} {each.heavy} heavy (index below 2), "
            f"{each.light} light, {each.undecided} undecided{silent}"
        )
    return said


def counts(run: Measured) -> list[shapes.VerdictCount]:
    """Verdicts on the Frobenius norms, by the number of examples per gradient."""
    counted = []
    for batch in sorted({each.batch for each in run.layers}):
        verdicts = [each.frobenius.verdict for each in run.layers if each.batch == batch]
        words: tuple[shapes.TailVerdict, ...] = ("heavy", "light", "undecided", "no noise")
        counted.append(shapes.VerdictCount(batch, *(verdicts.count(word) for word in words)))
    return counted


def rows(run: Measured) -> list[tuple[str, ...]]:
    """A row in words per layer, moment and number of examples, layer by layer; see COLUMNS."""
    order = {each.layer: i for i, each in enumerate(run.layers)}
    return [_row(x) for x in sorted(run.layers, key=lambda x: (order[x.layer], x.batch, x.step))]


def _row(each: tails.LayerTail) -> tuple[str, ...]:
    few, index, many = (each.frobenius.alpha[share] for share in tails.SHARES)
    return (
        each.layer,
        each.frobenius.verdict,
        f"{each.step}",
        f"{each.batch}",
        _text(index),
        f"{_short(few.value)} {_short(many.value)}",
        _short(each.frobenius.gamma.value, 2),
        _short(each.p_eff, 2),
        _short(each.pooled_fit, 2),
    )


def _short(value: float, digits: int = 1) -> str:
    """Decimals below 10 alone: where norms hardly differ, the index has thousands."""
    return f"{value:.{digits if abs(value) < 10 else 0}f}" if math.isfinite(value) else "-"


def _text(estimate: tails.Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    return f"{_short(estimate.value)}±{_short(estimate.standard_error)}"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _estimated(estimate: tails.Estimate) -> shapes.Estimated:
    return shapes.Estimated(_rounded(estimate.value), _rounded(estimate.standard_error))


def _norm(found: tails.Tail) -> shapes.NormTail:
    hill = [_estimated(found.alpha[share]) for share in tails.SHARES]
    return shapes.NormTail(*hill, gamma=_estimated(found.gamma), verdict=found.verdict)


def _run(run: Measured) -> shapes.TailRun:
    return shapes.TailRun(
        optimizer=run.optimizer,
        axis_value=run.axis_value,
        log2_lr=run.log2_lr,
        lr_source=run.lr_source,
        steps=run.steps,
        pairs=run.pairs,
        sentences=sentences(run),
        counts=counts(run),
        layers=[_layer(each) for each in run.layers],
        curve_k=tails.orders(run.pairs),
        settings=run.settings,
    )


def _layer(each: tails.LayerTail) -> shapes.LayerTail:
    return shapes.LayerTail(
        layer=each.layer,
        kind=each.kind,
        shape=list(each.shape),
        step=each.step,
        batch=each.batch,
        frobenius=_norm(each.frobenius),
        spectral=_norm(each.spectral),
        p_eff=_rounded(each.p_eff),
        pooled_stable_fit=_rounded(each.pooled_fit),
        curve_index=[_rounded(at.alpha) for at in each.frobenius.curve],
        curve_norm=[_rounded(at.size) for at in each.frobenius.curve],
    )
