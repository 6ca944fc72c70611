"""What a run costs: FLOPs, memory, the number of lanes, seconds."""

from typing import Any

import pytest
import torch

from hptransfer.cost import estimate
from hptransfer.errors import InputError
from hptransfer.spec import Param, RunRecord, RunSpec
from hptransfer.train import engine
from hptransfer.train.build import Described, describe_params
from units import CPU, PAIRS, VOCAB, data_for, lanes, records, spec, weights


def ladder(run: RunSpec, n: int) -> list[RunSpec]:
    return [run.point(run.log2_lr - i, i % 2) for i in range(n)]


def test_flops_of_a_gpt_are_6_a_weight_and_token_and_those_of_attention() -> None:
    width, layers, batch, context = 64, 2, 4, 32
    fields = {"n_layer": layers, "head_size": 32, "context": context}
    base = {"width": 32}
    run = spec("adamw", "gpt", width=width, base=base, batch=batch, steps=3, model_fields=fields)
    record = records([run])[0]
    matrices = layers * 12 * width**2 + width * VOCAB  # an embedding is looked up, not multiplied
    products = 6 * matrices * batch * context
    # q k^T and its product with v: once forward, twice backward, causal or not
    attention = 3 * 4 * batch * layers * context**2 * width
    counted = record.probes["model_flops_per_step"]
    assert counted == products + attention
    assert record.probes["optimizer_flops_per_step"] == 0
    assert record.flops == pytest.approx((3 + 2 / 3) * counted)  # steps, and 2 evaluations


def test_flops_of_an_mlp_are_those_of_its_three_products() -> None:
    run = spec("scion", "mlp", batch=10)
    first, second, head = 16 * 16, 16 * 16, 16 * 5
    probes = records([run])[0].probes
    # no gradient flows into the images
    assert probes["model_flops_per_step"] == 2 * 10 * (2 * first + 3 * second + 3 * head)
    # 8 steps of 3 products of 16 x 16 matrices, for the first and the second
    assert probes["optimizer_flops_per_step"] == 2 * 8 * 3 * 2 * 16**3


def test_what_is_described_is_not_found_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = spec("scion", "mlp", steps=2)
    found = records([run])[0]
    params = [Param.from_json(p.to_json()) for p in describe_params(run, data_for("mlp"))]
    known = Described(params, estimate.estimate(run, data_for("mlp")).flops)
    monkeypatch.setattr(engine, "_counted_step", None)
    monkeypatch.setattr("hptransfer.train.lanes.describe_params", None)
    events = engine.train([run], data_for("mlp"), CPU, described=known)
    [told] = [event for event in events if isinstance(event, RunRecord)]
    assert (told.probes, told.flops, told.loss) == (found.probes, found.flops, found.loss)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_the_estimate_on_the_meta_device_agrees_with_the_counters(
    optimizer: str, model: str, n: int
) -> None:
    run = spec(optimizer, model, steps=2, batch=8)
    cost = estimate.estimate(run, data_for(model))
    probes = records(ladder(run, n))[n - 1].probes
    assert cost.model_flops == probes["model_flops_per_step"]
    assert cost.optimizer_flops == probes["optimizer_flops_per_step"]
    running = lanes([run])
    assert cost.parameters == sum(w.numel() for w in weights(running).values())
    running.gradients(0)
    held = sum(t.numel() * 4 for g in running.groups for t in (g.w, *g.g, *g.state.values()))
    assert held <= cost.memory <= held + 2**24


def test_speed_is_measured_and_the_fastest_number_of_lanes_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, data = spec("adamw", "mlp"), data_for("mlp")
    real = estimate.measure(run, data, CPU, 2)
    assert real.lanes == 2
    assert real.step > 0
    assert real.run(run) == pytest.approx(6 * real.step + 2 * real.evaluation)

    def fake(spec: RunSpec, data: Any, device: Any, n: int, **_: Any) -> estimate.Speed:
        return estimate.Speed(n, {1: 1e-3, 4: 4e-4, 8: 2e-4, 16: 3e-4}[n], 1e-4)

    monkeypatch.setattr(estimate, "measure", fake)
    assert estimate.calibrate(run, data, CPU).lanes == 8
    shares = [estimate.Share(2, 1), estimate.Share(1, 2)]

    def together(share: estimate.Share, n: int) -> estimate.Speed:
        assert share == shares[0], "a short step is not timed with more threads"
        return estimate.Speed(n, 1.0, 2.0, 2)

    found = estimate.calibrate(run, data, CPU, shares, together)
    assert found == estimate.Speed(8, 1.0, 2.0, 2)
    assert found.shared == 0.5


@pytest.mark.parametrize(
    ("steps", "processes", "looks"),
    [
        ({4: [4.0], 2: [1.9]}, 4, "42"),  # no tenth saved: the rest is not looked at
        ({4: [4.0, 4.0], 2: [1.7], 1: [0.8]}, 2, "4241"),
        ({4: [4.0, 4.0], 2: [1.7, 1.8], 1: [0.7]}, 1, "42412"),
        ({4: [4.0], 2: []}, 4, "42"),  # whose process died
        ({4: [4.0, 3.6], 2: [1.7]}, 4, "424"),  # the first was slow, and is not when timed again
    ],
)
def test_fewer_processes_with_more_threads_are_chosen_where_they_save_a_tenth(
    monkeypatch: pytest.MonkeyPatch, steps: dict[int, list[float]], processes: int, looks: str
) -> None:
    long = estimate.Speed(1, 2 * estimate.LONG_STEP, 1e-4)
    monkeypatch.setattr(estimate, "measure", lambda *_, **__: long)
    shares = [estimate.Share(4, 1), estimate.Share(2, 2), estimate.Share(1, 4)]
    looked = []

    def together(share: estimate.Share, n: int) -> estimate.Speed:
        assert n == 1
        looked.append(share.processes)
        if not steps[share.processes]:
            raise InputError("timed in 2 workers: its process died")
        return estimate.Speed(n, steps[share.processes].pop(0), 1e-4, share.processes)

    found = estimate.calibrate(spec("adamw", "mlp"), data_for("mlp"), CPU, shares, together)
    assert found.processes == processes
    assert "".join(map(str, looked)) == looks


def test_more_lanes_are_not_chosen_for_one_slow_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = {1: [1e-3, 5e-4], 4: [6e-4]}  # one lane was slow, and is not when it is timed again

    def fake(spec: RunSpec, data: Any, device: Any, n: int, **_: Any) -> estimate.Speed:
        return estimate.Speed(n, looks[n].pop(0), 1e-4)

    monkeypatch.setattr(estimate, "measure", fake)
    found = estimate.calibrate(spec("adamw", "mlp"), data_for("mlp"), CPU)
    assert (found.lanes, found.step) == (1, 5e-4)


@pytest.mark.parametrize(("listed", "rate"), [({"avx512_bf16": True}, 4e6), ({}, 0.5e6)])
def test_a_run_too_heavy_to_time_is_extrapolated(
    listed: dict[str, bool],
    rate: float,
    fast_bfloat16: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The optimizer's products are faster than the model's only where bfloat16 is."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: listed)
    monkeypatch.setattr(estimate, "SLOW_STEP_FLOPS", 1.0)
    monkeypatch.setattr(estimate, "matmul_rate", lambda device: 1e6)
    monkeypatch.setattr(estimate, "MODEL_EFFICIENCY", 0.5)
    monkeypatch.setattr(estimate, "OPTIMIZER_EFFICIENCY", 4.0)
    run, data = spec("scion", "mlp"), data_for("mlp")
    cost = estimate.estimate(run, data)
    assert cost.optimizer_flops > 0
    speed = estimate.calibrate(run, data, CPU)
    assert speed.lanes == 1
    assert speed.step == pytest.approx(cost.model_flops / 0.5e6 + cost.optimizer_flops / rate)


def test_where_only_time_counts_no_weight_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Semi-orthogonal matrices of a wide model take longer than the steps that are timed."""
    run = spec("scion", "gpt")
    shapes = {name: w.shape for name, w in weights(lanes([run])).items()}

    def init(*_: Any) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("hptransfer.optimizers.scion.LMO.init_weight", init)
    with pytest.raises(AssertionError, match="drawn"):
        lanes([run])
    rough = weights(lanes([run], drawn=False))
    assert {name: w.shape for name, w in rough.items()} == shapes
    for n in (1, 3):
        assert estimate.measure(run, data_for("gpt"), CPU, n).step > 0


def test_lanes_that_do_not_fit_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    room = 4

    def fake(spec: RunSpec, data: Any, device: Any, n: int, **_: Any) -> estimate.Speed:
        if n > room:
            raise torch.OutOfMemoryError("made up")
        return estimate.Speed(n, 1e-3 / n, 1e-4)

    monkeypatch.setattr(estimate, "measure", fake)
    run, data = spec("adamw", "mlp"), data_for("mlp")
    assert estimate.calibrate(run, data, CPU).lanes == 4
    room = 0
    with pytest.raises(InputError, match="width 16: one run does not fit in the memory of cpu"):
        estimate.calibrate(run, data, CPU)
