"""The URL of a database: the parts that a message may show."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from commanded import hptransfer
from hptransfer.errors import InputError
from hptransfer.search import database
from openings import together


def refusal(url: str) -> str:
    with pytest.raises(InputError) as caught, database.opened(url):
        pass
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "url",
    [
        "secret",
        "me:secret@host/db",
        "sqlite:secret",
        "sqlite://me:secret@/studies.db",
        "sqlite+pysqlcipher://:secret@/studies.db",
        "sqlite:///studies.db?timeout=secret",
        "sqlite:///studies.db?secret=1",
        "postgresql:me:secret@host/db",
        "postgresql:/me:secret@host/db",
        "postgresql:///me:secret@host/db",
        "postgresql://me:secret",
        "postgresql://host:secret/db",
        "postgresql://me:p@secret:rest@host/db",
        "postgresql://me:p@s/secret@host/db",
        "postgresql://m/e:secret@host/db",
        "mysql+nodriver://me:secret@host/db?password=secret",
        "mssql+pyodbc:///?odbc_connect=PWD%3Dsecret",
    ],
)
def test_no_error_tells_what_may_be_a_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "secret" not in refusal(url)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("nodriver://me:p@host:5432/db?x=1", "nodriver://host:5432/db"),
        ("nodriver://me:p@[::1]:5432/db", "nodriver://[::1]:5432/db"),
        ("nodriver:////folder/studies.db", "nodriver:////folder/studies.db"),
    ],
)
def test_the_place_is_told_without_user_and_query(url: str, place: str) -> None:
    assert refusal(url).startswith(f"{place}: cannot be used (Can't load plugin")


def test_a_port_that_is_no_number_is_one_line_on_the_command_line(
    suite: Path, tmp_path: Path
) -> None:
    url = "postgresql://me:pass@host:secret/db"
    done = hptransfer("tune", suite, "--storage", url, "--yes", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: --storage: cannot be used (its port is not a number)\n" in done.stderr
    assert "secret" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('FATAL: access denied for user "me"', 'FATAL: access denied for user "***"'),
        ('no host "p/w@host"', "ValueError, whose message repeats a part of the URL"),
    ],
)
def test_a_server_s_reason_is_told_without_the_user_and_withheld_where_it_repeats_more(
    message: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str) -> None:
        raise OperationalError(None, None, ValueError(message)) from ValueError(message)

    monkeypatch.setattr(sqlalchemy, "create_engine", refuse)
    assert refusal("postgresql://me:p%2Fw@host/db").startswith(
        f"postgresql://host/db: cannot be used ({told})"
    )


def test_braces_of_a_url_are_no_template(tmp_path: Path) -> None:
    with database.opened(f"sqlite:///{tmp_path}/{{secret}}.db") as (storage, place):
        assert isinstance(storage, RDBStorage)
    assert place == f"sqlite:///{tmp_path}/{{secret}}.db"
    assert (tmp_path / "{secret}.db").exists()


def test_processes_that_find_a_database_empty_at_once_all_use_it(tmp_path: Path) -> None:
    assert together(f"sqlite:///{tmp_path}/studies.db") == ["used"] * 3


def test_a_database_that_is_locked_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PAUSES", (0.0, 0.0))
    url = f"sqlite:///{tmp_path}/studies.db?timeout=0.01"
    with database.opened(url):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        connection.execute("begin exclusive")
        told = refusal(url)
    assert "cannot be used (database is locked)" in told
    assert "another program writes there: wait" in told


def test_tables_that_stay_half_made_are_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PAUSES", (0.0, 0.0))
    path = tmp_path / "studies.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("create table studies (title text)")
    before = path.read_bytes()
    assert "holds tables that are not Optuna's (studies)" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before
