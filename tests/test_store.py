"""The store loses nothing, overwrites nothing, and names what is damaged."""

import errno
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hptransfer.records.disk import disk
from hptransfer.records.lines import COLUMNS
from hptransfer.records.store import Store, stored_suites
from hptransfer.spec import SCHEMA, RunSpec
from stored import failure, files, record, suite


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    written = record(probes={"rms": [1.0, 2.0]})
    Store(tmp_path, "x").append(written)
    row = Store(tmp_path, "x").frame().iloc[0]
    assert RunSpec.from_json(row["spec"]) == written.spec
    assert (row["key"], row["cell"]) == (written.key, written.spec.cell)
    assert row["curve"].tolist() == written.curve
    assert row["tokens"] == 16 * 100 * 64
    assert (row["device"], row["lanes"], row["threads"]) == ("cpu", 4, 1)
    assert (row["loss"], row["probes"]) == (2.5, {"rms": [1.0, 2.0]})


def test_an_empty_store_gives_an_empty_frame_and_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "results", "x")
    full = Store(tmp_path / "other", "x")
    full.append(record())
    frame = store.frame()
    assert len(frame) == 0
    assert set(frame.columns) == set(COLUMNS)
    assert dict(frame.dtypes) == dict(full.frame().dtypes)
    assert store.read_manifest() is None
    assert store.find_snapshot("k") is None
    assert stored_suites(tmp_path / "results") == []
    assert not (tmp_path / "results").exists()


def test_the_first_finished_record_of_a_key_wins_and_a_failure_hides_none(tmp_path: Path) -> None:
    one, two = Store(tmp_path, "x"), Store(tmp_path, "x")
    one.append(record(loss=math.nan, status="failed", finished=1.0, error="first"))
    one.append(record(loss=math.nan, status="failed", finished=2.0, error="second"))
    assert one.frame()["error"].tolist() == ["second"]
    one.append(record(loss=2.0, finished=5.0))
    two.append(record(loss=1.0, finished=4.0))
    two.append(record(loss=math.nan, status="failed", finished=3.0))
    two.append(record(loss=math.nan, status="failed", finished=9.0))
    assert len(files(one)) == 2
    for store in (one, Store(tmp_path, "x")):
        assert store.frame()["loss"].tolist() == [1.0]


def test_only_new_lines_are_read_and_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    writer, reader = Store(tmp_path, "x"), Store(tmp_path, "x")
    writer.append(record(0))
    assert len(reader.frame()) == 1
    writer.append(record(1))
    assert len(reader.frame()) == 2
    lines = files(writer)[0].read_text().splitlines(keepends=True)
    (tmp_path / "new").write_text(lines[1])
    (tmp_path / "new").replace(files(writer)[0])
    assert reader.frame()["seed"].tolist() == [1]
    files(writer)[0].unlink()
    assert len(reader.frame()) == 0


def test_what_a_caller_does_to_a_frame_stays_with_him(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.append(record())
    frame = store.frame()
    frame["loss"] = 0.0
    frame["extra"] = 1
    assert store.frame()["loss"].tolist() == [2.5]
    assert "extra" not in store.frame()


def _write(root: Path, first: int, count: int) -> None:
    store = Store(root, "x")
    for seed in range(first, first + count):
        store.append(record(seed))


def test_two_processes_append_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path, k * 200, 200)) for k in range(2)]
    for worker in workers:
        worker.start()
    reader = Store(tmp_path, "x")
    while any(worker.is_alive() for worker in workers):
        reader.frame()
        time.sleep(0.05)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(reader.frame()["seed"]) == list(range(400))


def test_a_killed_writer_loses_no_finished_record(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_write, args=(tmp_path, 0, 10**6))
    worker.start()
    store = Store(tmp_path, "x")
    while len(seen := store.frame()["seed"].tolist()) < 5:
        time.sleep(0.02)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    kept = Store(tmp_path, "x").frame()["seed"].tolist()
    assert kept == list(range(len(kept)))
    assert len(kept) >= len(seen)
    store.append(record(10**6))
    assert len(Store(tmp_path, "x").frame()) == len(kept) + 1


@pytest.mark.parametrize("written", [0, 100])
def test_a_full_disk_is_an_error_and_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    store = Store(tmp_path, "x")
    store.append(record(0))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if written:
            return real(fd, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        error = failure(store.append, record(1))
    assert str(error) == f"{files(store)[0]}: cannot be written (No space left on device)"
    assert error.hint == "free some space and start again; finished runs are safe"
    store.append(record(2))
    assert Store(tmp_path, "x").frame()["seed"].tolist() == [0, 2]


@pytest.mark.parametrize(("name", "kept"), [("fsync", [0, 1, 2]), ("write", [0, 2])])
def test_an_interrupt_while_a_record_is_written_loses_no_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kept: list[int]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path, "x")
    store.append(record(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.append(record(1))
    store.append(record(2))
    assert sorted(Store(tmp_path, "x").frame()["seed"]) == kept


def test_a_read_only_folder_can_be_read_but_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path, "x").append(record())

    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "unlink", "write_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    store = Store(tmp_path, "x")
    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    for write in (lambda: store.append(record(1)), lambda: store.write_text("report.html", "")):
        error = failure(write)
        assert "cannot be written (Read-only file system)" in str(error)
        assert error.cures == ("results",)
    monkeypatch.setattr(os, "open", real)
    assert len(store.frame()) == 1
    assert stored_suites(tmp_path) == ["x"]


def test_a_results_path_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.touch()
    store = Store(root, "x")
    expected = f"{root}: is a file, needs a folder"
    calls = [store.frame, store.read_manifest, lambda: store.append(record())]
    calls += [lambda: store.write_text("a", ""), lambda: stored_suites(root)]
    for call in calls:
        assert str(failure(call)) == expected


def test_the_manifest_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.write_manifest(suite())
    assert store.read_manifest() == suite()
    assert json.loads((tmp_path / "x" / "suite.json").read_text())["schema"] == SCHEMA


def test_another_suites_folder_is_not_overwritten(tmp_path: Path) -> None:
    Store(tmp_path, "y").write_manifest(suite("y"))
    (tmp_path / "y").rename(tmp_path / "x")
    path = tmp_path / "x" / "suite.json"
    before = path.read_bytes()
    error = failure(Store(tmp_path, "x").write_manifest, suite())
    assert str(error) == (
        f"{path}: got suite 'y', needs 'x': this folder holds another suite's records"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged suite manifest (Expecting property name"),
        ("[]", "damaged suite manifest ("),
        ("{}", "damaged suite manifest ('schema')"),
        ('{"schema": 1, "name": "x"}', "damaged suite manifest (claim: missing)"),
        ('{"schema": 99}', f"got schema 99, this version reads {SCHEMA}"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_not_overwritten(
    tmp_path: Path, text: str, message: str
) -> None:
    store = Store(tmp_path, "x")
    store.write_text("suite.json", text)
    assert str(failure(store.write_manifest, suite())).startswith(
        f"{tmp_path}/x/suite.json: {message}"
    )
    assert (tmp_path / "x" / "suite.json").read_text() == text


def one_written(path: Path) -> None:
    path.write_text("one")


def test_a_write_that_breaks_off_leaves_the_file_before(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.save_snapshot("k", one_written)

    def broken(path: Path) -> None:
        path.write_text("tw")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save_snapshot("k", broken)
    found = store.find_snapshot("k")
    assert found is not None
    assert found.read_text() == "one"
    assert [path.name for path in found.parent.iterdir()] == ["k.pt"]
    store.drop_snapshot("k")
    store.drop_snapshot("k")
    assert store.find_snapshot("k") is None


def test_records_of_other_stores_are_counted_as_they_come(tmp_path: Path) -> None:
    one, two = Store(tmp_path, "x"), Store(tmp_path, "x")
    assert one.from_others() == 0
    one.append(record(0))
    assert (one.from_others(), two.from_others()) == (0, 1)
    two.append(record(1))
    two.append(record(1))
    assert (one.from_others(), two.from_others()) == (2, 1)
    assert len(one.frame()) == 2


def test_only_torn_snapshots_are_cleared_away(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    store.drop_torn_snapshots()
    store.save_snapshot("k", one_written)
    (tmp_path / "x" / "snapshots" / ".k.pt.host-1-abc.tmp").touch()
    store.drop_torn_snapshots()
    assert [path.name for path in (tmp_path / "x" / "snapshots").iterdir()] == ["k.pt"]


def test_stored_suites_are_listed_newest_first(tmp_path: Path) -> None:
    for name, when in {"new": 30, "old": 10, "mid": 20}.items():
        Store(tmp_path, name).append(record())
        os.utime(files(Store(tmp_path, name))[0], (when, when))
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").touch()
    assert stored_suites(tmp_path) == ["new", "mid", "old"]


def test_ctrl_c_is_ctrl_c_though_a_library_fails_to_clean_up(tmp_path: Path) -> None:
    """Optuna's lock deletes its file on the way out, which may be gone by then."""

    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            (tmp_path / "gone").unlink()

    with pytest.raises(KeyboardInterrupt), disk(tmp_path, "written"):
        interrupted()
