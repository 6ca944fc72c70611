"""The coordinate check -> coords.json."""

from collections.abc import Sequence
from typing import Any

from hptransfer.analysis import slopes
from hptransfer.documents import answers as shapes
from hptransfer.documents.values import as_json

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
    return as_json(document)


def _slope(each: slopes.Slope) -> shapes.Slope:
    return shapes.Slope(round(each.value, DECIMALS), round(each.spread, DECIMALS))


def _verdict(each: slopes.SlopeVerdict) -> shapes.SlopeVerdict:
    return shapes.SlopeVerdict(
        optimizer=each.optimizer,
        verdict=each.verdict,
        expected=each.expected,
        control=each.control,
        indicative=each.indicative,
        layer=each.layer,
        slope=_slope(each.slope),
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
        init=_slope(each.init),
        gate=_slope(each.gate),
        late=_slope(each.late),
    )
