"""Loops over missing runs: each ends, or names what made no progress."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from commanded import frame, hptransfer
from frames import make_suite, record, to_frame
from hptransfer.errors import InputError
from hptransfer.records.damage import LeftOut
from hptransfer.records.store import Store
from hptransfer.run import scheduler
from hptransfer.run.workers import Pool
from hptransfer.search import bracket, proxy, samplers
from hptransfer.search.plan import forecast
from hptransfer.spec import RunRecord
from searched import make, rows, run
from sessions import session, tiny


@contextlib.contextmanager
def ends(seconds: int = 60) -> Iterator[None]:
    """A loop that is still busy by then would never end."""

    def busy(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, busy)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_changed_byte_of_a_spec_costs_one_run_and_no_command_its_end(
    suite: Path, tmp_path: Path
) -> None:
    own = (suite, "--optimizer", "scion")
    assert hptransfer("run", *own, cwd=tmp_path).returncode == 0
    whole = frame(tmp_path)
    [records] = (tmp_path / "results" / "tiny").glob("records-*.jsonl")
    records.write_text(records.read_text().replace('"linear"', '"linfar"', 1))
    note = f"{records.name}: left out 1 damaged record line (line 1: key is "
    with ends():
        done = [hptransfer(*words, cwd=tmp_path) for words in (("plan", *own), ("report", "tiny"))]
        done.append(hptransfer("run", *own, cwd=tmp_path))
    assert [each.returncode for each in done] == [0, 0, 0]
    assert all(each.stderr.count(note) == 1 for each in done)
    with pytest.warns(LeftOut):
        mended = frame(tmp_path)
    losses = whole.set_index("key")["loss"].to_dict()
    assert mended.set_index("key")["loss"].to_dict() == pytest.approx(losses, abs=1e-5)
    assert (mended["finished"] > whole["finished"].max()).sum() == 1


def test_a_forecast_whose_answers_are_not_taken_is_an_error() -> None:
    """The first row of the cell has the spec of another cell, so no answer to the cell counts."""
    suite = make_suite("adamw")
    first = record(suite.template("adamw").point(-8, 0), 32, -6.0)
    known = to_frame([{**first, "spec": {**first["spec"], "schedule": "linfar"}}])
    with ends(), pytest.raises(AssertionError, match="forecast: answered, but asked for again: "):
        forecast(suite, known)


def test_a_bracket_that_asks_for_what_it_was_told_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bracket, "bracket", lambda *_: [-5.0])
    suite = make(tmp_path)
    known = rows(suite, [((-5.0, {}), 0)])
    with ends(), pytest.raises(AssertionError, match="search: told, but asked for again"):
        proxy.propose(suite, "adamw", 32, known)


@pytest.mark.usefixtures("no_replays")
def test_a_sampler_that_is_asked_for_nothing_is_an_error(tmp_path: Path) -> None:
    """Not a search that has ended."""
    suite = make(tmp_path, sampler="tpe").model_copy(update={"ask": 0})
    with ends(), pytest.raises(AssertionError, match="tpe: no batch of the 12 trials that are"):
        run(suite)
    assert samplers._replays


def test_a_run_whose_record_goes_away_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "append", lambda self, record: None)
    running = session(tiny(tmp_path, steps=2), tmp_path)
    with ends(), pytest.raises(InputError) as caught:
        list(running.run())
    assert "the record of run " in str(caught.value)
    assert caught.value.hint


def test_a_unit_that_ends_without_its_records_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Pool.messages

    def without(self: Pool, timeout: float) -> Iterator[object]:
        return (m for m in messages(self, timeout) if not isinstance(m, RunRecord))

    monkeypatch.setattr(Pool, "messages", without)
    running = session(tiny(tmp_path, steps=2), tmp_path)
    with ends(), pytest.raises(AssertionError, match="run: ended without a record: "):
        list(running.run())


def test_a_run_with_units_left_and_none_under_way_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "start", lambda *_: [])
    running = session(tiny(tmp_path, steps=2), tmp_path)
    with ends(), pytest.raises(AssertionError, match="units are left, but none is under way"):
        list(running.run())
