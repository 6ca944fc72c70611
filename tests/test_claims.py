"""Claims: one process per run, whichever process dies, with locks and without."""

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from hptransfer.records import claims
from hptransfer.records.claims import BEAT, LEASE, Claims
from stored import failure

KEYS = [f"{i:020x}" for i in range(100)]
CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _hold(folder: Path, keys: list[str], pipe: Connection, links: bool) -> None:
    """In a process: claim, send the keys won, stay until the pipe closes."""
    if not links:
        Path.symlink_to = no_links
    own = Claims(folder)
    with own.announce():
        pipe.recv()
        pipe.send(own.claim(keys))
        pipe.poll(None)


@contextmanager
def process(
    folder: Path, keys: list[str], *, links: bool = True
) -> Iterator[tuple[SpawnProcess, Connection]]:
    """Another process, which claims on command."""
    ours, theirs = CONTEXT.Pipe()
    other = CONTEXT.Process(target=_hold, args=(folder, keys, theirs, links))
    other.start()
    theirs.close()
    try:
        yield other, ours
    finally:
        other.kill()
        other.join()
        ours.close()


def kill(other: SpawnProcess) -> None:
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()


def test_a_run_is_claimed_once_and_free_when_it_is_let_go(tmp_path: Path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.announce(), two.announce():
        assert one.claim(KEYS[:2]) == set(KEYS[:2])
        assert two.claim(KEYS[:3]) == {KEYS[2]}
        assert two.taken() == dict.fromkeys(KEYS[:2], f"pid {os.getpid()}")
        assert one.taken().keys() == {KEYS[2]}
        one.release(KEYS)
        assert one.taken().keys() == {KEYS[2]}, "the claim of another is not let go"
        assert two.claim(KEYS[:1]) == {KEYS[0]}
    assert names(tmp_path) == []


def test_whoever_races_gets_what_no_other_has(tmp_path: Path) -> None:
    with (
        process(tmp_path, KEYS) as (_, a),
        process(tmp_path, KEYS) as (_, b),
        process(tmp_path, KEYS) as (_, c),
    ):
        until(lambda: len(Claims(tmp_path).others()) == 3)
        for pipe in (a, b, c):
            pipe.send("go")
        won = [key for pipe in (a, b, c) for key in pipe.recv()]
        assert sorted(won) == KEYS
        assert sorted(Claims(tmp_path).taken()) == KEYS


def test_a_live_process_is_named_and_a_dead_one_is_forgotten(tmp_path: Path) -> None:
    looking = Claims(tmp_path)
    assert (looking.others(), looking.taken()) == ([], {})
    with process(tmp_path, KEYS[:1]) as (other, pipe):
        pipe.send("go")
        pipe.recv()
        [named] = looking.others()
        assert re.fullmatch(rf"pid {other.pid} since \d\d:\d\d", named)
        kill(other)
        assert looking.others() == []
        with looking.announce():
            assert looking.others() == []
    assert names(tmp_path) == [], "the claim of the dead is cleared away"


def test_the_kernel_frees_the_claims_of_a_killed_process_at_once(tmp_path: Path) -> None:
    own = Claims(tmp_path)
    with own.announce(), process(tmp_path, KEYS[:2]) as (other, pipe):
        pipe.send("go")
        assert pipe.recv() == set(KEYS[:2])
        assert own.claim(KEYS[:2]) == set()
        kill(other)
        assert own.taken() == {}
        assert own.claim(KEYS[:2]) == set(KEYS[:2])
        own.release(KEYS[:1], recorded=True)
        assert [n for n in names(tmp_path) if n.startswith("claim-")] == [
            f"claim-{KEYS[1]}.0",
            f"claim-{KEYS[1]}.1",
        ]
    assert names(tmp_path) == []


def test_of_two_that_find_a_process_dead_one_gets_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.announce(), two.announce():
        with process(tmp_path, KEYS[:1]) as (other, pipe):
            pipe.send("go")
            pipe.recv()
            kill(other)
        late = two._last_claims()  # looks, and acts after the other has
        assert one.claim(KEYS[:1]) == {KEYS[0]}
        with monkeypatch.context() as patch:
            patch.setattr(two, "_last_claims", lambda: late)
            assert two.claim(KEYS[:1]) == set()
        one.release(KEYS[:1])  # without a record, so another process may take the run
        with monkeypatch.context() as patch:
            patch.setattr(two, "_last_claims", lambda: late)
            assert two.claim(KEYS[:1]) == {KEYS[0]}
        assert one.claim(KEYS[:1]) == set()


def test_a_process_that_begins_while_others_work_leaves_their_claims(tmp_path: Path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.announce():
        one.claim(KEYS[:1])
        with two.announce():
            pass
        with two.announce():
            assert two.claim(KEYS[:1]) == set()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_claim_lasts_as_long_as_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.announce(), two.announce():
        assert one.claim(KEYS[:1]) == {KEYS[0]}
        for skew in (-1e6, 1e6):  # the clock of this host does not matter
            monkeypatch.setattr(time, "time", lambda skew=skew: 1.7e9 + skew)
            assert two.taken().keys() == {KEYS[0]}
        path = tmp_path / one._own
        now = two._now()
        os.utime(path, (now, now - LEASE + BEAT))
        assert two.claim(KEYS[:1]) == set()
        assert len(two.others()) == 1
        os.utime(path, (now, now - LEASE - BEAT))
        assert two.taken() == {}
        assert two.claim(KEYS[:1]) == {KEYS[0]}
        assert two.others() == []
        assert not path.exists()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("no_locks")
def test_a_process_renews_its_file_and_shows_it_again_where_it_was_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.announce():
        one.claim(KEYS[:1])
        path = tmp_path / one._own
        os.utime(path, (0, 0))
        until(lambda: path.stat().st_mtime > 0)
        path.unlink()
        until(path.exists)
        assert two.taken().keys() == {KEYS[0]}
    assert names(tmp_path) == []


def test_where_the_lock_of_another_host_does_not_show_the_lease_counts(tmp_path: Path) -> None:
    own = Claims(tmp_path)
    path = tmp_path / "running-elsewhere-1-abcd0123.json"
    path.touch()
    (tmp_path / f"claim-{KEYS[0]}.0").symlink_to(path.name)
    with own.announce():
        assert own.others() == ["pid 1 on elsewhere"]
        assert own.taken() == {KEYS[0]: "pid 1 on elsewhere"}
        now = own._now()
        os.utime(path, (now, now - LEASE - 1))
        assert own.taken() == {}
        assert own.claim(KEYS[:1]) == {KEYS[0]}


def test_a_claim_that_leads_nowhere_is_nobodys(tmp_path: Path) -> None:
    own = Claims(tmp_path)
    with own.announce():
        (tmp_path / f"claim-{KEYS[0]}.3").symlink_to("running-x-1-ab.json")
        (tmp_path / f"claim-{KEYS[1]}.0").write_text("copied by a tool that follows links")
        assert own.taken() == {}
        assert own.claim(KEYS[:2]) == set(KEYS[:2])
        assert f"claim-{KEYS[0]}.4" in names(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_where_nothing_can_be_written_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    dead = f"running-{claims.HOST}-1-abcd0123.json"
    for name in (dead, "running-elsewhere-1-abcd0123.json"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    before = names(tmp_path)
    for name in ("mkdir", "unlink", "touch", "symlink_to"):
        monkeypatch.setattr(Path, name, refuse)
    own = Claims(tmp_path)
    assert own.others() == ["pid 1 on elsewhere"], "what cannot be known dead may live"
    assert own.taken() == {}
    assert names(tmp_path) == before
    error = failure(lambda: own.announce().__enter__())
    assert "cannot be written (Read-only file system)" in str(error)


def no_links(*arguments: object, **keywords: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_without_links_a_claim_is_a_file_that_holds_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "symlink_to", no_links)
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.announce(), two.announce():
        assert one.claim(KEYS[:2]) == set(KEYS[:2])
        path = tmp_path / f"claim-{KEYS[0]}.0"
        assert not path.is_symlink()
        assert path.read_text() == one._own
        assert two.claim(KEYS[:3]) == {KEYS[2]}
        assert two.taken() == dict.fromkeys(KEYS[:2], f"pid {os.getpid()}")
        late = dict.fromkeys(KEYS, (-1, ""))  # it looked before the other claimed
        monkeypatch.setattr(two, "_last_claims", lambda: late)
        assert two.claim(KEYS[:1]) == set()
        one.release(KEYS[:1])
        assert two.claim(KEYS[:1]) == {KEYS[0]}
    assert names(tmp_path) == []


def test_without_links_whoever_races_gets_what_no_other_has(tmp_path: Path) -> None:
    with (
        process(tmp_path, KEYS, links=False) as (_, a),
        process(tmp_path, KEYS, links=False) as (other, b),
    ):
        until(lambda: len(Claims(tmp_path).others()) == 2)
        for pipe in (a, b):
            pipe.send("go")
        won = [pipe.recv() for pipe in (a, b)]
        assert sorted([*won[0], *won[1]]) == KEYS
        kill(other)
        own = Claims(tmp_path)
        with own.announce():
            assert own.claim(KEYS) == won[1], "the claims of the dead are free"


@pytest.mark.parametrize("text", ["", "runn", "running-x-1-a"])
def test_a_claim_whose_text_is_not_whole_yet_is_taken_until_its_lease_is_over(
    tmp_path: Path, text: str
) -> None:
    own = Claims(tmp_path)
    path = tmp_path / f"claim-{KEYS[0]}.0"
    path.write_text(text)
    with own.announce():
        assert own.taken() == {KEYS[0]: "another process"}
        assert own.claim(KEYS[:1]) == set()
        now = own._now()
        os.utime(path, (now, now - LEASE - 1))
        assert own.taken() == {}
        assert own.claim(KEYS[:1]) == {KEYS[0]}
    assert names(tmp_path) == []


def test_a_claim_that_a_full_disk_cuts_off_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Claims(tmp_path)
    with own.announce():
        monkeypatch.setattr(Path, "symlink_to", no_links)
        real = os.write
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:4]))
        error = failure(own.claim, KEYS[:1])
        monkeypatch.undo()
        assert str(error) == (
            f"{tmp_path}/claim-{KEYS[0]}.0: cannot be written (No space left on device)"
        )
        assert own.claim(KEYS[:1]) == {KEYS[0]}
