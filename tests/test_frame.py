"""Which records belong to a suite, by label and axis value."""

import numpy as np
import pandas as pd
import pytest

from frames import half_octaves, make_suite, search, study, to_frame
from hptransfer.analysis.frame import searches, select
from hptransfer.analysis.statuses import finished
from hptransfer.spec import RunSpec


def test_rows_of_another_setting_do_not_belong_to_the_suite() -> None:
    suite, other = make_suite("muon"), make_suite("muon", steps=200)
    mine = search(suite, "muon", 32, -5, half_octaves(-5))
    theirs = search(other, "muon", 32, -5, half_octaves(-5))
    rows = select(suite, to_frame(mine + theirs))
    assert len(rows) == len(mine)
    assert set(rows["steps"]) == {100}


@pytest.mark.parametrize(
    ("axis", "value"), [("width", 64), ("depth", 6), ("batch_size", 32), ("steps", 400)]
)
def test_the_axis_value_is_free_on_its_own_axis_alone(axis: str, value: int) -> None:
    proxy = {"width": 32, "depth": 2, "batch_size": 16, "steps": 100}[axis]
    suite = make_suite("muon", axis=axis, proxy=proxy, targets=[value], width=32)
    other = make_suite("muon", axis="width", proxy=128, targets=[], width=128)
    frame = to_frame(
        [*search(suite, "muon", value, -5, [-5]), *search(other, "muon", 128, -5, [-5])]
    )
    assert select(suite, frame)["n"].tolist()[:1] == [value]
    assert (128 in set(select(suite, frame)["n"])) == (axis == "width")


def test_an_empty_store_gives_no_rows_but_every_column() -> None:
    rows = select(make_suite("muon"), to_frame([]))
    assert rows.empty
    assert {"optimizer", "n", "hp_point"} <= set(rows.columns)


def test_a_diverged_run_is_finished_and_a_failed_one_is_not() -> None:
    rows = pd.DataFrame({"status": ["done", "diverged", "failed"], "loss": [1.0, np.inf, np.nan]})
    assert finished(rows)["status"].tolist() == ["done", "diverged"]


def test_searches_come_in_the_order_of_the_suite_with_rising_axis_values() -> None:
    suite = make_suite("muon", "adamw", "scion_unconstrained", targets=[64])
    centers = {"adamw": lambda n: -6.0, "muon": lambda n: -5.0}
    frame = study(suite, centers).iloc[::-1]
    by_label = searches(suite, select(suite, frame))
    assert {label: list(by_n) for label, by_n in by_label.items()} == {
        "muon": [32, 64],
        "adamw": [32, 64],
    }
    assert list(by_label) == ["muon", "adamw"]


def test_specs_are_compared_once_per_cell_however_many_rows_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite = make_suite("muon", "adamw")
    compared = []
    identity = RunSpec.identity

    def counted(spec: RunSpec, *without: str) -> str:
        compared.append(spec)
        return identity(spec, *without)

    counts = []
    for seeds in (1, 20):
        frame = to_frame(search(suite, "muon", 32, -5, half_octaves(-5), range(seeds)))
        with monkeypatch.context() as patch:
            patch.setattr(RunSpec, "identity", counted)
            assert len(select(suite, frame)) == len(frame)
        counts.append(len(compared))
        compared.clear()
    assert counts[0] == counts[1] > 0
