"""Cells of the noise laboratory: how their lanes end, and their records on disk."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hptransfer.laboratory import descent
from hptransfer.laboratory.descent import measure
from hptransfer.laboratory.file import load_study
from hptransfer.laboratory.study import Series, Study
from hptransfer.records.cells import CAPPED, DEARER, REACHED, CellStore
from hptransfer.records.damage import LeftOut
from studied import first, single, tiny_study


@pytest.fixture
def tiny(tmp_path: Path) -> Study:
    return tiny_study(tmp_path)


def test_a_cell_ends_where_the_running_mean_of_the_norm_reaches_the_goal(tiny: Study) -> None:
    quiet = {**single(tiny).noise, "sigma": 1e-12}
    record = measure(single(tiny, noise=quiet))
    # The norm is 2 eps on the slope and falls to 0 at its end, so the mean halves the time.
    assert (record.status == REACHED).all()
    top = 20 / 2 + math.sqrt(8 * 16) / 2
    slope = (top - math.sqrt(8 * 16)) / 0.5
    assert record.steps.min() == record.steps.max() > slope


def test_a_lane_that_is_too_slow_is_capped(tiny: Study) -> None:
    record = measure(single(tiny, log2_lr=(-20.0,), cap=50))
    assert (record.status == CAPPED).all()
    assert (record.steps == 50).all()


def test_a_setting_that_a_known_one_beats_is_given_up(tiny: Study) -> None:
    record = measure(single(tiny, limit=16.0))
    assert (record.status == DEARER).all()
    assert record.steps.max() <= 2


def test_settings_do_not_change_each_other(tiny: Study) -> None:
    cell = first(tiny)
    whole = measure(cell)
    best = int(whole.calls.mean(axis=1).argmin())
    lr, alpha, batch = cell.settings[best].tolist()
    one = measure(
        dataclasses.replace(cell, log2_lr=(lr,), log2_alpha=(alpha,), log2_batch=(batch,))
    )
    assert np.isfinite(one.calls).all()
    assert np.array_equal(whole.calls[best], one.calls[0])


@pytest.mark.parametrize("columns", [0, 4])
@pytest.mark.parametrize("label", ["scion", "transported", "muon", "nsgd", "adamw", "sgd"])
def test_lanes_taken_together_have_the_bits_of_lanes_taken_one_by_one(
    label: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study("heavy_tails")
    series = next(each for each in study.series() if each.label == label)
    cell = series.cell(1.0, (-1.0, 0.0), (-1.0, -3.0), (4.0, 6.0))
    model = {**cell.model, "width": 4, "columns": columns}
    noise = {"law": "gauss", "index": 2.0, "sigma": 8.0, "spread": "all"}
    cell = dataclasses.replace(cell, model=model, noise=noise, seeds=(0, 3))
    together = descent._Running(cell)
    monkeypatch.setattr(descent, "FOLDED", set[str]())
    apart = descent._Running(cell)
    for t in range(6):
        assert np.array_equal(together.step(t), apart.step(t))
        assert torch.equal(together.w, apart.w)
        over = np.arange(len(together.alive)) == t
        together.end(over)
        apart.end(over)


@pytest.mark.parametrize("norm", ["spectral", "sign", "colnorm", "rownorm"])
def test_every_norm_reaches_the_goal_in_the_matrix_mode(tiny: Study, norm: str) -> None:
    cell = single(tiny, noise={**single(tiny).noise, "spread": "all"}, log2_lr=(0.0, 2.0))
    cell = dataclasses.replace(
        cell, model={**cell.model, "columns": 4}, hp={**cell.hp, "hidden": norm}, cap=2000
    )
    assert (measure(cell).status == REACHED).any()


def test_without_tuning_the_steps_grow_as_the_inverse_square_of_the_goal(tiny: Study) -> None:
    big = tiny.model_copy(
        update={"objective": {"name": "plateau", "gap": 100.0}, "sigma": 16.0, "cap": 60.0}
    )
    series: Series = dataclasses.replace(next(big.series()), index=1.5, directions=8)
    scaled = []
    for k in range(2):
        eps = 2.0**-k
        cell = series.cell(eps, (-1.0,), (-1.0,), (14.0 + 3 * k,), fresh=True)
        record = measure(dataclasses.replace(cell, seeds=(0, 12)))
        assert (record.status == REACHED).all()
        scaled.append(record.steps.mean() * eps**2)
    assert max(scaled) / min(scaled) < 1.1


def test_a_record_comes_back_from_the_disk_as_it_was(tiny: Study, tmp_path: Path) -> None:
    store, record = CellStore(tmp_path, "tiny"), measure(first(tiny))
    store.append(record)
    store.append(record)
    read = CellStore(tmp_path, "tiny").read()
    assert read.keys() == {record.cell.key}
    again = read[record.cell.key]
    assert again.cell == record.cell
    assert np.array_equal(again.steps, record.steps)
    assert np.array_equal(again.status, record.status)


def test_a_torn_line_is_skipped_and_a_changed_one_is_named(tiny: Study, tmp_path: Path) -> None:
    store, record = CellStore(tmp_path, "tiny"), measure(single(tiny))
    store.append(record)
    [path] = (tmp_path / "tiny").glob("cells-*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-40])
    assert CellStore(tmp_path, "tiny").read().keys() == {record.cell.key}
    line = json.loads(whole)
    for damaged, why in (
        ({**line, "cell": {**line["cell"], "cap": 7}}, "the key is not that of the cell"),
        ({**line, "steps": line["status"]}, "lanes, the cell has 4"),
        ({**line, "cell": {**line["cell"], "more": 1}}, "TypeError"),
        ({**line, "status": "no base64"}, "no record of a cell"),
        ({key: value for key, value in line.items() if key != "env"}, "KeyError"),
        ([], "TypeError"),
    ):
        path.write_bytes(json.dumps(damaged).encode() + b"\n" + whole)
        store = CellStore(tmp_path, "tiny")
        with pytest.warns(LeftOut, match=why):
            assert store.read().keys() == {record.cell.key}
        store.read()  # warns once
