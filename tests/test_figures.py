"""Figures: contents, reproducible bytes, alt texts."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from drawn import xs, ys
from frames import CENTERS, LOSS_INIT, make_suite, study, to_frame
from hptransfer.analysis.frame import select
from hptransfer.analysis.transfer import transfers
from hptransfer.report.alignment_figure import alignment
from hptransfer.report.curves_figure import curves
from hptransfer.report.drift_figure import drift
from hptransfer.report.svg import INK, LABELS, shades, to_svg
from hptransfer.suite.resolved import Suite

SVG = "{http://www.w3.org/2000/svg}"
Draw = Callable[[Suite, pd.DataFrame], Figure]
DRAW: list[Draw] = [alignment, curves, drift]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite(targets=[64, 128])


@pytest.fixture(scope="module")
def rows(suite: Suite) -> pd.DataFrame:
    return select(suite, study(suite, CENTERS, cliff=2.2))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def marks(ax: Axes, marker: str) -> list[Line2D]:
    return [line for line in ax.lines if line.get_marker() == marker and len(xs(line))]


def test_alignment_has_a_panel_an_optimizer_on_one_loss_axis(
    suite: Suite, rows: pd.DataFrame
) -> None:
    axes = alignment(suite, rows).axes
    assert [ax.get_title(loc="left") for ax in axes] == list(suite.optimizers)
    assert len({ax.get_ylim() for ax in axes}) == 1


def test_lr_ticks_are_powers_of_two(suite: Suite, rows: pd.DataFrame) -> None:
    for ax in alignment(suite, rows).axes:
        assert all(re.fullmatch("2⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", t.get_text()) for t in ax.get_xticklabels())


def test_every_width_has_its_line_and_its_starred_optimum(suite: Suite, rows: pd.DataFrame) -> None:
    ax = alignment(suite, rows).axes[0]
    assert [xs(star)[0] for star in marks(ax, "*")] == pytest.approx([-6, -7, -8], abs=0.1)
    carried = [line for line in ax.lines if set(ys(line)) == {0, 1}]
    assert xs(carried[0])[0] == -6


def test_diverged_runs_are_crosses_at_the_roof_and_the_roof_leaves_the_basins_readable(
    suite: Suite, rows: pd.DataFrame
) -> None:
    ax = alignment(suite, rows).axes[0]
    low, high = ax.get_ylim()
    crosses = marks(ax, "x")
    assert {x for line in crosses for x in xs(line)} == {-3, -4, -5}
    assert all(np.all(ys(line) > low + 0.85 * (high - low)) for line in crosses)
    assert high < LOSS_INIT / 1.5


def test_a_diverged_point_is_not_joined_to_the_curve(suite: Suite, rows: pd.DataFrame) -> None:
    ax = alignment(suite, rows).axes[0]
    line = marks(ax, "o")[0]
    assert -3 not in xs(line)


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("empty", [False, True], ids=["runs", "no_runs"])
def test_a_figure_gives_the_same_bytes_twice_and_is_valid_xml_with_alt_text(
    draw: Draw, empty: bool, suite: Suite, rows: pd.DataFrame
) -> None:
    rows = select(suite, to_frame([])) if empty else rows
    first, second = (to_svg(draw(suite, rows), "f") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"].endswith(".")
    assert len(root.attrib["aria-label"]) > 40


def test_alt_texts_are_made_from_the_data(suite: Suite, rows: pd.DataFrame) -> None:
    assert "adamw, best at 2^-6 at width 32" in str(alignment(suite, rows).get_label())
    assert "adamw −1.0 at 64, −2.0 at 128" in str(drift(suite, rows).get_label())
    assert "width 128" in str(curves(suite, rows).get_label())


def test_no_id_is_shared_by_two_figures(suite: Suite, rows: pd.DataFrame) -> None:
    texts = [to_svg(drift(suite, rows), salt) for salt in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, known in zip(texts, ids, strict=True):
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
        assert set(used) <= known


def test_text_stays_text_and_takes_the_ink_of_the_page(suite: Suite, rows: pd.DataFrame) -> None:
    text = to_svg(alignment(suite, rows), "f")
    assert ">adamw</text>" in text
    assert "currentColor" in text
    assert INK not in text
    alone = to_svg(alignment(suite, rows), "f", ink=INK)
    assert "currentColor" not in alone


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("label", ['a"<b>&', r"$\frac{$", "$x$", "\x1b[2Ja\nb", "幅"])
def test_a_hostile_label_is_escaped(draw: Draw, label: str) -> None:
    suite = make_suite(label)
    rows = select(suite, study(suite, {label: lambda n: -5.0}))
    root = ElementTree.fromstring(to_svg(draw(suite, rows), "f"))
    shown = label.replace("\x1b", r"\x1b").replace("\n", r"\n")
    assert any(shown in "".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert shown in root.attrib["aria-label"]


def test_a_hostile_salt_is_no_part_of_an_id(suite: Suite, rows: pd.DataFrame) -> None:
    text = to_svg(drift(suite, rows), 'a" onload="b<c>) é')
    root = ElementTree.fromstring(text)
    ids = {each.attrib["id"] for each in root.iter() if "id" in each.attrib}
    assert ids
    assert all(re.fullmatch(r"a--onload--b-c-----[\w.-]+", name) for name in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= ids


def test_every_colour_has_contrast_three_to_one_on_white_and_on_near_black() -> None:
    colours = [shades(range(1, 7))[n][0] for n in range(1, 7)]
    for colour in [*colours, *LABELS, INK]:
        level = luminance(colour)
        assert 1.05 / (level + 0.05) >= 3, colour
        assert (level + 0.05) / (luminance("#15181c") + 0.05) >= 3, colour


def test_drift_marks_a_censored_optimum_open() -> None:
    suite = make_suite("muon")
    frame = study(suite, {"muon": lambda n: -5.2})
    cut = (frame["width"] == 128) & (frame["log2_lr"] > -5.2)
    figure = drift(suite, select(suite, frame[~cut]))
    assert "(censored)" in str(figure.get_label())
    styles = {line.get_fillstyle() for line in figure.axes[0].lines if len(xs(line)) == 1}
    assert "none" in styles


def test_curves_show_the_carried_lr_at_the_largest_target(suite: Suite, rows: pd.DataFrame) -> None:
    figure = curves(suite, rows)
    ax = figure.axes[0]
    assert "width 128" in ax.get_title(loc="left")
    thick = [line for line in ax.lines if line.get_linewidth() == 2]
    assert len(thick) == 4
    assert xs(thick[0])[-1] == 100


def diverged(curve: list[list[float]]) -> np.ndarray:
    path = np.array(curve, float)
    path[5:, 1] = np.nan
    return path


@pytest.mark.parametrize("lost", [1, 3])
def test_the_mean_curve_is_over_the_seeds_that_did_not_diverge(
    suite: Suite, rows: pd.DataFrame, lost: int
) -> None:
    """Values after a divergence are no numbers and set no limit of an axis."""
    rows = rows.copy()
    [row] = [each for each in transfers(suite, rows) if (each.optimizer, each.n) == ("muon", 128)]
    carried = (rows["log2_lr"] == row.carried.log2_lr) & (rows["n"] == 128)
    carried &= rows["optimizer"] == "muon"
    kept = list(rows.index[carried])[lost:]
    fell = rows.index[carried][:lost]
    rows.loc[fell, "curve"] = rows.loc[fell, "curve"].map(diverged)
    ax = curves(suite, rows).axes[0]
    thick = {line.get_label(): line for line in ax.lines if line.get_linewidth() == 2}
    assert len(thick) == (4 if kept else 3)
    if kept:
        mean = np.mean([np.array(rows.at[at, "curve"])[:, 1] for at in kept], axis=0)
        assert ys(thick["muon"]) == pytest.approx(mean)


def test_figures_need_no_display_and_no_pyplot_state(suite: Suite, rows: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    assert isinstance(alignment(suite, rows), Figure)
    assert plt.get_fignums() == before


def test_a_loss_no_lower_than_at_init_is_a_triangle_at_the_roof(suite: Suite) -> None:
    """One of two seeds learned nothing: the mean lies in the frame, but the point is no result."""
    frame = study(suite, CENTERS, cliff=2.2, seeds=2)
    lost = (frame["width"] == 32) & (frame["seed"] == 1) & (frame["log2_lr"] == -7)
    frame.loc[lost, "loss_init"] = frame.loc[lost, "loss"] - 0.001
    ax = alignment(suite, select(suite, frame)).axes[0]
    assert -7 not in xs(marks(ax, "o")[0])
    triangles = [line for line in marks(ax, "^") if line.get_fillstyle() == "none"]
    assert xs(triangles[0]).tolist() == [-9, -8, -7, -4]  # all but -7, above the frame
