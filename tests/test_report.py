"""The page, metrics.json and runs.csv."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from frames import CENTERS, make_suite, many, study, to_frame
from hptransfer.report import Section, metrics_json, render, runs_table, runs_tables
from hptransfer.report.runs_csv import flat
from hptransfer.suite.resolved import Suite


class Outline(HTMLParser):
    """Ids, headings, and whether every element ends."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str | None] = []
        self.links: list[str | None] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "svg"} & set(self.open):
            self.text.append(data)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite(negative_control="adamw")


@pytest.fixture(scope="module")
def frame(suite: Suite) -> pd.DataFrame:
    return study(suite, CENTERS, cliff=2.2)


@pytest.fixture(scope="module")
def section(suite: Suite, frame: pd.DataFrame) -> Section:
    return Section(suite, frame, len(frame), (), ("hptransfer run made_up",))


@pytest.fixture(scope="module")
def page(section: Section) -> str:
    return render([section])


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


@pytest.fixture(scope="module")
def text(outline: Outline) -> str:
    return " ".join(" ".join(outline.text).split())


def test_the_page_is_well_formed_and_no_id_occurs_twice(outline: Outline) -> None:
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))


def test_the_page_refers_to_nothing_outside_itself(page: str, outline: Outline) -> None:
    assert all(link is not None and link.startswith("#") for link in outline.links)
    assert not re.search(r"@import|url\((?!#)|fetch\(|<link|<img", page)
    outside = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_claim_and_the_verdicts_come_first_then_the_control_then_the_alignment(
    frame: pd.DataFrame, text: str
) -> None:
    wanted = [
        "Claim.", "adamw. The lr tuned at width 32 (2^-6) costs", "Negative control: adamw drifts",
        f"{len(frame)}/{len(frame)} runs.", "Alignment", "The rule of the verdict", "Cost",
        "Fairness", "Training curves", "Metric audit", "Environment", "Reproduce", "Glossary",
    ]  # fmt: skip
    places = [text.find(part) for part in wanted]
    assert -1 not in places
    assert places == sorted(places)


def test_a_failed_negative_control_stands_before_the_verdicts(frame: pd.DataFrame) -> None:
    suite = make_suite(negative_control="muon")
    page = render([Section(suite, frame)])
    assert page.index("Negative control failed") < page.index('class="verdicts"')


def test_missing_runs_are_named(suite: Suite, frame: pd.DataFrame) -> None:
    page = render([Section(suite, frame, len(frame) + 1, ("muon width 128, 2^-5, seed 1002",))])
    assert f"{len(frame)}/{len(frame) + 1} runs. Missing: muon width 128" in page


def test_all_text_is_escaped() -> None:
    suite = make_suite("<script>alert(1)</script>", name="<b>", claim="<img src=x onerror=y>")
    frame = study(suite, {"<script>alert(1)</script>": lambda n: -5.0})
    frame["device"] = "<i>gpu</i>"
    page = render([Section(suite, frame, 1, ("<u>",), ("<s>",))])
    for text in ("<script>alert", "<img src=x", "<i>gpu", "<u>", "<s>", "<title><b>"):
        assert text not in page
    Outline(page)


def test_the_manifest_marks_what_differs(page: str) -> None:
    row = re.search(r"<tr><th scope=row class=\"head\" data-sort=\"warm-up.*?</tr>", page)
    assert row is not None
    assert "differs" in row[0]
    same = re.search(r"<tr><th scope=row class=\"head\" data-sort=\"steps\".*?</tr>", page)
    assert same is not None
    assert "differs" not in same[0]


def test_the_page_says_where_a_transported_curve_is_taken(text: str) -> None:
    assert "is taken at Y" in text
    suite = make_suite("muon")
    assert "is taken at Y" not in render([Section(suite, study(suite, {"muon": CENTERS["muon"]}))])


def test_several_environments_are_listed_apart(suite: Suite, frame: pd.DataFrame) -> None:
    changed = frame.copy()
    changed.loc[changed.index[:10], "device"] = "NVIDIA made-up"
    page = render([Section(suite, changed)])
    assert "NVIDIA made-up" in page
    assert ">cpu<" in page


def test_the_same_records_give_the_same_bytes(section: Section, page: str) -> None:
    assert render([replace(section)]) == page


def test_an_empty_store_gives_a_page_and_says_that_runs_are_missing(suite: Suite) -> None:
    page = render([Section(suite, to_frame([]), 4, ("a", "b", "c", "d"))])
    assert "0/4 runs. Missing: a; b; c; d." in page
    assert "incomplete" in page
    Outline(page)
    json.dumps(metrics_json([Section(suite, to_frame([]))]), allow_nan=False)
    assert runs_table(suite, to_frame([])).empty


def test_all_runs_diverged_gives_a_page_with_advice(suite: Suite, frame: pd.DataFrame) -> None:
    changed = frame.copy()
    changed["status"], changed["loss"] = "diverged", np.inf
    page = render([Section(suite, changed)])
    assert "Lower the range of learning rates" in page
    json.dumps(metrics_json([Section(suite, changed)]), allow_nan=False)


def test_only_a_censored_optimum_is_flagged_so(
    suite: Suite, frame: pd.DataFrame, page: str
) -> None:
    assert "censored high" not in page
    assert "censored nan" not in page
    cut = (frame["width"] == 128) & (frame["log2_lr"] > -5.5)
    other = render([Section(suite, frame[~cut])])
    assert "censored high" in other
    assert "censored nan" not in other


def test_a_sentence_that_holds_for_every_target_is_said_once() -> None:
    suite = make_suite("muon", targets=[64, 128])
    frame = study(suite, {"muon": CENTERS["muon"]})
    frame["status"], frame["loss"] = "diverged", np.inf
    assert render([Section(suite, frame)]).count("Every run at width 32 diverged") == 1


def test_of_several_targets_the_largest_comes_first_and_the_others_fold_under_it() -> None:
    suite = make_suite("adamw", targets=[64, 128])
    page = render([Section(suite, study(suite, {"adamw": CENTERS["adamw"]}))])
    listed = page.partition('<ul class="verdicts">')[2].partition("</ul>")[0]
    assert listed.count("<li>") == 1
    head, _, folded = listed.partition("<details>")
    assert "at width 128" in head
    assert "at width 64" not in head
    assert re.search(r"<summary>width 64: \w+</summary>", folded)
    assert "at width 64" in folded
    one = make_suite("adamw")
    page = render([Section(one, study(one, {"adamw": CENTERS["adamw"]}))])
    assert "<details>" not in page.partition('<ul class="verdicts">')[2].partition("</ul>")[0]


def test_an_indicative_verdict_says_so_beside_its_label(suite: Suite) -> None:
    page = render([Section(suite, study(suite, CENTERS, seeds=2))])
    assert "<strong>adamw (indicative: 2 seeds).</strong> The lr tuned" in page


def test_failed_runs_are_counted_with_their_errors(suite: Suite, frame: pd.DataFrame) -> None:
    changed = frame.copy()
    changed.loc[0, ["status", "loss", "error"]] = ["failed", np.nan, "out of memory"]
    page = render([Section(suite, changed, len(changed))])
    assert f"{len(changed) - 1}/{len(changed)} runs." in page
    assert "1 × out of memory" in page


def test_suites_come_newest_first(frame: pd.DataFrame) -> None:
    older, newer = make_suite(name="older"), make_suite(name="newer")
    later = frame.assign(finished=frame["finished"] + 10)
    sections = [Section(older, frame), Section(newer, later)]
    page = render(sections)
    assert page.index("<h1>newer") < page.index("<h1>older")
    assert [s["suite"] for s in metrics_json(sections)["suites"]] == ["newer", "older"]
    ids = Outline(page).ids
    assert len(ids) == len(set(ids))


def test_metrics_json_holds_what_the_page_says_with_null_for_what_was_not_measured(
    suite: Suite,
) -> None:
    frame = study(suite, CENTERS, verify=False)
    made = json.loads(json.dumps(metrics_json([Section(suite, frame)]), allow_nan=False))
    first = made["suites"][0]["transfers"][0]
    assert first["verdict"] == "unverified"
    assert first["regret"] == {"value": None, "low": None, "high": None}
    assert first["log2_lr_carried"] == -6
    assert first["optimum_at_target"] is None
    assert made["suites"][0]["negative_control"]["shown"] is False


def test_a_run_that_tuned_another_field_is_told_from_its_neighbours(section: Section) -> None:
    rows = section.rows.assign(hp_point='{"aux_lr":0.125}')
    [row] = runs_tables.runs(flat(rows), 1).rows
    assert "aux_lr = 0.125" in [cell.under for cell in row]


def test_runs_csv_is_flat_and_keeps_every_value(suite: Suite, frame: pd.DataFrame) -> None:
    table = runs_table(suite, frame)
    back = list(csv.DictReader(io.StringIO(table.to_csv(index=False))))
    assert len(back) == len(frame)
    for column in ("log2_lr", "loss"):
        assert [float(row[column]) for row in back] == table[column].tolist()
    assert not table.map(lambda v: isinstance(v, dict | list)).any().any()


def test_a_long_table_is_folded_and_points_to_the_file(suite: Suite, page: str) -> None:
    assert "runs.csv holds all of them" not in page
    assert "The first 300 of 400 runs; runs.csv holds all of them." in render(
        [Section(suite, many(suite, 400))]
    )


@pytest.mark.slow
def test_the_page_of_ten_thousand_records_stays_below_a_megabyte(suite: Suite) -> None:
    page = render([Section(suite, many(suite, 10_000))])
    assert len(page) < 1_000_000


def test_runs_that_cannot_be_counted_are_not_called_missing_or_complete(
    suite: Suite, frame: pd.DataFrame
) -> None:
    page = render([Section(suite, frame, uncounted="sampler x.y:Z is code")])
    assert f"{len(frame)} runs. Missing runs are not counted: sampler x.y:Z is code." in page


def test_the_report_does_not_import_torch() -> None:
    code = "import sys, hptransfer.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
