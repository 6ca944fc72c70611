"""Optuna's studies in a PostgreSQL server: shared, interrupted, refused, and gone."""

import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from commanded import COMMAND, frame, hptransfer
from commands import interruptible
from engines import needs_postgres
from hptransfer.analysis.frame import select
from hptransfer.records.store import Store
from openings import together

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.engine import URL

pytestmark = pytest.mark.engines
LONGER = ("--steps", "50", "--workers", "1", "--quiet")


@pytest.fixture
def suite(suite: Path) -> Path:
    """The tiny suite with fewer runs."""
    fewer = "trials = 4\nverify = false\nseeds = 1"
    suite.write_text(suite.read_text().replace("seeds = 2\nmax_seeds = 2", fewer))
    return suite


class Database:
    """An empty database on the server, and a connection to the server beside it."""

    def __init__(self, server: "URL", name: str, beside: "psycopg.Connection") -> None:
        self.address = server.set(database=name)
        self.url = self.address.render_as_string(hide_password=False)
        self.name = name
        self.beside = beside

    def trials(self) -> Counter[str]:
        """How often the studies hold each run, by its key."""
        import optuna

        storage = optuna.storages.RDBStorage(self.url)
        studies = storage.get_all_studies()
        keys = [t.user_attrs["key"] for s in studies for t in storage.get_all_trials(s._study_id)]
        storage.remove_session()
        storage.engine.dispose()
        return Counter(keys)

    def accept(self, yes: bool) -> None:
        """Take connections, or refuse new ones and end those that are open."""
        self.beside.execute(f'alter database "{self.name}" allow_connections {yes}'.encode())
        if not yes:
            end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
            self.beside.execute(end, [self.name])

    def secret_in(self, text: str) -> bool:
        """Whether a text tells the password, as it is or as the URL quotes it, or its like."""
        quoted = self.url.split("@")[0].rsplit(":", 1)[1]
        return str(self.address.password) in text or quoted in text or "cr%40et" in text


@contextmanager
def made(server: str) -> Iterator[Database]:
    import psycopg
    from sqlalchemy import make_url

    url, name = make_url(server), f"test_{uuid.uuid4().hex}"
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(plain, autocommit=True)) as beside:
        beside.execute(f'create database "{name}"'.encode())
        try:
            yield Database(url, name, beside)
        finally:
            beside.execute(f'drop database "{name}" with (force)'.encode())


@pytest.fixture
def database() -> Iterator[Database]:
    with made(needs_postgres()) as database:
        yield database


def started(suite: Path, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*COMMAND, "run", str(suite), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )


def until(process: "subprocess.Popen[str]", seen: Callable[[], bool]) -> None:
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def searched(folder: Path) -> set[str]:
    """The runs that a search has trained, by their keys."""
    store = Store(folder / "results", "tiny")
    suite = store.read_manifest()
    assert suite is not None
    rows = select(suite, store.frame())
    return set(rows["key"])


def test_two_processes_share_a_database_and_it_holds_each_run_once(
    suite: Path, tmp_path: Path, database: Database
) -> None:
    both = [started(suite, tmp_path, *LONGER, "--storage", database.url) for _ in range(2)]
    texts = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert not any(database.secret_in(text) for text in texts)
    trials = database.trials()
    assert set(trials.values()) == {1}
    assert trials.keys() == searched(tmp_path)


def test_machines_that_find_the_database_empty_at_once_all_use_it(database: Database) -> None:
    assert together(database.url) == ["used"] * 3


def test_a_run_that_is_interrupted_goes_on_and_reports_with_the_same_database(
    suite: Path, tmp_path: Path, database: Database
) -> None:
    process = started(suite, tmp_path, *LONGER, "--storage", database.url)
    until(process, lambda: any(b"\n" in p.read_bytes() for p in tmp_path.rglob("records-*.jsonl")))
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert not database.secret_in(text)
    kept = frame(tmp_path).set_index("key").finished
    again = hptransfer("run", suite, *LONGER, "--storage", database.url, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert not database.secret_in(again.stdout + again.stderr)
    after = frame(tmp_path).set_index("key").finished
    assert len(after) > len(kept)
    assert list(after.loc[kept.index]) == list(kept), "nothing was trained twice"
    assert database.trials().keys() == searched(tmp_path)
    page = (tmp_path / "results" / "tiny" / "report.html").read_text()
    assert "10/10 runs." in page
    assert not database.secret_in(page)
    texts = [path.read_bytes().decode() for path in tmp_path.rglob("*.json*")]
    assert not any(database.secret_in(text) for text in texts)


@pytest.mark.parametrize("wrong", ["password", "user", "database", "port"])
def test_a_server_that_refuses_is_one_line_without_the_password(
    wrong: str, suite: Path, tmp_path: Path, database: Database
) -> None:
    changed = {
        "password": database.address.set(password="se/cr@et:other"),
        "user": database.address.set(username="nobody"),
        "database": database.address.set(database="no_such_database"),
        "port": database.address.set(port=1),
    }
    url = changed[wrong].render_as_string(hide_password=False)
    done = hptransfer("run", suite, "--storage", url, "--yes", cwd=tmp_path)
    assert done.returncode == 2
    text = done.stdout + done.stderr
    assert text.count("error: postgresql+psycopg://127.0.0.1:") == 1
    assert "hint: " in text
    assert not database.secret_in(text)
    assert "other" not in text
    assert frame(tmp_path).empty, "it refuses before anything trains"


def test_a_server_that_goes_away_loses_no_run(
    suite: Path, tmp_path: Path, database: Database
) -> None:
    process = started(suite, tmp_path, *LONGER, "--storage", database.url)
    until(process, lambda: any(b"\n" in p.read_bytes() for p in tmp_path.rglob("records-*.jsonl")))
    database.accept(False)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "Traceback" not in text
    assert text.count("the Optuna study was not written") == 2, "once on the way, once at the end"
    assert not database.secret_in(text)
    trained = frame(tmp_path)
    database.accept(True)
    again = hptransfer("run", suite, *LONGER, "--storage", database.url, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert database.trials().keys() == searched(tmp_path)
    lines = [line for p in tmp_path.rglob("records-*.jsonl") for line in p.read_text().splitlines()]
    assert len(lines) == len(frame(tmp_path)) == len(trained), "nothing was trained twice"
