"""Sessions: resume, failed runs, memory, and every built-in suite at its smallest size."""

from pathlib import Path

import pytest

from hptransfer.cost.placement import Placement
from hptransfer.run.rarely import Rarely
from hptransfer.run.session import Event, Finished, Started, Status
from hptransfer.run.workers import Ended, Job
from hptransfer.spec import RunRecord, Unit
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import load_suite, suite_names
from hptransfer.train import engine
from searched import built
from sessions import session, tiny

SMALLEST = {"steps": 2, "eval_tokens": 64, "trials": 2, "seeds": 1, "max_seeds": 1, "verify": False}
AXIS = {"width": (32, 64), "depth": (2, 4), "batch_size": (4, 8)}


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_runs_at_its_smallest_size(name: str, tmp_path: Path) -> None:
    proxy, target = AXIS[load_suite(name).axis]
    smallest = dict(SMALLEST)
    if load_suite(name).tokens is not None:  # one step of the larger batch in the smallest budget
        del smallest["steps"]
        smallest["tokens"] = 4 * target * 64
    suite = load_suite(name, {**smallest, "proxy": proxy, "targets": [target], "waypoints": []})
    done = session(suite, tmp_path, workers=2, lanes=4)
    events = list(done.run())
    assert isinstance(events[-1], Finished)
    assert events[-1].failed == []
    rows = done.rows()
    assert set(rows.optimizer) == set(suite.optimizers)
    assert set(rows.n) == {proxy, target}
    assert done.plan() == []


def test_a_run_that_is_killed_goes_on_from_its_snapshot_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    suite = tiny(tmp_path)
    whole = session(suite, tmp_path / "whole")
    losses = {e.key: e.loss for e in whole.run() if isinstance(e, RunRecord)}

    cut = session(suite, tmp_path / "cut", snapshot_seconds=0.0)
    events = cut.run()
    for event in events:
        if isinstance(event, engine.Progress) and event.step >= 15:
            events.close()  # ends the worker during its run
    assert list((tmp_path / "cut" / "tiny" / "snapshots").glob("*.pt"))
    assert cut.known() == 0

    resumed = session(suite, tmp_path / "cut", snapshot_seconds=0.0)
    events = list(resumed.run())
    first: dict[str, int] = {}
    for event in events:
        if isinstance(event, engine.Progress):
            first.setdefault(event.keys[0], event.step)
    assert max(first.values()) > 10, "a unit does not begin at step 0 again"
    assert {e.key: e.loss for e in events if isinstance(e, RunRecord)} == losses
    assert not list((tmp_path / "cut" / "tiny" / "snapshots").glob("*.pt"))


def test_a_run_whose_worker_is_killed_goes_on_from_its_snapshot_next_time(
    tmp_path: Path,
) -> None:
    suite = tiny(tmp_path, steps=600)  # so many that no run is over when the first one shows up
    cut = session(suite, tmp_path, snapshot_seconds=0.0)
    event: Event | None = None
    for event in cut.run():
        if isinstance(event, engine.Progress) and event.step >= 15:
            for process in cut.pool._processes.values():
                process.kill()
    assert isinstance(event, Finished)
    assert event.failed
    assert all(ended.died for ended in event.failed)

    first: dict[str, int] = {}
    for event in session(suite, tmp_path, snapshot_seconds=0.0).run():
        if isinstance(event, engine.Progress):
            first.setdefault(event.keys[0], event.step)
    assert max(first.values()) > 10, "a unit does not begin at step 0 again"
    assert event == Finished([])
    assert not list((tmp_path / "tiny" / "snapshots").glob("*.pt"))


def test_a_search_alone_leaves_the_report_to_what_was_carried(tmp_path: Path) -> None:
    """The same suite at another proxy, without targets; but other runs are another suite."""
    suite = tiny(tmp_path, targets=[16])

    def kept(changed: SuiteTable) -> tuple[int, list[int]]:
        made = session(changed, tmp_path)
        made.store.write_manifest(made._reported())
        manifest = made.store.read_manifest()
        assert manifest is not None
        return manifest.proxy, manifest.targets

    search = suite.narrowed(proxy=24, targets=[])
    assert kept(search) == (24, [])
    assert kept(suite) == (8, [16])
    assert kept(search) == (8, [16])
    assert kept(suite.narrowed(proxy=24, targets=[32])) == (24, [32])
    assert kept(search.model_copy(update={"steps": 7})) == (24, [])


def test_a_failing_run_is_recorded_once_and_the_others_finish(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from hptransfer.optimizers.adamw import adamw\n\n\n"
        "class Breaking:\n"
        "    def __init__(self, rule):\n"
        "        self.init_weight, self.init_state = rule.init_weight, rule.init_state\n"
        "        self.rule = rule\n\n"
        "    def update(self, g, state, w, step):\n"
        "        if step.t == 5:\n"
        "            raise RuntimeError('broken on purpose')\n"
        "        return self.rule.update(g, state, w, step)\n\n\n"
        "def mine(p, *, weight_decay: float = 0.1):\n"
        '    """AdamW that breaks."""\n'
        "    return Breaking(adamw(p, weight_decay=weight_decay))\n"
    )
    text = tiny(tmp_path).data
    suite = tiny(
        tmp_path,
        data=text,
        optimizers={
            "adamw": {"lr": "2^-6..2^-5", "trials": 2},
            "mine": {"use": f"{plugin}:mine", "lr": "2^-6..2^-5", "trials": 2},
        },
    )
    running = session(suite, tmp_path / "results")
    events = list(running.run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert len(finished.failed) == 2
    assert finished.failed[0].error == "RuntimeError: broken on purpose"
    assert "Traceback" in finished.failed[0].traceback
    frame = running.store.frame()
    assert sorted(frame.status) == ["done", "done", "failed", "failed"]
    assert "broken on purpose" in frame[frame.status == "failed"].error.iloc[0]
    assert {spec.optimizer["name"] for spec in running.plan()} == {"mine"}


def test_a_worker_whose_parent_goes_with_messages_unread_ends_quietly(tmp_path: Path) -> None:
    waiting = session(tiny(tmp_path), tmp_path, workers=1)
    with waiting.pool as pool:
        pool.submit(Job(Unit((waiting.plan()[0],)), {"name": "none"}, "cpu", Placement()))
        ((pipe, process),) = pool._processes.items()
        assert pipe.poll(60), "an answer: no such data"
        pipe.close()  # with the answer unread the worker meets a reset, not an end of file
        process.join(60)
        assert process.exitcode == 0


def test_a_worker_whose_gpu_failed_says_so_and_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later call would fail too, so the pool starts another server."""
    plugin = tmp_path / "lost.py"
    plugin.write_text(
        "import torch\n\n\n"
        "def lost(p, *, beta: float = 0.9):\n"
        '    """An optimizer on a GPU that fails."""\n'
        "    raise torch.AcceleratorError('CUDA error: made up')\n"
    )
    suite = tiny(tmp_path, optimizers={"lost": {"use": f"{plugin}:lost", "lr": "2^-6..2^-5"}})
    waiting = session(suite, tmp_path, workers=1)
    with waiting.pool as pool:
        pool.submit(Job(Unit((waiting.plan()[0],)), waiting.suite.data, "cpu", Placement()))
        ((_, process),) = pool._processes.items()
        [ended] = list(pool.messages(timeout=60))
        assert isinstance(ended, Ended)
        assert "CUDA error: made up" in ended.error
        process.join(60)
        assert process.exitcode == 1
        pool.start(1)
        assert [p.is_alive() for p in pool._processes.values()] == [True]


def test_a_job_for_a_worker_that_has_just_died_ends_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = session(tiny(tmp_path), tmp_path, workers=1)
    monkeypatch.setattr(waiting.pool, "_forget_the_dead", lambda: None)  # it looked a moment ago
    with waiting.pool as pool:
        pool.start(1)
        ((_, process),) = pool._processes.items()
        process.kill()
        process.join()
        pool.submit(Job(Unit((waiting.plan()[0],)), waiting.suite.data, "cpu", Placement()))
        [ended] = list(pool.messages(timeout=10))
    assert isinstance(ended, Ended)
    assert "its process died" in ended.error


@pytest.mark.usefixtures("no_replays")
def test_the_forecasts_of_a_session_cost_no_replay_of_its_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forecasts answer with made-up losses, which the search would have to forget."""
    begun = built(monkeypatch)
    monkeypatch.setattr(Rarely, "due", lambda self: True)
    table = {"lr": "2^-6..2^-2", "trials": 8, "sampler": "tpe"}
    suite = tiny(tmp_path, steps=2, optimizers={"transported_scion": table}, ask=2)
    running = session(suite, tmp_path, workers=1)
    events = list(running.run())
    assert len([e for e in events if isinstance(e, Status)]) > 4
    assert events[-1] == Finished([])
    assert begun == ["tpe"]


def test_the_status_counts_down_and_ends_at_zero(tmp_path: Path) -> None:
    events = list(session(tiny(tmp_path, steps=3), tmp_path).run())
    counts = [(e.done, e.left) for e in events if isinstance(e, Status)]
    assert counts[0] == (0, 2)
    assert counts[-1] == (2, 0)
    assert len([e for e in events if isinstance(e, Started)]) == 2
