"""Slopes, verdicts, table and figure of the coordinate check, on made-up frames."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from drawn import xs, ys
from hptransfer.analysis import slopes
from hptransfer.errors import InputError
from hptransfer.report import slopes_figure
from hptransfer.report.coordinates import coordinates_json
from hptransfer.report.svg import INK, to_svg

WIDTHS = (64, 128, 256, 512, 1024)


def of_layers(
    layers: dict[str, float],
    label: str = "scion",
    widths: tuple[int, ...] = WIDTHS,
    seeds: tuple[int, ...] = (0, 1, 2),
    wobble: float = 0.0,
) -> pd.DataFrame:
    """Every layer changes by 0.1 width^slope early and three times that late; its RMS at init is 1.

    The seeds 0, 1 and 2 add -1, 0 and 1 times `wobble` to the slope.
    """
    rows = []
    for layer, slope in layers.items():
        for width in widths:
            for seed in seeds:
                change = 0.1 * width ** (slope + wobble * (seed - 1))
                for when, step, now in (
                    ("init", 0, 0.0),
                    ("gate", 5, change),
                    ("late", 20, 3 * change),
                ):
                    rows.append((label, -7.0, width, seed, layer, when, step, 1.0, now))
    names = ("optimizer", "log2_lr", "width", "seed", "layer", "when", "step", "rms", "change")
    return pd.DataFrame(rows, columns=list(names))


def frame(
    label: str = "scion",
    widths: tuple[int, ...] = WIDTHS,
    seeds: tuple[int, ...] = (0, 1, 2),
    wobble: float = 0.0,
    **layers: float,
) -> pd.DataFrame:
    """`of_layers` by keyword; two layers unless told otherwise."""
    layers = layers or {"first": 0.0, "logits": 0.05}
    return of_layers(layers, label, widths, seeds, wobble)


def diverge(made: pd.DataFrame, width: int, *times: str) -> pd.DataFrame:
    """The frame with the runs of a width diverged at these times."""
    lost = (made["width"] == width) & made["when"].isin(times)
    return made.assign(
        rms=made["rms"].mask(lost, math.inf), change=made["change"].mask(lost, math.inf)
    )


def verdict(made: pd.DataFrame, controls: Sequence[str] = ()) -> slopes.SlopeVerdict:
    [judged] = slopes.judge(slopes.by_layer(made), controls)
    return judged


@pytest.mark.parametrize("slope", [0.0, 0.5, -0.25, 1.0])
def test_the_slope_of_a_power_law_is_its_exponent(slope: float) -> None:
    row = slopes.by_layer(frame(second=slope))[0]
    assert row.gate.value == pytest.approx(slope, abs=1e-12)
    assert row.late.value == pytest.approx(slope, abs=1e-12)
    assert row.init.value == pytest.approx(0, abs=1e-12)


def test_the_slope_is_that_of_least_squares_over_all_seeds() -> None:
    rng = np.random.Generator(np.random.Philox(key=3))
    made = frame(second=0.3)
    made["change"] *= 2 ** rng.standard_normal(len(made))
    gate = made[made["when"] == "gate"]
    wanted = np.polyfit(np.log2(gate["width"]), np.log2(gate["change"]), 1)[0]
    assert slopes.by_layer(made)[0].gate.value == pytest.approx(wanted, abs=1e-12)


def test_the_spread_is_the_deviation_of_the_slopes_of_the_seeds() -> None:
    row = slopes.by_layer(frame(second=0.3, wobble=0.07))[0]
    assert row.gate.value == pytest.approx(0.3, abs=1e-12)
    assert row.gate.spread == pytest.approx(0.07, abs=1e-12)
    assert math.isnan(slopes.by_layer(frame(second=0.3, seeds=(0,)))[0].gate.spread)


def test_one_width_gives_no_slope() -> None:
    with pytest.raises(InputError, match="scion has 64 alone, needs at least two"):
        slopes.by_layer(frame(widths=(64,)))


@pytest.mark.parametrize(
    ("slope", "wanted"), [(0.099, "passes"), (-0.099, "passes"), (0.101, "fails"), (-0.3, "fails")]
)
def test_the_gate_is_a_slope_of_a_tenth_in_every_layer(slope: float, wanted: str) -> None:
    judged = verdict(frame(first=0.0, second=slope, logits=0.05))
    assert (judged.verdict, judged.layer) == (wanted, "second" if abs(slope) > 0.05 else "logits")
    assert judged.slope.value == pytest.approx(slope, abs=1e-12)


def test_late_slopes_and_slopes_at_init_decide_nothing() -> None:
    made = frame(first=0.0)
    late, init = made["when"] == "late", made["when"] == "init"
    made.loc[late, "change"] *= made.loc[late, "width"]
    made.loc[init, "rms"] *= made.loc[init, "width"] ** 0.5
    row = slopes.by_layer(made)[0]
    assert (row.init.value, row.late.value) == pytest.approx((0.5, 1.0), abs=1e-12)
    assert verdict(made).verdict == "passes"


@pytest.mark.parametrize(
    ("times", "slope", "wanted"),
    [
        (("gate", "late"), 0.0, "diverged"),
        (("gate", "late"), 0.5, "diverged"),
        (("late",), 0.0, "diverged"),
        (("late",), 0.5, "fails"),
    ],
)
def test_a_diverged_width_is_said_and_never_passes(
    times: tuple[str, ...], slope: float, wanted: str
) -> None:
    made = diverge(frame(first=slope), 1024, *times)
    judged = verdict(made)
    assert judged.verdict == wanted
    assert "width 1024 diverged" in judged.sentence
    _, rows = slopes.text_table(slopes.by_layer(made))
    assert [cell == "diverged" for cell in rows[0][3:]] == ["gate" in times, True]


def test_a_layer_that_stays_where_it_was_fails() -> None:
    made = frame(first=0.0, second=0.0)
    made.loc[made["layer"] == "second", "change"] = 0.0
    judged = verdict(made)
    assert judged.verdict == "fails"
    assert "second does not move in 5 steps" in judged.sentence


def test_a_verdict_needs_four_octaves_of_width() -> None:
    judged = verdict(frame(widths=WIDTHS[:-1], first=0.5), controls=["scion"])
    assert (judged.verdict, judged.expected) == ("too few widths", False)
    assert "width 64 to 512 (3 octaves)" in judged.sentence


def test_fewer_than_three_seeds_make_a_verdict_indicative() -> None:
    assert not verdict(frame()).indicative
    judged = verdict(frame(seeds=(0, 1)))
    assert judged.indicative
    assert "(indicative: n = 2 seeds)" in judged.sentence


@pytest.mark.parametrize(
    ("adamw", "scion", "wanted"),
    [(0.5, 0.0, True), (0.0, 0.0, False), (0.5, 0.5, False), (0.0, 0.5, False)],
)
def test_all_is_well_where_every_control_fails_and_every_other_passes(
    adamw: float, scion: float, wanted: bool
) -> None:
    made = pd.concat([frame("adamw", logits=adamw), frame("scion", logits=scion)])
    judged = slopes.judge(slopes.by_layer(made), controls=["adamw"])
    assert slopes.as_expected(judged) == wanted


def test_a_control_that_diverges_has_not_shown_a_slope() -> None:
    made = diverge(frame("adamw", logits=0.5), 1024, "gate", "late")
    assert not verdict(made, controls=["adamw"]).expected


def test_the_sentence_names_the_worst_layer_its_slope_and_the_settings() -> None:
    assert verdict(frame(first=-0.01, logits=0.731, wobble=0.02), controls=["scion"]).sentence == (
        "scion: fails, as a control must. The steepest change after 5 steps is that of logits, "
        "width^(0.731 ± 0.020), limit 0.1 (lr 2^-7, width 64 to 1024 (4 octaves), n = 3 seeds)."
    )


def test_the_table_shows_of_a_stack_the_steepest_layer() -> None:
    made = of_layers({"blocks.0.q": 0.01, "blocks.1.q": -0.3, "blocks.0.o": 0.0, "logits": 0.2})
    columns, rows = slopes.text_table(slopes.by_layer(made))
    assert columns == ("optimizer", "layer", "at init", "change, 5 steps", "change, 20 steps")
    assert [row[1] for row in rows] == ["blocks.*.q", "blocks.*.o", "logits"]
    assert rows[0][2:] == ("0.00 ± 0.00", "−0.30 ± 0.00", "−0.30 ± 0.00")


def test_a_zero_start_is_said_in_the_table() -> None:
    made = frame(logits=0.0)
    made.loc[made["when"] == "init", "rms"] = 0.0
    assert slopes.text_table(slopes.by_layer(made))[1][0][2] == "zero"


def test_json_has_a_number_for_every_slope_and_null_where_there_is_none():
    made = diverge(frame(first=0.25, second=0.0), 1024, "late")
    made.loc[made["layer"] == "second", "change"] = 0.0
    layers = slopes.by_layer(made)
    said = coordinates_json("made_up", layers, slopes.judge(layers), own_head=False)
    first, second = json.loads(json.dumps(said, allow_nan=False))["slopes"]
    assert first["gate"] == {"value": 0.25, "spread": 0.0}
    assert first["late"] == {"value": None, "spread": None}
    assert second["gate"] == {"value": None, "spread": None}
    assert second["diverged_widths"] == [1024]


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [("blocks.12.q", "blocks.*.q"), ("net.0", "net.*"), ("first2", "first2"), ("0", "0")],
)
def test_the_number_of_a_block_is_left_out_of_a_kind(layer: str, wanted: str) -> None:
    assert slopes.kind(layer) == wanted


def drawn(made: pd.DataFrame, controls: Sequence[str] = ()) -> Figure:
    layers = slopes.by_layer(made)
    return slopes_figure.figure(made, layers, slopes.judge(layers, controls))


def test_the_figure_has_a_panel_an_optimizer_and_a_line_a_layer_with_its_slope() -> None:
    layers = {"blocks.0.q": 0.5, "blocks.1.q": 0.4, "logits": 0.7}
    made = pd.concat([of_layers(layers, "adamw"), frame("scion", logits=0.0)])
    one, two = drawn(made, controls=["adamw"]).axes
    assert one.get_title(loc="left") == "adamw: fails (control)"
    assert two.get_title(loc="left") == "scion: passes"
    lines = [line for line in one.lines if len(xs(line))]
    ends = [ys(line)[-1] for line in lines]
    assert ends == pytest.approx([2.0, 1.6, 2.8])
    legend = one.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["blocks.*.q  0.50", "logits  0.70"]


def test_the_figure_draws_what_is_left_of_diverged_runs_and_of_layers_at_rest() -> None:
    made = diverge(frame("adamw", first=0.5, second=0.0), 64, "gate", "late")
    made.loc[made["layer"] == "second", "change"] = 0.0
    made = diverge(made, 64, "gate", "late")
    figure = drawn(pd.concat([made, diverge(frame("scion"), 1024, "late")]))
    ElementTree.fromstring(to_svg(figure, "f"))


def test_the_figure_gives_the_same_bytes_twice_and_says_itself_in_words() -> None:
    first, second = (to_svg(drawn(frame()), "f") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert "scion passes, steepest logits 0.05" in root.attrib["aria-label"]
    assert root.attrib["aria-label"].endswith(".")
    assert not re.search(INK, first)
