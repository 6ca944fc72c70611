"""A database by its URL, opened for Optuna. A message shows only the place that a URL names."""

import contextlib
import re
import time
import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from hptransfer.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

_OPTUNAS = {"studies", "trials", "version_info"}
# Modules of drivers whose package has another name.
_PACKAGES = {
    "MySQLdb": "mysqlclient",
    "mysql": "mysql-connector-python",
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
}
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # seconds
# If a host or a database has other characters, the URL was split at the wrong place, such as an
# unquoted @ or / in a password. Then every part of it may be secret.
_HOST = re.compile(r"[\w.,:-]*")
_DATABASE = re.compile(r"[^@:?;=&#]*")
_HINT = (
    "give an Optuna URL such as sqlite:///studies.db, a password with %40 for @, %3A for : and "
    "%2F for /; or leave the storage out"
)


@contextlib.contextmanager
def opened(url: str) -> Generator[tuple[BaseStorage, str]]:
    """The storage, and its place: scheme, host and database, without user info and query.

    Raises InputError for a text that is no URL, a database that does not exist, a missing driver
    and another program's tables. Its message shows the place and nothing else of the URL.
    """
    from sqlalchemy.exc import SQLAlchemyError

    place = "storage"
    try:
        parsed = _parsed(url)
        place = _place(parsed)
        with _storage(url, place) as storage:
            yield storage, place
    except ImportError as error:
        raise InputError(
            f"{place} needs the package {error.name!r}, which is not installed here",
            f"pip install {_PACKAGES.get(error.name or '', error.name)}",
        ) from None
    except (SQLAlchemyError, OptunaError, RuntimeError) as error:
        why = _told(error, url, place)
        if "locked" in why and place != "storage":
            raise InputError(
                f"{place}: cannot be used ({why})",
                "another program writes there: wait until it has ended, or name another storage",
                cures=("storage",),
            ) from None
        raise _refused(place, f"cannot be used ({why})") from None


def _parsed(url: str) -> "URL":
    import sqlalchemy

    try:
        return sqlalchemy.make_url(url)
    except ValueError:
        raise _refused("storage", "cannot be used (its port is not a number)") from None


def _refused(place: str, why: str) -> InputError:
    """`storage` stands for a place that nobody may see."""
    if place == "storage":
        return InputError(why, _HINT, option="storage", cures=("storage",))
    return InputError(f"{place}: {why}", _HINT, cures=("storage",))


def _place(url: "URL") -> str:
    """`postgresql://host:5432/name`; the scheme alone where the rest may hold a password."""
    if not (_HOST.fullmatch(url.host or "") and _DATABASE.fullmatch(url.database or "")):
        return f"{url.drivername}:"
    host = f"[{url.host}]" if url.host and ":" in url.host else url.host or ""
    port = "" if url.port is None else f":{url.port}"
    database = "" if url.database is None else f"/{url.database}"
    return f"{url.drivername}://{host}{port}{database}"


@contextlib.contextmanager
def _storage(url: str, place: str) -> Generator[BaseStorage]:
    """Raises InputError for a URL that its driver refuses, and for another program's tables."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = _opened(url, place)
    except (InputError, ImportError, SQLAlchemyError, OptunaError):
        raise
    except Exception as error:  # a driver may raise anything at a URL, and repeat it
        why = _told(error, url, place)
        raise _refused(place, f"cannot be used ({why})") from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _opened(url: str, place: str) -> RDBStorage:
    """Processes that find the database empty at the same time all make its tables, and one
    succeeds: the others look again for as long as the tables are there but not whole.
    """
    from sqlalchemy.exc import DatabaseError

    engine = _engine(url, place)
    try:
        for pause in _PAUSES:
            tables = _tables(engine)
            if "studies" not in tables or tables >= _OPTUNAS:  # Optuna makes `studies` first
                break
            time.sleep(pause)
        _refuse_others(_tables(engine), place)
        for pause in _PAUSES:
            try:
                return _connected(url)
            except (DatabaseError, StorageInternalError):
                if not _tables(engine):
                    raise
            time.sleep(pause)
    finally:
        engine.dispose()
    return _connected(url)


def _connected(url: str) -> RDBStorage:
    return RDBStorage(url.replace("{", "{{").replace("}", "}}"))  # Optuna formats it


def _engine(url: str, place: str) -> "Engine":
    """Raises InputError for an argument that its driver does not take."""
    import sqlalchemy
    from sqlalchemy.exc import SAWarning

    with warnings.catch_warnings():
        # SQLAlchemy would go on without it, and print it.
        warnings.filterwarnings("error", "Query string argument", SAWarning)
        try:
            return sqlalchemy.create_engine(url)
        except SAWarning:
            raise InputError(
                f"{place}: cannot be used (its driver does not take an argument of the query)",
                "the query is what follows the ? of the URL",
            ) from None


def _tables(engine: "Engine") -> set[str]:
    import sqlalchemy

    return set(sqlalchemy.inspect(engine).get_table_names())


def _refuse_others(tables: set[str], place: str) -> None:
    if tables and not tables >= _OPTUNAS:
        raise InputError(
            f"{place}: holds tables that are not Optuna's ({', '.join(sorted(tables)[:3])})",
            "name a new or an empty database; nothing was written",
        )


def _told(error: Exception, url: str, place: str) -> str:
    """The first line of what went wrong; its kind alone where that repeats more than the place.

    A server names the user in quotes and says why: the reason is kept, the name is not.
    """
    cause = error.__cause__ or error
    line = str(cause).split("\n")[0]
    if user := re.match(r"\w[\w+]*://([^:/@]+)[:@]", url):
        line = re.sub(rf"(['\"]){re.escape(unquote_plus(user[1]))}\1", r"\1***\1", line)
    hidden = _words(url) | _words(unquote_plus(url))
    if (hidden - _words(place)) & _words(line):
        return f"{type(cause).__name__}, whose message repeats a part of the URL"
    return line


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
