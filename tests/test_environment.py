"""Environments that a command meets: streams, terminals, folders, programs that call it."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commanded import SUITE, hptransfer
from hptransfer.cli.common import nobody_reads
from hptransfer.cost.remembered import Cache
from hptransfer.datasets import text
from hptransfer.errors import InputError
from hptransfer.run import session as sessions
from hptransfer.run.events import Finished, Unwritten
from hptransfer.search import database, studies
from sessions import session, tiny

COMMAND = [sys.executable, "-m", "hptransfer"]


def environment(**changes: str) -> dict[str, str]:
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100"}
    return {**own, "OMP_NUM_THREADS": "1", **changes}


@contextlib.contextmanager
def unread():
    """The end of a pipe to write into, whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def written_suite(folder: Path) -> Path:
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 600)
    path = folder / "tiny.toml"
    path.write_text(SUITE.replace("TEXT", str(folder / "text.txt")))
    return path


@pytest.mark.parametrize("arguments", [("--help",), ("list", "models"), ("cite",)])
def test_a_reader_that_has_left_is_no_failure(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with unread() as pipe:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("list", "models"), ("list", "--json")])
def test_a_full_stdout_is_one_line(
    arguments: tuple[str, ...], unbuffered: str, tmp_path: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_no_column_counts_as_an_unknown_number_of_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "list", "models"],
        cwd=tmp_path,
        env=environment(COLUMNS="0"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "plateau" in done.stdout


SCRIPT = """
import sys
from hptransfer import cli
sys.argv = ["hptransfer", "run", "tiny.toml", "--trials", "3", "--yes", "-q", "--workers", "2"]
cli.main()
"""


def test_a_program_from_stdin_without_a_guard_trains_although_nobody_reads(tmp_path: Path) -> None:
    """The workers would run the program again, and the report came after what is printed."""
    written_suite(tmp_path)
    with unread() as pipe:
        done = subprocess.run(
            [sys.executable, "-"],
            cwd=tmp_path,
            env=environment(),
            input=SCRIPT.encode(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "results" / "tiny" / "report.html").exists()
    assert (tmp_path / "results" / "tiny" / "metrics.json").exists()


def test_temporary_files_in_a_folder_with_a_long_name_and_a_terminal_of_latin_1(
    tmp_path: Path,
) -> None:
    """No socket can lie in the folder; the terminal knows neither the curve nor the minus."""
    (tmp_path / "my suites").mkdir()
    written_suite(tmp_path / "my suites")
    long = tmp_path / ("x" * 90)
    long.mkdir()
    done = subprocess.run(
        [*COMMAND, "tune", "my suites/tiny.toml", "--trials", "3", "--yes", "--optimizer", "adamw"],
        cwd=tmp_path,
        env=environment(TMPDIR=str(long), PYTHONIOENCODING="latin-1"),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("latin-1")
    shown = done.stdout.decode("latin-1")
    assert "?" not in shown
    assert "*" in shown or "#" in shown, "the highest point of the curve"
    assert "next: hptransfer transfer 'my suites/tiny.toml' --from 8 --to WIDTH" in shown


def test_a_command_in_a_hint_can_be_typed_where_names_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "my suites").mkdir()
    written_suite(tmp_path / "my suites")
    done = hptransfer("export", "my suites/tiny.toml", "--to", 16, cwd=tmp_path)
    assert done.returncode == 2
    assert "hint: hptransfer tune 'my suites/tiny.toml' --width 8 --optimizer adamw" in done.stderr


def test_without_a_home_nothing_is_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME")
    path = text._cache_folder() / "text.npz"
    text._write_cache(path, b"a", b"b")
    assert text._read_cache(path) is None
    cache = Cache()
    cache.put("key", [1])
    assert Cache().get("key") is None


def test_a_database_that_is_locked_for_a_while_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions.Rarely, "due", lambda self: True)
    running = session(tiny(tmp_path, steps=3), tmp_path)
    sync, calls = studies.sync, []

    def locked(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise InputError("sqlite:///studies.db: cannot be used (database is locked)")
        sync(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(studies, "sync", locked)
    events = list(running.run())
    told = [event for event in events if isinstance(event, Unwritten)]
    assert [event.last for event in told] == [False]
    assert events[-1] == Finished([])
    assert len(running.store.frame()) == 2
    assert running.store.study_url().exists(), "the next time it was written"


def test_a_study_that_cannot_be_written_at_the_end_is_told_once_and_the_runs_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: object) -> None:
        raise InputError("sqlite:///studies.db: cannot be used (database is locked)")

    monkeypatch.setattr(studies, "sync", locked)
    written_suite(tmp_path)
    arguments = ("tiny.toml", "--trials", 3, "--optimizer", "adamw", "--workers", 1)
    done = hptransfer("tune", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warning = "warning: the Optuna study was not written (sqlite:///studies.db: cannot be used"
    assert done.stderr.count(f"{warning} (database is locked))") == done.stderr.count(warning) >= 1
    assert "the next command tries again" in done.stderr
    assert "best learning rate" in done.stdout


def test_the_driver_of_a_database_is_named_by_its_package() -> None:
    told = pytest.raises(InputError, match="needs the package 'MySQLdb'")
    with told as caught, database.opened("mysql://me@host/db"):
        pass
    assert caught.value.hint == "pip install mysqlclient"


def test_what_nobody_reads_goes_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    with path.open("w") as stream:
        nobody_reads(stream)
        stream.write("unread")
    assert path.read_text() == ""


def test_documents_are_utf_8_whatever_the_terminal_reads(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "cite"],
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=True,
    )
    assert "@" in done.stdout.decode("utf-8")
    assert json.dumps("?") not in done.stdout.decode("utf-8")
