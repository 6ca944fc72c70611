"""Optuna studies on disk: copies of the records, which may get lost."""

import multiprocessing
import sqlite3
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from hptransfer.records.store import Store
from hptransfer.search.studies import sync
from hptransfer.suite.resolved import Suite
from searched import failure, make, rows, run

pytestmark = pytest.mark.usefixtures("no_replays")


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def only_study(storage: str | BaseStorage) -> optuna.Study:
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


@pytest.fixture
def tuned(tmp_path: Path) -> tuple[Suite, pd.DataFrame, Store]:
    suite = make(tmp_path)
    return suite, rows(suite, run(suite)), Store(tmp_path / "results", "x")


Tuned = tuple[Suite, pd.DataFrame, Store]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_the_study_holds_every_search_run_once(tmp_path: Path, tuned: Tuned, kind: str) -> None:
    suite, table, store = tuned
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/studies.db"
    sync(suite, table[:3], url, store)
    for _ in range(2):
        sync(suite, table, url, store)
    storage = RDBStorage(url) if url else journal(store.study_url())
    study = only_study(storage)
    cell = suite.template("adamw").cell
    assert study.study_name == f"x/adamw/width=32/{cell[:8]}"
    assert study.user_attrs == {"hptransfer.suite": "x", "optimizer": "adamw", "width": 32}
    assert [trial.user_attrs["key"] for trial in study.trials] == table["key"].tolist()
    assert [trial.params["log2_lr"] for trial in study.trials] == table["log2_lr"].tolist()
    assert max(trial.value or 0.0 for trial in study.trials) == 5.5
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert study.trials[0].duration is not None
    assert study.trials[0].duration.total_seconds() == 2.0
    space = optuna.search_space.intersection_search_space(study.trials)
    assert space == {"log2_lr": optuna.distributions.FloatDistribution(-30, 6)}
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def test_the_lock_of_a_killed_run_is_taken_over_under_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite, store = make(tmp_path), Store(Path("results"), "x")
    table = rows(suite, run(suite))
    sync(suite, table[:1], None, store)
    path = store.study_url().resolve()
    path.with_name(path.name + ".lock").symlink_to(path)
    sync(suite, table, None, store)
    assert len(only_study(journal(path)).trials) == len(table)


def test_searched_values_and_axis_values_have_their_own_studies(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="random", table={"search": {"beta": "2^-3..2^-1"}}, trials=4)
    store = Store(tmp_path, "x")
    both = [rows(suite, run(suite, n=n), n) for n in (32, 64)]
    failed = both[0].assign(status="failed", key="f")
    sync(suite, pd.concat([*both, failed], ignore_index=True), None, store)
    names = optuna.get_all_study_names(journal(store.study_url()))
    assert [name.rsplit("/", 1)[0] for name in sorted(names)] == [
        "x/adamw/width=32",
        "x/adamw/width=64",
    ]
    study = optuna.load_study(study_name=names[0], storage=journal(store.study_url()))
    assert len(study.trials) == 4
    assert study.trials[0].distributions["beta"] == optuna.distributions.FloatDistribution(
        0.125, 0.5, log=True
    )


@pytest.mark.parametrize("damage", ["deleted", "garbage", "torn", "middle", "nonsense", "empty"])
def test_a_lost_or_damaged_journal_is_rebuilt_from_the_records(tuned: Tuned, damage: str) -> None:
    suite, table, store = tuned
    sync(suite, table, None, store)
    path = store.study_url()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    match damage:
        case "deleted":
            path.unlink()
        case "garbage":
            path.write_bytes(b"\x00\xff garbage\n" * 3)
        case "torn":
            path.write_bytes(whole[:-20])
        case "middle":
            path.write_bytes(b"".join([*lines[:2], lines[2][:20] + b"\n", *lines[3:]]))
        case "nonsense":
            path.write_bytes(b'{"op_code": 4}\n[]\n')
        case "empty":
            path.write_bytes(b"")
    sync(suite, table, None, store)
    study = only_study(journal(path))
    assert [trial.user_attrs["key"] for trial in study.trials] == table["key"].tolist()
    assert sorted(p.name for p in store.folder.iterdir()) == [
        ".studies.journal.lock",
        "studies.journal",
    ]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
@pytest.mark.parametrize("owner", ["other", "nobody"])
def test_a_storage_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, tuned: Tuned, kind: str, owner: str
) -> None:
    suite, table, store = tuned
    path = tmp_path / "studies.db" if kind == "sqlite" else store.study_url()
    url = f"sqlite:///{path}" if kind == "sqlite" else None
    store.folder.mkdir(parents=True, exist_ok=True)
    if owner == "other":
        other = make(tmp_path, "other")
        foreign = Store(tmp_path, "other")
        sync(other, rows(other, run(other)), url, foreign)
        if kind == "journal":
            foreign.study_url().rename(path)
    else:
        storage = RDBStorage(url) if url else journal(path)
        optuna.create_study(storage=storage, study_name="mine")
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()
    before = path.read_bytes()
    error = failure(sync, suite, table, url, store)
    assert str(error).startswith(f"{url or path}: holds 1 studies ")
    assert ("of suite other" if owner == "other" else "hptransfer did not write") in str(error)
    assert "needs an empty storage or one of suite x" in str(error)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left_alone(
    tmp_path: Path, tuned: Tuned
) -> None:
    suite, table, store = tuned
    path = tmp_path / "books.db"
    connection = sqlite3.connect(path)
    connection.execute("create table books (title text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    error = failure(sync, suite, table, f"sqlite:///{path}", store)
    assert str(error) == f"sqlite:///{path}: holds tables that are not Optuna's (books)"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////no/such/folder/s.db", "cannot be used (unable to open database file)"),
        ("studies.db", "cannot be used (Could not parse SQLAlchemy URL"),
        ("mysql+nodriver://me:secret@host/db", "cannot be used (Can't load plugin"),
        ("redis://host", "cannot be used (Can't load plugin"),
        ("postgresql+psycopg://me:p/s@x@host/db?password=secret", "needs the package 'psycopg'"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(
    tuned: Tuned, url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # it is not installed
    suite, table, store = tuned
    error = failure(sync, suite, table, url, store)
    assert message in str(error)
    assert "secret" not in str(error)
    assert "p/s" not in str(error)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, tuned: Tuned) -> None:
    suite, table, store = tuned
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 100)
    error = failure(sync, suite, table, f"sqlite:///{path}", store)
    assert "file is not a database" in str(error)
    assert path.read_text() == "not a database\n" * 100


def _sync(folder: Path, url: str | None) -> None:
    suite = make(folder, sampler="random", trials=30)
    table = rows(suite, run(suite))
    for count in range(1, len(table) + 1):
        sync(suite, table[:count], url, Store(folder / "results", "x"))


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_sync_at_once_and_each_run_is_there_once(tmp_path: Path, kind: str) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else None
    folders = [tmp_path / "a", tmp_path / "b"]
    make(tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_sync, args=(tmp_path, url)) for _ in folders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    storage = RDBStorage(url) if url else journal(Store(tmp_path / "results", "x").study_url())
    keys = [trial.user_attrs["key"] for trial in only_study(storage).trials]
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    assert len(keys) == len(set(keys))
    suite = make(tmp_path, sampler="random", trials=30)
    assert set(keys) == set(rows(suite, run(suite))["key"])
