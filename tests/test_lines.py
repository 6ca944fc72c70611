"""Lines of a records file: the reader leaves out damaged ones and refuses newer ones."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hptransfer.records.store import Store
from hptransfer.spec import SCHEMA, RunSpec
from stored import failure, files, left_out, record


def test_losses_that_are_not_finite_are_null_and_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    curve = [[0, 5.5], [50, math.nan], [100, math.inf]]
    store.append(record(0, status="diverged", loss=math.inf, train_loss=math.nan, curve=curve))
    store.append(record(1, status="failed", loss=math.nan, curve=[], error="out of memory"))
    assert not re.search(r"NaN|Infinity", files(store)[0].read_text())
    frame = store.frame()
    assert frame["loss"][0] == math.inf
    assert math.isnan(frame["train_loss"][0])
    assert math.isnan(frame["curve"][0][2, 1])
    assert math.isnan(frame["loss"][1])
    assert frame["curve"][1].shape == (0, 2)


@pytest.mark.parametrize("cut", [1, 2, 50, 400])
def test_a_torn_last_line_is_passed_over_until_it_is_whole(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path, "x")
    store.append(record(0))
    store.append(record(1))
    path = files(store)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    reader = Store(tmp_path, "x")
    assert reader.frame()["seed"].tolist() == [0]
    path.write_bytes(whole)
    assert reader.frame()["seed"].tolist() == [0, 1]


def test_a_damaged_line_in_the_middle_is_left_out_and_named(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    for seed in range(3):
        store.append(record(seed))
    path = files(store)[0]
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1][:30] + "\n"
    path.write_text("".join(lines))
    reader = Store(tmp_path, "x")
    seeds, note = left_out(reader)
    assert seeds == [0, 2]
    assert note == (
        f"{path}: left out 1 damaged record line (line 2: Invalid control character at: line 1 "
        "column 31 (char 30)); restore the file, or delete that line: hptransfer will train its "
        "run again"
    )
    assert reader.frame()["seed"].tolist() == [0, 2], "and it warns once"
    path.write_text(lines[0] + lines[2])
    assert reader.frame()["seed"].tolist() == [0, 2]


def test_many_damaged_lines_of_a_file_are_one_warning(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    for seed in range(9):
        store.append(record(seed))
    path = files(store)[0]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line if i == 7 else "{}\n" for i, line in enumerate(lines, 1)))
    seeds, note = left_out(Store(tmp_path, "x"))
    assert seeds == [6]
    assert note == (
        f"{path}: left out 8 damaged record lines (1, 2, 3, 4, 5, ...; line 1: no field 'spec'); "
        "restore the file, or delete those lines: hptransfer will train their runs again"
    )


def test_lines_that_are_damaged_later_are_told_with_those_before(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.append(record(0))
    path = files(store)[0]
    with path.open("a") as file:
        file.write("1\n")
    assert "left out 1 damaged" in left_out(store)[1]
    with path.open("a") as file:
        file.write("2\n")
    assert "left out 2 damaged record lines (2, 3; " in left_out(store)[1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"spec": None}, "spec is None"),
        ({"status": 3}, "status is 3"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"curve": [[1, 2], [1]]}, "inhomogeneous"),
    ],
)
def test_a_field_of_a_wrong_type_is_damage(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    store = Store(tmp_path, "x")
    store.append(record())
    path = files(store)[0]
    line = json.loads(path.read_text())
    path.write_text(json.dumps({**line, **change}) + "\n")
    seeds, note = left_out(Store(tmp_path, "x"))
    assert seeds == []
    assert note.startswith(f"{path}: left out 1 damaged record line (line 1: ")
    assert why in note
    del line["env"]
    path.write_text(json.dumps(line) + "\n")
    assert "(line 1: no field 'env')" in left_out(Store(tmp_path, "x"))[1]


@pytest.mark.parametrize("text", ["[]", "1", '{"a":1},{"b":2}', "\0\0\0", "ÿ", "[" * 100_000])
def test_a_line_that_is_no_object_is_damage(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path, "x")
    store.append(record())
    with files(store)[0].open("a", encoding="latin-1") as file:
        file.write(f"\n{text}\n")
    seeds, note = left_out(store)
    assert seeds == [0]
    assert note.startswith(f"{files(store)[0]}: left out 1 damaged record line (line 3: ")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"linear"', '"linfar"', "key is "),
        ('"seed":0', '"seed":7', "key is "),
        ('"log2_lr":-9.5', '"log2_lr":-9.25', "key is "),
        ('"beta1":0.9', '"beta1":0.8', "key is "),
        ('"clip":1.0', '"clip":1', "key is "),
        ('"tests":false', '"tests":0', "key is "),
        ('"width":32,"base"', '"base"', "spec has not the fields of a run"),
        ('"seed":0', '"seed":0,"more":1', "spec has not the fields of a run"),
        ('"seed":0', '"seed":"0"', "seed is '0'"),
        ('"log2_lr":-9.5', '"log2_lr":null', "log2_lr is None"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_line_whose_spec_is_not_that_of_its_key_is_no_record(
    tmp_path: Path, old: str, new: str, why: str, first: bool
) -> None:
    """Also after a good line of the same cell, whose hash serves the other lines."""
    store = Store(tmp_path, "x")
    if not first:
        store.append(record(5))
    store.append(record(0))
    store.append(record(6))
    path = files(store)[0]
    lines = path.read_text().splitlines(keepends=True)
    at = 0 if first else 1
    assert lines[at].count(old) == 1
    lines[at] = lines[at].replace(old, new)
    path.write_text("".join(lines))
    seeds, note = left_out(Store(tmp_path, "x"))
    assert seeds == ([6] if first else [5, 6])
    assert f"(line {at + 1}: {why}" in note


@pytest.mark.parametrize("name", ["key", "cell"])
def test_a_line_with_another_identity_than_its_spec_is_no_record(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path, "x")
    store.append(record(0))
    store.append(record(1))
    path = files(store)[0]
    own = getattr(record(0).spec, name)
    path.write_text(path.read_text().replace(own, "0" * 20, 1))
    seeds, note = left_out(Store(tmp_path, "x"))
    assert seeds == [1]
    assert f"(line 1: {name} is {'0' * 20!r}, that of the spec is {own})" in note


def test_the_specs_of_a_cell_come_back_as_they_were_written(tmp_path: Path) -> None:
    """A spec with another type of one value belongs to another cell."""
    store = Store(tmp_path, "x")
    specs = [
        replace(record(seed).spec, log2_lr=lr, clip=clip)
        for seed in (0, 1)
        for lr in (-9.5, -3.0)
        for clip in (1.0, 1)
    ]
    for spec in specs:
        store.append(record(spec=spec, finished=1e9 + len(store.frame())))
    frame = Store(tmp_path, "x").frame()
    assert [RunSpec.from_json(spec).key for spec in frame["spec"]] == [s.key for s in specs]
    assert frame["key"].tolist() == [s.key for s in specs]
    assert frame["cell"].nunique() == 2


def test_a_record_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.append(record())
    path = files(store)[0]
    path.write_text(path.read_text().replace(f'"schema":{SCHEMA},"key"', '"schema":99,"key"', 1))
    error = failure(Store(tmp_path, "x").frame)
    assert str(error) == f"{path}:1: got schema 99, this version reads {SCHEMA}"
    assert "upgrade" in error.hint
