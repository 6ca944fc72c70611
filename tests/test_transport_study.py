"""A study of transport: its suites, its search, its judgement, its page and its commands."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from hptransfer.documents.transport import CellVerdict
from hptransfer.documents.values import as_json
from hptransfer.errors import InputError
from hptransfer.suite.file import load_suite
from hptransfer.transport.document import document, gains_csv
from hptransfer.transport.gains import Rung, judged, prediction, star
from hptransfer.transport.page import page, rung_table
from hptransfer.transport.search import propose
from hptransfer.transport.study import Study, load_study
from hptransfer.transport.write import progress, stored
from transported import CELL, TINY, made_up, plain_run, tiny_study, tiny_suite

ROOT = Path(__file__).parent.parent
NONE = [0.001, 0.0, -0.001]
MORE = [0.2, 0.21, 0.22]
LESS = [-0.2, -0.21, -0.22]
ABOVE = [1.0, 1.1, 1.2]
BELOW = [-1.0, -1.1, -1.2]
ABOUT = [-1.0, 0.0, 1.1]


@pytest.fixture
def tiny(tmp_path: Path) -> Study:
    return tiny_study(tmp_path)


def test_every_arm_is_a_label_with_its_strength(tiny: Study) -> None:
    suite = tiny_suite(tiny, {CELL: 0.3})
    assert {
        label: (run.schedule, run.hp["transport"], run.hp["transport_schedule"], run.hp["beta"])
        for label, run in suite.templates.items()
    } == {
        "b0.8-constant-s0": ("constant", 0.0, "constant", 0.8),
        "b0.8-constant-s1": ("constant", 1.0, "constant", 0.8),
        "b0.8-constant-sstar": ("constant", 0.3, "constant", 0.8),
        "b0.8-linear-s0": ("linear", 0.0, "constant", 0.8),
        "b0.8-linear-s1": ("linear", 1.0, "constant", 0.8),
        "b0.8-linear-decay1": ("linear", 1.0, "decay", 0.8),
    }


def test_an_arm_whose_strength_is_known_already_shares_its_runs(tiny: Study) -> None:
    templates = tiny_suite(tiny, {CELL: 1.0}).templates
    assert templates[CELL.label("star")] == templates[CELL.label(1.0)]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("strengths = [0.0, 1.0]", "strengths = [0.0, 0.5]", "strengths: 1 is missing"),
        ('model = "mlp"\nbatch', 'model = "mpl"\nbatch', "cells.0.model: no 'mpl'"),
        ("batch = 8", "batch = 7", "multiple of 2"),
        ("polar_steps", "polar_step", "no field 'polar_step'"),
        ("beta = [0.8]", "beta = [1.8]", "beta"),
        ("seeds = 2", "seeds = 1", "greater than or equal to 2"),
        ("beta = [0.8]", 'beta = [0.8]\nrelatives = ["muon"]', "no 'muon' in this study"),
        ("examples = 32", "exmaples = 32", "unknown key 'exmaples'"),
    ],
)
def test_a_wrong_study_says_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        tiny_study(tmp_path, TINY.replace(old, new))


def test_two_tables_of_one_model_and_batch_are_refused(tmp_path: Path) -> None:
    twice = TINY + TINY[TINY.index("[[cells]]") :]
    with pytest.raises(InputError, match="mlp-batch8 stands there twice"):
        tiny_study(tmp_path, twice)


def test_a_study_is_no_suite() -> None:
    with pytest.raises(InputError, match="a study of transport in training"):
        load_suite("transport")
    assert load_study("transport").name == "transport"


def searched(study: Study, loss: dict[tuple[float, int], float] | None = None) -> pd.DataFrame:
    """Rows of a whole search on (lr + 4.2)^2, in which `loss` replaces single values."""
    suite = tiny_suite(study.model_copy(update={"seeds": 3}))
    label, rows = CELL.label(0.0), list[dict[str, object]]()
    while pairs := propose(suite, label, 8, _frame(rows)):
        for (lr, _), seed in pairs:
            value = (loss or {}).get((lr, seed), 1 + (lr + 4.2) ** 2)
            rows.append({"log2_lr": lr, "seed": seed, "loss": value})
    return _frame(rows)


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    columns = {"log2_lr": float, "seed": int, "loss": float}
    frame = pd.DataFrame(rows, columns=list(columns)).astype(columns)
    return frame.assign(status="done", hp_point="{}", loss_init=50.0)


def test_further_seeds_train_at_the_best_three_learning_rates_alone(tiny: Study) -> None:
    rows = searched(tiny)
    for seed in (1, 2):
        assert set(rows[rows["seed"] == seed]["log2_lr"]) == {-4.5, -4.0, -3.5}
    assert {-5.0, -4.0, -3.0} < set(rows[rows["seed"] == 0]["log2_lr"])


def test_where_the_means_have_another_best_its_neighbours_get_seeds_too(tiny: Study) -> None:
    rows = searched(tiny, {(-4.0, 1): 9.0, (-4.0, 2): 9.0})
    assert set(rows[rows["seed"] == 2]["log2_lr"]) == {-5.0, -4.5, -4.0, -3.5}


def test_s_star_is_the_strength_of_least_error() -> None:
    for e1, e2 in ((1.0, 2.0), (3.0, 2.0), (9.0, 2.0)):
        errors = [(1 - s / 1000) * e1 + (s / 1000) ** 2 * e2 for s in range(1001)]
        assert star(e1, e2) == pytest.approx(errors.index(min(errors)) / 1000, abs=0.006)
    assert star(1.0, 0.0) == 1.0
    assert star(1e-9, 1.0) == 0.01


@pytest.mark.parametrize(
    ("gains", "straightness", "signal", "verdict"),
    [
        (MORE, ABOVE, ABOVE, "gains"),
        (LESS, ABOVE, ABOVE, "hurts"),
        (NONE, ABOVE, ABOVE, "undecided"),
        (MORE, BELOW, ABOVE, "contradicts"),
        (MORE, ABOVE, BELOW, "contradicts"),
        (LESS, BELOW, ABOVE, "agrees"),
        (NONE, BELOW, ABOVE, "agrees"),
        ([0.5, 0.0, -0.5], BELOW, ABOVE, "undecided"),
        (MORE, ABOUT, ABOVE, "undecided"),
        (LESS, ABOUT, ABOVE, "agrees"),
        (MORE, [], [], "incomplete"),
    ],
)
def test_a_cell_is_judged_by_its_gain_and_its_condition(
    tiny: Study, gains: list[float], straightness: list[float], signal: list[float],
    verdict: CellVerdict,
) -> None:  # fmt: skip
    [known] = judged([made_up(plain_run(tiny), gains, straightness, signal)])
    assert known.verdict(0.01) == verdict


def test_a_search_that_is_not_finished_gives_no_gain_and_no_verdict(tiny: Study) -> None:
    known = made_up(plain_run(tiny), MORE, BELOW, ABOVE)
    for k in (0, 1):
        arms = list(known.arms)
        arms[k] = dataclasses.replace(arms[k], whole=False)
        [partial] = judged([dataclasses.replace(known, arms=arms)])
        assert [arm.gain for arm in partial.arms] == [None, None]
        assert partial.verdict(0.01) == "incomplete"


def test_the_prediction_is_refuted_by_one_cell_and_held_by_all(tiny: Study) -> None:
    run = plain_run(tiny)
    gains, agrees = made_up(run, MORE, ABOVE, ABOVE), made_up(run, LESS, BELOW, ABOVE)
    contradicts = made_up(run, MORE, BELOW, ABOVE)
    undecided, missing = made_up(run, MORE, ABOUT, ABOVE), made_up(run, MORE, [], [])
    assert prediction(tiny, judged([gains, agrees])) == "held"
    assert prediction(tiny, judged([gains, agrees, undecided])) == "undecided"
    assert prediction(tiny, judged([gains, agrees, missing])) == "undecided"
    assert prediction(tiny, judged([gains, missing, contradicts])) == "refuted"
    assert prediction(tiny, []) == "undecided"


def test_a_gain_is_corrected_for_the_number_of_cells(tiny: Study) -> None:
    one = made_up(plain_run(tiny), [0.1, 0.2, 0.3], ABOVE, ABOVE)
    [alone] = judged([one])
    several = judged([one] * 4)
    widths = []
    for each in (alone, several[0]):
        arm = each.arm(1.0)
        assert arm is not None
        assert arm.gain is not None
        assert arm.gain.difference.value == pytest.approx(0.2)
        widths.append(arm.gain.difference.high - arm.gain.difference.low)
    assert widths[1] > 1.5 * widths[0]


def test_equal_learning_rates_are_counted_by_the_condition(tiny: Study) -> None:
    known = made_up(plain_run(tiny), MORE, ABOVE, BELOW)
    rungs = [
        Rung(-4.0, gain, point, diagnostic)
        for gain, point, diagnostic in zip(
            (0.5, 0.005, -0.5), known.points, known.diagnostics, strict=True
        )
    ]
    table = rung_table(tiny, [dataclasses.replace(known, rungs=rungs)])
    assert [cell.text for cell in table.rows[0]] == ["yes", "no", "3", "1", "1", "0.005"]


def test_the_page_names_every_cell_and_reaches_for_nothing(tiny: Study) -> None:
    found = judged([made_up(plain_run(tiny), MORE, ABOVE, ABOVE)])
    numbers = as_json(document(tiny, found, 6, 9))
    text = page(tiny, found, [], numbers, "hptransfer run tiny")
    assert "6 of 9 runs." in text
    assert "Of 1 cells that met the condition: 1 gains." in text
    assert text.count("<svg") == 2
    assert "mlp batch 8 beta 0.8 constant gain +0.210, ratio +1.1" in text
    assert not re.findall(r"(?:src|href)=[\"']https?:", text)
    before = page(tiny, [], [], as_json(document(tiny, [], 0, 9)), "hptransfer run tiny")
    assert "<svg" not in before
    assert "No cell met the condition" in before


def test_the_document_follows_its_published_schema(tiny: Study) -> None:
    schema = json.loads((ROOT / "docs/transport.schema.json").read_text())
    for gains, above in ((MORE, ABOVE), (MORE[:1], ABOVE[:1]), (MORE, [])):
        found = judged([made_up(plain_run(tiny), gains, above, above)])
        Draft202012Validator(schema).validate(as_json(document(tiny, found, 1, 2)))


def test_gains_csv_holds_the_losses_behind_a_gain(tiny: Study) -> None:
    found = judged([made_up(plain_run(tiny), MORE, ABOVE, ABOVE)])
    lines = gains_csv(found).splitlines()
    assert lines[0].startswith("model,batch,beta,schedule,strength")
    assert lines[1] == "mlp,8,0.8,constant,0.0,False,False,-4.0,0,2.0"
    assert len(lines) == 1 + 2 * 3


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hptransfer", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_run_trains_a_study_once_and_takes_its_diagnostics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY + 'schedules = ["linear"]\n')
    ran = command(tmp_path, "run", "tiny.toml", "--workers", "1", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert "prediction: " in ran.stdout
    folder = tmp_path / "results/tiny"
    found = json.loads((folder / "transport.json").read_text())
    assert found["n_runs"] == found["n_expected"] > 20
    [cell] = found["cells"]
    assert cell["n_diagnostics"] == 2
    arms = [(arm["strength"], arm["decay"], arm["n_seeds"]) for arm in cell["arms"]]
    assert arms[:3] == [(0.0, False, 2), (1.0, False, 2), (1.0, True, 2)]
    assert [arm["from_diagnostic"] for arm in cell["arms"]] == [False, False, False, True]
    monkeypatch.setattr("hptransfer.transport.write.resolve", None)  # parts may have changed since
    known = progress(stored("tiny", tmp_path / "results"), tmp_path / "results")
    assert known.n_runs == known.n_expected == found["n_runs"]
    assert all(rung.diagnostic for each in known.cells for rung in each.rungs)
    records = {path: path.read_text() for path in folder.rglob("*.jsonl")}
    written = (folder / "report.html").read_text()
    again = command(tmp_path, "run", "tiny.toml", "--workers", "1")
    assert again.stdout == ran.stdout
    assert {path: path.read_text() for path in folder.rglob("*.jsonl")} == records
    assert command(tmp_path, "report", "tiny").returncode == 0
    assert (folder / "report.html").read_text() == written


def test_a_study_refuses_the_options_of_suites(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    refused = command(tmp_path, "run", "tiny.toml", "--seeds", "3")
    assert refused.returncode == 2
    assert "--seeds: a study of transport has no such option" in refused.stderr


def test_the_study_is_listed() -> None:
    assert "transport" in json.loads(command(ROOT, "list", "studies", "--json").stdout)["studies"]


COMMITTED = ROOT / "results/reference/transport"


def seen() -> str:
    """The numbers in docs/transport.md, from the committed study."""
    found = json.loads((COMMITTED / "transport.json").read_text())
    cells = [cell for cell in found["cells"] if cell["verdict"] != "incomplete"]
    told = f"{found['n_runs']:,} of {found['n_expected']:,} runs are recorded, and "
    told += f"{len(cells)} of {len(found['cells'])} cells are judged."
    lines = [f"{told} Prediction: **{found['prediction']}**."]
    if not cells:
        return lines[0]
    lines += ["", "| cell | gain of s = 1, nats | log2(e1/e2) | log2(e1/nu) | verdict |"]
    lines += ["|---|---|---|---|---|"]
    for cell in cells:
        [full] = [a for a in cell["arms"] if a["strength"] == 1 and not a["decay"]
                  and not a["from_diagnostic"]]  # fmt: skip
        numbers = (
            (full["gain"], 3),
            (cell["log2_staleness_over_curvature"], 1),
            (cell["log2_staleness_over_noise"], 1),
        )
        name = f"{cell['model']} batch {cell['batch']} beta {cell['beta']:g} {cell['schedule']}"
        shown = [_interval(each, digits) for each, digits in numbers]
        lines.append(f"| {' | '.join((name, *shown, cell['verdict']))} |")
    return "\n".join(lines)


def _interval(interval: dict[str, float], digits: int) -> str:
    value, low, high = (f"{interval[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})".replace("-", "\N{MINUS SIGN}")


def test_the_page_shows_the_committed_study() -> None:
    page = (ROOT / "docs/transport.md").read_text()
    assert page.partition("<!-- seen -->\n")[2].partition("\n<!-- /seen -->")[0] == seen()


def test_the_committed_study_is_the_built_in_one() -> None:
    study = load_study("transport")
    assert stored("transport", COMMITTED.parent) == study
    known = progress(study, COMMITTED.parent)
    assert gains_csv(known.cells) == (COMMITTED / "gains.csv").read_text()
    numbers = as_json(document(study, known.cells, known.n_runs, known.n_expected))
    assert numbers == json.loads((COMMITTED / "transport.json").read_text())
