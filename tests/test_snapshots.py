"""Snapshots: a run goes on from one bit for bit, and starts anew from a damaged one."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hptransfer.cli.progress import Live
from hptransfer.run.session import Finished
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.train import engine, snapshots
from hptransfer.train.engine import Progress, Restarted, Snapshot
from hptransfer.train.groups import GROUP_ELEMENTS
from sessions import session, tiny
from units import CPU, PAIRS, data_for, ladder, lanes, numbers, records, spec


def halted(run: RunSpec, path: Path, step: int = 4) -> None:
    """The snapshot of a run on an MLP after its first step."""
    for message in engine.train(Unit((run,)), data_for("mlp"), CPU, snapshot_seconds=0):
        if isinstance(message, Snapshot) and message.step == step:
            message.write(path)
            return


def resumed(run: RunSpec, path: Path) -> tuple[RunRecord, list[str], int]:
    """The record, the reasons of new starts, and the first step."""
    messages = list(engine.train(Unit((run,)), data_for("mlp"), CPU, resume=path))
    (record,) = (m for m in messages if isinstance(m, RunRecord))
    first = next(m.step for m in messages if isinstance(m, Progress))
    return record, [m.reason for m in messages if isinstance(m, Restarted)], first


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    optimizer: str, model: str, n: int, tmp_path: Path
) -> None:
    unit = ladder(spec(optimizer, model, clip=1.0), n)
    whole = records(unit)
    path = tmp_path / "snapshot.pt"
    for message in engine.train(Unit(tuple(unit)), data_for(model), CPU, snapshot_seconds=0):
        if isinstance(message, Snapshot) and message.step == 4:
            message.write(path)
            break
    messages = list(engine.train(Unit(tuple(unit)), data_for(model), CPU, resume=path))
    assert [m.step for m in messages if isinstance(m, Progress)] == [5, 6]
    again = [m for m in messages if isinstance(m, RunRecord)]
    assert [numbers(r) for r in again] == [numbers(r) for r in whole]
    assert [r.flops for r in again] == [r.flops for r in whole]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "ema_nesterov", "scion_light", "transported_scion"])
def test_a_snapshot_of_a_device_that_groups_otherwise_is_gone_on_from(
    optimizer: str, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = ladder(spec(optimizer, "gpt"), n)
    whole = records(unit)
    path = tmp_path / "snapshot.pt"
    with monkeypatch.context() as elsewhere:
        elsewhere.setitem(GROUP_ELEMENTS, "cpu", 1)
        training = engine.train(Unit(tuple(unit)), data_for("gpt"), CPU, snapshot_seconds=0)
        next(m for m in training if isinstance(m, Snapshot) and m.step == 4).write(path)
    groups = torch.load(path, weights_only=True)["groups"]
    assert len(groups) > len(lanes(unit, data_for("gpt")).groups)
    messages = list(engine.train(Unit(tuple(unit)), data_for("gpt"), CPU, resume=path))
    assert [m.step for m in messages if isinstance(m, Progress)] == [5, 6]
    ends = [m.loss for m in messages if isinstance(m, RunRecord)]
    assert ends == pytest.approx([r.loss for r in whole], rel=1e-4)


def test_a_snapshot_comes_after_its_time_and_never_after_the_last_step() -> None:
    unit = [spec("adamw", "mlp", steps=5)]
    data = data_for("mlp")
    often = list(engine.train(Unit(tuple(unit)), data, CPU, snapshot_seconds=0))
    assert [m.step for m in often if isinstance(m, Snapshot)] == [1, 2, 3, 4]
    assert {m.key for m in often if isinstance(m, Snapshot)} == {Unit(tuple(unit)).key}
    seldom = list(engine.train(Unit(tuple(unit)), data, CPU))
    assert not any(isinstance(m, Snapshot) for m in seldom)


def test_a_snapshot_of_other_runs_or_another_version_starts_anew(tmp_path: Path) -> None:
    run, path = spec("adamw", "mlp"), tmp_path / "snapshot.pt"
    for message in engine.train(Unit((run,)), data_for("mlp"), CPU, snapshot_seconds=0):
        if isinstance(message, Snapshot):
            message.write(path)
    other = run.point(-5.0, 0)
    assert numbers(records([other], resume=path)[0]) == numbers(records([other])[0])
    older = {k: v for k, v in torch.load(path, weights_only=True).items() if k != "format"}
    torch.save({**older, "seconds": 1000.0}, path)
    assert records([run], resume=path)[0].seconds < 1000


def test_the_time_before_an_interruption_counts(tmp_path: Path) -> None:
    run, path = spec("adamw", "mlp"), tmp_path / "snapshot.pt"
    for message in engine.train(Unit((run,)), data_for("mlp"), CPU, snapshot_seconds=0):
        if isinstance(message, Snapshot):
            message.write(path)
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "seconds": 1000.0}, path)
    assert records([run], resume=path)[0].seconds > 1000


# Damage


def saved_again(**changes: Any) -> Callable[[bytes], bytes]:
    """The same snapshot with other entries, well formed; None removes an entry."""

    def change(whole: bytes) -> bytes:
        saved = {**torch.load(io.BytesIO(whole), weights_only=True), **changes}
        file = io.BytesIO()
        torch.save({k: v for k, v in saved.items() if v is not None}, file)
        return file.getvalue()

    return change


def of_a_list(_: bytes) -> bytes:
    file = io.BytesIO()
    torch.save([1], file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda _: b"", "is damaged", id="empty"),
        pytest.param(lambda _: b"no snapshot" * 100, "is damaged", id="text"),
        pytest.param(lambda whole: whole[: len(whole) // 2], "is damaged", id="half"),
        pytest.param(lambda whole: whole[:-1], "is damaged", id="one byte short"),
        pytest.param(of_a_list, "is damaged (holds a list)", id="a list"),
        pytest.param(saved_again(step=0), "is of step 0 of 6", id="step 0"),
        pytest.param(saved_again(step=6), "is of step 6 of 6", id="the last step"),
        pytest.param(saved_again(step="x"), "lacks", id="no step"),
        pytest.param(saved_again(groups=None), "lacks", id="no groups"),
        pytest.param(saved_again(groups=[]), "lacks", id="no parameters"),
        pytest.param(saved_again(losses=torch.zeros(3, 9)), "lacks", id="another shape"),
        pytest.param(saved_again(keys=("x",)), "is of other runs", id="other runs"),
        pytest.param(saved_again(keys=None), "lacks", id="no runs"),
        pytest.param(saved_again(format=1), "is of another version", id="an older version"),
        pytest.param(saved_again(format=None), "is of another version", id="no version"),
    ],
)
def test_a_run_whose_snapshot_cannot_be_used_starts_anew_and_says_so(
    damage: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    run, path = spec("adamw", "mlp"), tmp_path / "snapshot.pt"
    halted(run, path)
    path.write_bytes(damage(path.read_bytes()))
    record, (told,), first = resumed(run, path)
    assert told.startswith(f"its snapshot {reason}")
    assert "\n" not in told
    assert first == 1
    assert numbers(record) == numbers(records([run])[0])


def test_no_changed_byte_changes_a_loss(tmp_path: Path) -> None:
    """Torch does not compare the checksums, so a flipped bit of a weight would go unseen."""
    run, path = spec("adamw", "mlp"), tmp_path / "snapshot.pt"
    halted(run, path)
    whole, expected = path.read_bytes(), numbers(records([run])[0])
    assert resumed(run, path)[1:] == ([], 5)
    chance = random.Random(0)
    anew = 0
    for _ in range(60):
        at = chance.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
        record, reasons, first = resumed(run, path)
        assert numbers(record) == expected
        assert first == (1 if reasons else 5)
        anew += len(reasons)
    assert anew > 20  # other bytes are padding


def test_memory_that_is_too_little_for_a_snapshot_is_not_its_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path = spec("adamw", "mlp"), tmp_path / "snapshot.pt"
    halted(run, path)

    def full(saved: object) -> None:
        raise torch.OutOfMemoryError

    running = lanes([run])
    monkeypatch.setattr(running, "restore", full)
    with pytest.raises(torch.OutOfMemoryError):
        snapshots.restore(running, path)


def test_a_session_goes_on_where_a_snapshot_is_damaged_and_says_so(tmp_path: Path) -> None:
    suite = tiny(tmp_path, optimizers={"adamw": {"lr": "2^-4..2^-3", "trials": 2}})
    losses = {
        e.key: e.loss for e in session(suite, tmp_path / "whole").run() if isinstance(e, RunRecord)
    }
    events = session(suite, tmp_path / "cut", snapshot_seconds=0.0).run()
    for event in events:
        if isinstance(event, Progress) and event.step >= 15:
            events.close()
    damaged = list((tmp_path / "cut" / "tiny" / "snapshots").glob("*.pt"))
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-100])

    again = session(suite, tmp_path / "cut")
    text = io.StringIO()
    seen = []
    with Live(Console(file=text, width=60), again, quiet=False) as live:
        for event in again.run():
            live.show(event)
            seen.append(event)
    assert seen[-1] == Finished([])
    assert {e.key: e.loss for e in seen if isinstance(e, RunRecord)} == losses
    told = [line for line in text.getvalue().splitlines() if line.startswith("note: ")]
    assert len(told) == len(damaged)
    assert told[0].startswith("note: adamw width 8  2^-")
    assert " starts anew: its snapshot is damaged (" in told[0]
