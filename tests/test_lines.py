"""Lines of a records file: what is damaged, newer or cut off is named or passed over."""

import json
import math
import re
from pathlib import Path

import pytest

from hptransfer.records.store import Store
from hptransfer.spec import SCHEMA
from stored import failure, files, record


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


def test_a_damaged_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    for seed in range(3):
        store.append(record(seed))
    path = files(store)[0]
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1][:30] + "\n"
    path.write_text("".join(lines))
    reader = Store(tmp_path, "x")
    error = failure(reader.frame)
    assert str(error) == (
        f"{path}:2: damaged record line (Invalid control character at: line 1 column 31 (char 30))"
    )
    assert error.hint == "delete that line; its run will be trained again, all others are kept"
    path.write_text(lines[0] + lines[2])
    assert reader.frame()["seed"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"spec": None}, "'NoneType' object is not subscriptable"),
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
    error = str(failure(Store(tmp_path, "x").frame))
    assert error.startswith(f"{path}:1: damaged record line (")
    assert why in error
    del line["env"]
    path.write_text(json.dumps(line) + "\n")
    error = str(failure(Store(tmp_path, "x").frame))
    assert error == f"{path}:1: damaged record line (no field 'env')"


@pytest.mark.parametrize("text", ["[]", "1", '{"a":1},{"b":2}', "\0\0\0", "ÿ"])
def test_a_line_that_is_no_object_is_damage(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path, "x")
    store.append(record())
    with files(store)[0].open("a", encoding="latin-1") as file:
        file.write(f"\n{text}\n")
    assert str(failure(store.frame)).startswith(f"{files(store)[0]}:3: damaged record line (")


def test_a_record_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.append(record())
    path = files(store)[0]
    path.write_text(path.read_text().replace(f'"schema":{SCHEMA},"key"', '"schema":99,"key"', 1))
    error = failure(Store(tmp_path, "x").frame)
    assert str(error) == f"{path}:1: got schema 99, this version reads {SCHEMA}"
    assert "upgrade" in error.hint
