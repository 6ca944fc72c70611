"""Gradient accumulation and recomputation, which change no loss; and freed memory."""

import gc
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hptransfer.cost import machine
from hptransfer.cost.count import Cost, count
from hptransfer.models.gpt import GPT, Block
from hptransfer.run.session import Options, Session
from hptransfer.suite.file import load_suite
from hptransfer.train import memory
from hptransfer.train.prepare import prepare
from units import CONTEXT, data_for, lanes, records, spec, stepped, weights


@pytest.mark.parametrize("model", ["gpt", "vit"])
def test_recomputing_changes_no_weight(model: str) -> None:
    run = spec("scion_unconstrained", model, model_fields={"n_layer": 2})
    plain = stepped([run])
    again = stepped([run], recompute=True)
    assert again.recompute
    for name, w in weights(plain).items():
        assert torch.equal(weights(again)[name], w)


def test_recomputing_calls_every_block_twice_a_step() -> None:
    run = spec("adamw", "gpt", steps=1, model_fields={"n_layer": 3})
    calls = []
    for recompute in (False, True):
        running = stepped([run], steps=0, recompute=recompute)
        count = 0

        def seen(*_: object) -> None:
            nonlocal count
            count += 1

        assert isinstance(running.model, GPT)
        for block in running.model.blocks:
            assert isinstance(block, Block)
            block.up.register_forward_hook(seen)
        running.gradients(0)
        calls.append(count)
    assert calls == [3, 6]


def test_the_estimate_of_recomputed_blocks_is_their_inputs_and_one_block() -> None:
    def cost(n_layer: int) -> Cost:
        return count(
            prepare(spec("adamw", "gpt", model_fields={"n_layer": n_layer}), data_for("gpt"))
        )

    two, six = cost(2), cost(6)
    inputs = 4 * 4 * CONTEXT * 16  # float32, batch, tokens, width
    block = (six.activations - two.activations) / 4
    assert block > 10 * inputs
    # the first block's input is saved outside too, so the count may include it twice
    assert six.recomputed - two.recomputed == pytest.approx(4 * inputs, rel=0.3)
    assert six.recomputed < six.activations - 4 * block + 4 * 2 * inputs + block


@pytest.mark.parametrize("context", [8, 256])
def test_the_estimate_of_activations_is_what_a_forward_pass_saves(context: int) -> None:
    """The count leaves out attention's scores, (context, context) per head."""
    run = spec("adamw", "gpt", batch=2, model_fields={"n_layer": 2, "context": context})
    running = lanes([run])
    x = torch.zeros(2, context, dtype=torch.long)
    weights = {p.untyped_storage().data_ptr() for p in running.model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(running.model(x).flatten(0, -2), x.flatten())
    measured = sum(storage.nbytes() for storage in saved.values())
    assert count(prepare(run, data_for("gpt"))).activations == pytest.approx(measured, rel=0.05)


def test_a_model_without_blocks_has_nothing_to_recompute() -> None:
    cost = count(prepare(spec("adamw", "mlp"), data_for("mlp")))
    assert cost.recomputed == cost.activations


def test_a_session_accumulates_where_the_memory_is_short_and_records_it(
    tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"name": "file", "path": str(tiny_text)}
    changes = {
        "data": data,
        "steps": 2,
        "trials": 1,
        "proxy": 32,
        "targets": [],
        "waypoints": [],
        "batch": 16,
        "expect": {},
    }
    suite = load_suite("gpt_width", {**changes, "eval_tokens": 1024})
    session = Session(suite, Options(tmp_path, workers=1, lanes=1), ["adamw"])
    cost = session.costs.cost(session.plan()[0])
    room = (cost.fixed + cost.activations // 3) / 0.9
    monkeypatch.setattr(machine, "memory_of", lambda device: room)
    assert session.costs.placement(session.plan()[0]).micro_batch == 4
    for _ in session.run():
        pass
    env = session.store.frame()["env"].iloc[0]
    assert (env["micro_batch"], env["recompute"]) == (4, False)


@pytest.mark.skipif(not memory._reset_peak(), reason="the system resets no peak")
def test_the_peak_of_a_narrow_run_is_not_that_of_a_wide_one_before_it() -> None:
    """The memory is within the accuracy of the estimate, whatever this process needed before."""
    runs = [spec("adamw", "mlp", width=n, base={"width": 64}, steps=3) for n in (1024, 64, 1024)]
    gc.collect()
    wide, narrow, again = (records([run])[0].peak_memory for run in runs)
    expected = count(prepare(runs[0], data_for("mlp"))).memory
    assert narrow < expected / 8  # 0 if the process holds enough already
    assert 0.4 * expected < wide < 2 * expected
    assert 0.4 * expected < again < 2 * expected


@pytest.mark.parametrize("missing", ["STATUS", "CLEAR_REFS"])
def test_a_peak_that_the_system_does_not_tell_is_recorded_as_unknown(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, missing, tmp_path / "no proc" / "file")
    assert records([spec("adamw", "mlp", width=1024, steps=1)])[0].peak_memory == 0


FREED = """
import ctypes, sys
from hptransfer.train import engine, memory
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] != "as it is":
    engine.configure(1)
before = libc.sbrk(0)
libc.free(libc.malloc(24 << 20))
if sys.argv[1] == "returned":
    memory.return_freed_memory()
print(libc.sbrk(0) - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
@pytest.mark.parametrize(
    ("how", "kept"), [("configured", 24 << 20), ("returned", 0), ("as it is", 0)]
)
def test_a_freed_block_stays_with_a_configured_process_until_it_is_returned(
    how: str, kept: int
) -> None:
    grown = int(subprocess.check_output([sys.executable, "-c", FREED, how], text=True))
    assert abs(grown - kept) < 1 << 20
