"""How complete a report calls a suite, by the sampler that the suite names."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from frames import make_suite, record, to_frame
from hptransfer.report import render
from hptransfer.report.write import section
from hptransfer.search import samplers
from hptransfer.search.plan import plan
from hptransfer.suite.ranges import value_range
from hptransfer.suite.resolved import Suite

pytestmark = pytest.mark.usefixtures("no_replays")


def searching(sampler: str, **changes: Any) -> Suite:
    suite = make_suite("muon", sampler=sampler, trials=6, seeds=2, **changes)
    if sampler == "bracket":
        return suite
    table = suite.optimizers["muon"].model_copy(
        update={"search": {"beta": value_range("0.8..0.95")}}
    )
    return suite.model_copy(update={"optimizers": {"muon": table}})


def run_whole(suite: Suite) -> pd.DataFrame:
    """Records of every run that the suite needs."""
    records: list[dict[str, Any]] = []
    for _ in range(50):
        todo = plan(suite, to_frame(records), samplers.propose)
        if not todo:
            return to_frame(records)
        records += [record(spec, spec.axis_value(suite.axis), -6.3) for spec in todo]
    raise AssertionError("the suite does not end")


@pytest.mark.parametrize("sampler", ["bracket", "tpe", "random"])
def test_a_finished_suite_misses_nothing_and_one_run_less_is_one_missing(sampler: str) -> None:
    suite = searching(sampler)
    frame = run_whole(suite)
    whole = section(suite, frame, Path("results"))
    assert (whole.n_expected, whole.missing, whole.uncounted) == (len(frame), [], "")
    assert f"{len(frame)}/{len(frame)} runs.<" in render([whole])
    last = frame["seed"].idxmax()
    short = section(suite, frame.drop(index=last), Path("results"))
    assert short.n_expected == len(frame)
    assert len(short.missing) == 1


def test_a_report_does_not_import_a_sampler_that_is_code_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_sampler.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    suite = searching("tpe")
    frame = run_whole(suite)
    strange = suite.model_copy(update={"sampler": "strange_sampler:Sampler"})
    page = render([section(strange, frame, Path("results"))])
    assert "strange_sampler" not in sys.modules
    assert (
        f"{len(frame)} runs. Missing runs are not counted: sampler strange_sampler:Sampler is code "
        "that a report does not import." in page
    )


def test_a_report_of_a_sampler_that_is_not_installed_here_is_made_without_a_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    suite = searching("tpe")
    frame = run_whole(suite)
    elsewhere = section(suite.model_copy(update={"sampler": "cmaes"}), frame, Path("results"))
    assert elsewhere.n_expected is None
    assert "needs the package 'cmaes', which is not installed here" in elsewhere.uncounted
