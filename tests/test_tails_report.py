"""The report's section on tails: what it shows, and what it says of a file that it cannot read."""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drawn import xs, ys
from frames import CENTERS, make_suite, study
from hptransfer.analysis.tails import Estimate
from hptransfer.documents.tails import Estimated, TailRun, Tails
from hptransfer.errors import InputError
from hptransfer.records.damage import LeftOut
from hptransfer.report import Section, render
from hptransfer.report.hill_figure import hill_plot
from hptransfer.report.stored_tails import read_tails
from hptransfer.report.svg import to_svg
from hptransfer.report.tails import _text as text_of
from hptransfer.report.tails_tables import estimates, gamma_text, index_text, overview
from hptransfer.report.write import stored, with_tails
from hptransfer.suite.resolved import Suite
from tailed import INDEX, STEPS, document, measured
from test_documents import REFERENCE, follows
from test_report import Outline

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite("adamw", "muon")


@pytest.fixture(scope="module")
def section(suite: Suite) -> Section:
    return Section(suite, study(suite, {x: CENTERS[x] for x in suite.optimizers}))


def written(folder: Path, made: object) -> Path:
    (folder / "tails.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def run(suite: Suite, tmp_path: Path) -> TailRun:
    return found(suite, written(tmp_path, document(suite))).runs[0]


def found(suite: Suite, folder: Path) -> Tails:
    read = read_tails(folder, suite)
    assert read is not None
    return read


def shown(section: Section, folder: Path) -> str:
    """The page with the tails of a folder, without style, script and figures."""
    page = render([with_tails(section, folder, Path("results"))])
    return " ".join("".join(Outline(page).text).split())


def test_the_made_up_document_follows_the_schema_and_reads_as_it_was_written(
    suite: Suite, tmp_path: Path
) -> None:
    made = document(suite, measured(suite), measured(suite, "muon"))
    follows(made, "tails")
    read = found(suite, written(tmp_path, made))
    assert [each.optimizer for each in read.runs] == ["adamw", "muon"]
    assert [each.layer for each in read.runs[0].layers[:3]] == list(INDEX)


def test_a_suite_without_measured_tails_has_no_section_on_them(
    section: Section, tmp_path: Path
) -> None:
    assert "Tails of the gradient noise" not in shown(section, tmp_path)


def test_the_page_has_a_verdict_per_layer_and_moment_and_says_why_the_pooled_fit_misleads(
    suite: Suite, section: Section, tmp_path: Path
) -> None:
    text = shown(section, written(tmp_path, document(suite)))
    assert "adamw at width 32, lr 2^-6 (best recorded), 100 steps, 1,000 pairs" in text
    assert "single examples: of 12 layers and moments 4 heavy (index below 2), 4 light" in text
    assert "it misleads because it takes rows of different scale for large noise" in text
    assert "All 24 estimates, one by one" in text
    assert "not those of the suite's records" not in text


def test_the_overview_has_index_interval_gamma_and_pooled_fit(run: TailRun) -> None:
    table = overview(run, 1)
    assert table.columns == ("layer", *(f"after {step} steps" for step in STEPS), "pooled fit")
    heavy, light, silent = table.rows
    assert [row[0].text for row in table.rows] == list(INDEX)
    assert (heavy[1].text, heavy[1].css) == ("heavy", "v heavy")
    assert heavy[1].under == "1.00 (0.71 to 1.28)\ngamma 0.96 ± 0.20"
    assert light[1].text == "light"
    assert (silent[1].text, silent[1].under) == ("no noise", "every gradient is zero")
    assert heavy[-1].text == "1.25"


def test_the_table_of_estimates_has_a_row_per_layer_batch_and_moment(run: TailRun) -> None:
    table = estimates(run)
    assert len(table.rows) == len(INDEX) * 2 * len(STEPS)
    places = [tuple(cell.text for cell in row[:3]) for row in table.rows[:5]]
    assert places == [("blocks.0.q", batch, str(step)) for batch, step in
                      [("1", 0), ("1", 10), ("1", 50), ("1", 100), ("8", 0)]]  # fmt: skip


def test_the_hill_plot_has_a_line_per_kind_of_layer_and_marks_the_k_of_the_verdict(
    run: TailRun,
) -> None:
    for step in STEPS:
        [ax] = hill_plot(run, 1, step).axes
        assert ax.get_title(loc="left") == f"after {step} of 100 steps"
        [dashed] = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert 2 ** xs(dashed)[0] == pytest.approx(50)
        [curve] = [line for line in ax.lines if len(xs(line)) == len(run.curve_k)]
        assert 2 ** ys(curve).mean() == pytest.approx(1.0, rel=0.1), "blocks.0.q, not blocks.1.q"
        assert (2 ** xs(curve)).round().astype(int).tolist() == run.curve_k
        [bar] = [line for line in ax.lines if len(xs(line)) == 2 and line is not dashed]
        assert 2 ** ys(bar) == pytest.approx([0.71, 1.28], abs=0.01)
        assert 2 ** xs(bar) == pytest.approx(50, rel=0.05)


def test_the_legend_of_the_hill_plot_has_verdict_and_gate_of_the_heaviest_of_a_kind(
    run: TailRun,
) -> None:
    [legend] = hill_plot(run, 1, 0).legends
    assert legend.get_title().get_text() == "layer: verdict, gamma"
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["blocks.0.q: heavy, 0.96 ± 0.20", "head: no noise"]


def test_all_hill_plots_of_a_run_share_their_axes(run: TailRun) -> None:
    plots = [hill_plot(run, batch, step).axes[0] for batch in (1, 8) for step in STEPS]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in plots}) == 1


def test_the_hill_plot_gives_the_same_bytes_twice_and_an_alt_text_of_its_data(
    run: TailRun,
) -> None:
    assert to_svg(hill_plot(run, 8, 0), "f") == to_svg(hill_plot(run, 8, 0), "f")
    alt = str(hill_plot(run, 1, 0).get_label())
    assert "after 0 steps: 1 heavy, 1 light, 1 no noise; nearest to heavy is blocks.0.q" in alt


def test_a_document_of_an_earlier_version_has_its_table_and_says_what_is_missing(
    suite: Suite, section: Section, tmp_path: Path
) -> None:
    made = document(suite)
    for run in made["runs"]:
        del run["curve_k"], run["settings"]
        for each in run["layers"]:
            del each["curve_index"], each["curve_norm"]
    text = shown(section, written(tmp_path, made))
    assert "An earlier version of hptransfer measured these tails" in text
    assert "`hptransfer tails made_up` measures them again" in text
    assert "All 24 estimates" in text
    assert "Hill plots" not in text


def test_tails_of_other_settings_say_so_and_have_no_line_that_reproduces_them(
    suite: Suite, section: Section, tmp_path: Path
) -> None:
    shorter = make_suite("adamw", "muon", steps=50)
    own, other = (
        with_tails(section, written(tmp_path, document(suite, measured(of))), Path("results"))
        for of in (suite, shorter)
    )
    line = "hptransfer tails made_up --steps 100 --optimizer adamw --width 32 --pairs 1000"
    assert own.commands == [line]
    assert other.commands == []
    remark = "The settings of this run are not those"
    assert remark not in render([own])
    assert remark in render([other])


def test_the_axis_value_and_the_steps_decide_whether_tails_belong_to_a_suite(suite: Suite) -> None:
    settings = suite.identity("adamw", 32)
    assert settings is not None
    assert settings == make_suite("adamw").identity("adamw", 32)
    assert settings != suite.identity("adamw", 64)
    assert settings != make_suite("adamw", steps=50).identity("adamw", 32)
    assert suite.identity("sgd", 32) is None


DAMAGE: list[tuple[Change, str]] = [
    (lambda d: d.clear(), "damaged (schema: Field required)"),
    (lambda d: d.update(schema="2"), "damaged (schema: Input should be a valid integer)"),
    (lambda d: d.update(schema=3), "got schema 3, this version reads 2"),
    (lambda d: d.update(schema=3, runs="others"), "got schema 3, this version reads 2"),
    (lambda d: d.update(suite="another"), "got suite 'another', needs 'made_up'"),
    (lambda d: d.update(runs=[]), "damaged (no runs)"),
    (lambda d: d["runs"][0].pop("pairs"), "damaged (runs.0.pairs: Field required)"),
    (lambda d: d["runs"][0].update(pairs=99), "damaged (adamw: fewer than 100 pairs)"),
    (lambda d: d["runs"][0].update(axis_value=0), "damaged (adamw: a number below 1"),
    (lambda d: d["runs"][0].update(axis_value=10**400), "damaged (adamw: a number below 1"),
    (lambda d: d["runs"][0].update(layers=[]), "damaged (adamw: no layers)"),
    (lambda d: d["runs"][0]["curve_k"].pop(), "curves and curve_k differ in length"),
    (lambda d: d["runs"][0]["curve_k"].insert(0, 0), "damaged (adamw: a number below 1"),
    (lambda d: d["runs"][0]["layers"][0].update(kind="odd"), "runs.0.layers.0.kind"),
    (lambda d: d["runs"][0]["layers"][0]["frobenius"].update(verdict="x"), "frobenius.verdict"),
]


@pytest.mark.parametrize(("change", "said"), DAMAGE)
def test_a_document_that_is_none_of_this_suite_is_left_out_with_its_cause_and_a_cure(
    change: Change, said: str, suite: Suite, section: Section, tmp_path: Path
) -> None:
    made = document(suite)
    change(made)
    written(tmp_path, made)
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        read_tails(tmp_path, suite)
    assert "hptransfer" in raised.value.hint
    with pytest.warns(LeftOut, match=re.escape(said)):
        left = with_tails(section, tmp_path, Path("results"))
    assert left.tails is None
    assert said in left.tails_fault


def test_the_page_says_why_tails_were_left_out_and_has_all_else(
    section: Section, tmp_path: Path
) -> None:
    (tmp_path / "tails.json").write_text("{")
    with pytest.warns(LeftOut):
        text = shown(section, tmp_path)
    assert f"tails.json could not be read. {tmp_path / 'tails.json'}: damaged" in text
    assert "hptransfer tails made_up measures it again." in text
    assert "Metric audit" in text


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'"\xff"', b"null", b"[" * 100_000, b"NaN"])
def test_a_file_that_is_no_document_is_refused_with_a_cure(
    text: bytes, suite: Suite, tmp_path: Path
) -> None:
    (tmp_path / "tails.json").write_bytes(text)
    with pytest.raises(InputError, match=r"tails\.json: damaged") as raised:
        read_tails(tmp_path, suite)
    assert raised.value.hint == "hptransfer tails made_up measures it again"


def test_a_folder_in_place_of_the_file_is_refused(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "tails.json").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_tails(tmp_path, suite)


@pytest.mark.parametrize("number", [None, float("nan"), float("inf"), -3.0, 0.0, 1e300])
def test_numbers_that_cannot_be_drawn_leave_the_page_whole(
    number: float | None, suite: Suite, section: Section, tmp_path: Path
) -> None:
    made = document(suite)
    for each in made["runs"][0]["layers"][:5]:
        each["curve_index"] = [number] * len(each["curve_index"])
        each["frobenius"]["hill_5"] = {"value": number, "standard_error": number}
        each["frobenius"]["gamma"] = {"value": number, "standard_error": number}
        each["p_eff"] = each["pooled_stable_fit"] = number
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = shown(section, written(tmp_path, made))
    assert "All 24 estimates" in text
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize(
    ("index", "on_page", "in_terminal"),
    [
        (2661.04, "2661 (1915 to 3407)", "2661±373"),
        (23.26, "23.3 (16.7 to 29.8)", "23±3.3"),
        (1.5, "1.50 (1.08 to 1.92)", "1.5±0.2"),
    ],
)
def test_a_large_index_is_shown_without_digits_that_say_nothing(
    index: float, on_page: str, in_terminal: str
) -> None:
    se = index * 0.14017
    assert index_text(Estimated(index, se)) == on_page
    assert text_of(Estimate(index, se)) == in_terminal


def test_a_gamma_that_rounds_to_zero_has_no_sign() -> None:
    assert gamma_text(Estimated(-0.001, 0.14)) == "gamma 0.00 ± 0.14"
    assert gamma_text(Estimated(-0.31, 0.14)) == "gamma \N{MINUS SIGN}0.31 ± 0.14"


def test_names_from_a_file_are_shown_and_not_interpreted(
    suite: Suite, section: Section, tmp_path: Path
) -> None:
    made = measured(suite)
    layers = [replace(each, layer="<b>$x$\x07") for each in made.layers]
    folder = written(tmp_path, document(suite, replace(made, optimizer="<i>", layers=layers)))
    page = render([with_tails(section, folder, Path("results"))])
    assert "<b>$x$" not in page
    assert "<i>" not in page
    Outline(page)


def test_a_model_of_many_layers_with_long_names_has_a_figure_that_holds_its_legend(
    suite: Suite, tmp_path: Path
) -> None:
    made = measured(suite)
    names = [f"encoder.stack.of.transformer.blocks.attention.projection_{i}" for i in range(40)]
    [first, *_] = made.layers
    layers = [replace(first, layer=name, step=step) for step in STEPS for name in names]
    [run] = found(suite, written(tmp_path, document(suite, replace(made, layers=layers)))).runs
    figure = hill_plot(run, 1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = to_svg(figure, "f")
    [legend] = figure.legends
    assert legend.get_texts()[-1].get_text().startswith("…")
    assert "n.projection_39: heavy" in svg
    box, plot = legend.get_window_extent(), figure.axes[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0 < box.y1 < plot.y0
    assert plot.height > 100


def test_tails_stand_once_on_a_page_with_records_of_two_schemas() -> None:
    newest, older = stored("quickstart", REFERENCE)
    assert newest.tails is not None
    assert older.tails is None
    assert newest.commands[-1].startswith("hptransfer tails quickstart ")
