"""train(unit): records, divergence, memory, devices; snapshots have a file of their own."""

import json
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from hptransfer.cost.count import count
from hptransfer.errors import InputError
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.train import engine
from hptransfer.train.engine import Progress
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import prepare
from units import (
    CONTEXT,
    CPU,
    OPTIMIZERS,
    PAIRS,
    data_for,
    ladder,
    numbers,
    records,
    spec,
    stepped,
    tokens,
)

# Records


@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_the_same_unit_gives_the_same_bytes_twice(optimizer: str, model: str) -> None:
    unit = ladder(spec(optimizer, model, clip=1.0), 3)
    assert [numbers(r) for r in records(unit)] == [numbers(r) for r in records(unit)]
    assert numbers(records(unit[:1])[0]) == numbers(records(unit[:1])[0])


def test_a_record_holds_what_the_steps_gave() -> None:
    unit = ladder(spec("transported_scion", "mlp", steps=40), 2)
    running = stepped(unit)
    running.read_out()
    heldout = running.evaluate()
    for lane, record in enumerate(records(unit)):
        history = running.losses[lane]
        assert record.spec == unit[lane]
        assert record.status == "done"
        assert record.loss == heldout[lane].item()
        assert record.loss_init == history[0].item()
        assert record.train_loss == pytest.approx(history[-4:].mean().item())
        assert record.train_mean == pytest.approx(history.mean().item())
        assert record.error == ""
        assert record.seconds > 0
        assert record.env["lanes"] == 2
        assert record.env["micro_batch"] == 4
        assert record.env["kind"] == "cpu"
        assert record.env["versions"]["torch"] == torch.__version__
        json.dumps(record.env)


@pytest.mark.parametrize(("listed", "fast"), [({"avx512_bf16": True}, True), ({}, False)])
def test_a_record_says_whether_bfloat16_products_were_fast(
    listed: dict[str, bool],
    fast: bool,
    fast_bfloat16: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: listed)
    assert records([spec("scion", "mlp", steps=1)])[0].env["fast_bfloat16"] == fast


@pytest.mark.parametrize("steps", [1, 7, 50, 100, 122, 250])
def test_a_curve_has_about_50_points_and_averages_between_them(steps: int) -> None:
    record = records([spec("adamw", "mlp", steps=steps, eval_examples=4)])[0]
    assert len(record.curve) <= 62
    assert len(record.curve) >= min(steps, 40)
    assert record.curve[-1][0] == steps
    places = [int(step) for step, _ in record.curve]
    assert places == sorted(set(places))
    widths = [b - a for a, b in zip([0, *places], places, strict=False)]
    mean = sum(w * loss for w, (_, loss) in zip(widths, record.curve, strict=True)) / steps
    assert mean == pytest.approx(record.train_mean, rel=1e-5)


def test_progress_tells_the_best_loss_of_the_living_lanes() -> None:
    calm = spec("adamw", "mlp", steps=20)
    unit = [calm, calm.point(120.0, 0)]
    seen = [
        m for m in engine.train(Unit(tuple(unit)), data_for("mlp"), CPU) if isinstance(m, Progress)
    ]
    assert [p.step for p in seen] == list(range(1, 21))
    assert seen[0].keys == (unit[0].key, unit[1].key)
    assert (seen[0].alive, seen[-1].alive) == (2, 1)
    losses = stepped([calm, calm.point(120.0, 0)]).losses[0]
    assert seen[-1].loss == losses[-1].item()


# Divergence


def test_a_diverged_lane_is_a_record_and_its_neighbours_are_untouched() -> None:
    unit = ladder(spec("adamw", "mlp", steps=10), 3)
    healthy = records(unit)
    sick = records([unit[0], unit[1].point(120.0, 1), unit[2]])
    assert [r.status for r in sick] == ["done", "diverged", "done"]
    assert sick[1].loss == math.inf
    assert math.isfinite(sick[1].loss_init)
    for lane in (0, 2):
        assert numbers(sick[lane]) == numbers(healthy[lane])


@pytest.mark.parametrize("n", [1, 2])
def test_a_unit_whose_lanes_all_diverge_stops_early_and_gives_records(n: int) -> None:
    run = spec("adamw", "mlp", steps=200)
    unit = [run.point(120.0 + i, 0) for i in range(n)]
    messages = list(engine.train(Unit(tuple(unit)), data_for("mlp"), CPU))
    steps = [m.step for m in messages if isinstance(m, Progress)]
    assert steps[-1] < 20
    ends = [m for m in messages if isinstance(m, RunRecord)]
    assert [r.status for r in ends] == ["diverged"] * n
    step = sum(ends[0].probes.values())
    evaluations = run.evaluations / 3 * ends[0].probes["model_flops_per_step"]
    assert ends[0].flops == steps[-1] * step + evaluations, "of the steps that were made"
    assert all(r.loss == math.inf and r.curve[-1][0] == 200 for r in ends)
    assert [m for m in messages if isinstance(m, Progress)][-1].loss == math.inf


# Memory


def shortage(monkeypatch: pytest.MonkeyPatch, most: int) -> list[weakref.ref[Lanes]]:
    """Let a step of more than `most` lanes run out of memory; returns the units that tried."""
    tried: list[weakref.ref[Lanes]] = []
    gradients = Lanes.gradients

    def scarce(self: Lanes, t: int) -> None:
        if t == 0:
            assert all(ref() is None for ref in tried), "an earlier unit is still in memory"
            tried.append(weakref.ref(self))
        if len(self.specs) > most:
            raise torch.OutOfMemoryError("made up")
        gradients(self, t)

    monkeypatch.setattr(Lanes, "gradients", scarce)
    return tried


@pytest.mark.parametrize("most", [1, 2])
def test_a_unit_that_does_not_fit_is_split_until_it_does(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = ladder(spec("adamw", "mlp"), 5)
    whole = records(unit)
    tried = shortage(monkeypatch, most)
    parts = records(unit)
    assert [r.spec for r in parts] == unit
    assert max(r.env["lanes"] for r in parts) == most
    for part, one in zip(parts, whole, strict=True):
        assert part.loss == pytest.approx(one.loss, rel=1e-5)
    assert len(tried) > 3


def test_one_run_that_does_not_fit_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shortage(monkeypatch, 0)
    with pytest.raises(InputError) as caught:
        records(ladder(spec("adamw", "mlp"), 2))
    assert str(caught.value) == "width 16: one run does not fit in the memory of cpu"
    assert caught.value.hint.endswith("or micro_batch = 1, recompute = true in the suite")


# Devices


def test_a_device_that_is_not_there_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.pick_device("cpu") == CPU
    with pytest.raises(InputError, match=r"^device: got 'tpu', allowed: auto, cpu, cuda"):
        engine.pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine.pick_device("auto") == CPU
    with pytest.raises(InputError, match=r"^device: cuda: torch sees no CUDA device$"):
        engine.pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert engine.pick_device("auto").type == "cuda"
    assert engine.pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"^device: cuda:2: not there$"):
        engine.pick_device("cuda:2")
    for wrong in ("cuda:x", "cuda1", "cuda:"):
        with pytest.raises(InputError, match=f"^device: got '{wrong}', allowed: auto, cpu"):
            engine.pick_device(wrong)


def test_float32_is_float32_in_convolutions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    engine.pick_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def cuda_records(unit: list[RunSpec], model: str) -> Iterator[RunRecord]:
    for message in engine.train(Unit(tuple(unit)), data_for(model), torch.device("cuda")):
        if isinstance(message, RunRecord):
            yield message


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_every_optimizer_trains_on_a_gpu(optimizer: str, model: str, precision: str) -> None:
    run = spec(optimizer, model, steps=40, batch=16, precision=precision)
    first, second = cuda_records(ladder(run, 2), model)
    assert first.train_loss < first.loss_init - 0.02
    for record in (first, second):
        assert record.status == "done"
        assert record.train_loss < record.loss_init
        assert record.peak_memory > 0
        assert record.env["kind"] == "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_wide_run_of_one_lane_steps_on_a_gpu(optimizer: str) -> None:
    fields = {"n_layer": 2, "head_size": 64, "context": 128}
    run = spec(
        optimizer, "gpt", width=1024, base={"width": 64}, steps=4, batch=16,
        precision="bfloat16", model_fields=fields,
    )  # fmt: skip
    data = tokens(6000)
    cost = count(prepare(run, data))
    for record in cuda_records([run], "gpt"):
        assert record.status == "done"
        assert 0.5 * record.peak_memory < cost.memory < 2 * record.peak_memory


def test_a_context_too_long_for_the_data_is_told_by_the_engine() -> None:
    run = spec("adamw", "gpt")
    data = tokens()
    with pytest.raises(InputError, match="needs more than the context"):
        records([run], replace(data, heldout=data.heldout[:CONTEXT]))
