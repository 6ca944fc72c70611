"""The coordinate check -> coords.json."""

from collections.abc import Sequence
from typing import Any

from hptransfer.analysis import slopes
from hptransfer.documents import answers as shapes
from hptransfer.documents.values import plain

DECIMALS = 10  # of a slope


def coordinates_json(
    name: str,
    layers: Sequence[slopes.LayerSlopes],
    verdicts: Sequence[slopes.SlopeVerdict],
    *,
    own_head: bool,
) -> dict[str, Any]:
    """The document `Coordinates` of the suite `name` as JSON values."""
    document = shapes.Coordinates(
        suite=name,
        head="own" if own_head else "zero",
        verdicts=[_verdict(each) for each in verdicts],
        slopes=[_layer(each) for each in layers],
    )
    made: dict[str, Any] = plain(document)
    return made


def _slope(value: float, spread: float) -> shapes.Slope:
    return shapes.Slope(round(value, DECIMALS), round(spread, DECIMALS))


def _verdict(each: slopes.SlopeVerdict) -> shapes.SlopeVerdict:
    return shapes.SlopeVerdict(
        optimizer=each.optimizer,
        verdict=each.verdict,
        expected=each.expected,
        control=each.control,
        indicative=each.indicative,
        layer=each.layer,
        slope=_slope(each.slope, each.spread),
        sentence=each.sentence,
    )


def _layer(each: slopes.LayerSlopes) -> shapes.LayerSlopes:
    return shapes.LayerSlopes(
        optimizer=each.optimizer,
        layer=each.layer,
        log2_lr=each.log2_lr,
        narrowest=each.narrowest,
        widest=each.widest,
        n_seeds=each.n_seeds,
        gate_steps=each.gate_steps,
        late_steps=each.late_steps,
        diverged_widths=list(each.diverged),
        init=_slope(each.init.value, each.init.spread),
        gate=_slope(each.gate.value, each.gate.spread),
        late=_slope(each.late.value, each.late.spread),
    )
