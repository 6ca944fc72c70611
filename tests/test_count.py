"""The cost of a run: parameters, FLOPs, memory."""

import pytest

from hptransfer import registry
from hptransfer.cost.count import count
from hptransfer.cost.placement import Placement
from hptransfer.cost.speed import time_steps
from hptransfer.spec import Param, RunRecord, RunSpec, Unit
from hptransfer.train import engine
from hptransfer.train.prepare import prepare
from units import CPU, PAIRS, VOCAB, data_for, lanes, records, spec, weights


def ladder(run: RunSpec, n: int) -> list[RunSpec]:
    return [run.point(run.log2_lr - i, i % 2) for i in range(n)]


def test_flops_of_a_gpt_are_6_a_weight_and_token_and_those_of_attention() -> None:
    width, layers, batch, context = 64, 2, 4, 32
    fields = {"n_layer": layers, "head_size": 32, "context": context}
    base = {"width": 32}
    run = spec("adamw", "gpt", width=width, base=base, batch=batch, steps=3, model_fields=fields)
    record = records([run])[0]
    matrices = layers * 12 * width**2 + width * VOCAB  # an embedding is a lookup, not a product
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


def test_what_is_known_of_a_run_is_not_determined_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = spec("scion", "mlp", steps=2), data_for("mlp")
    first = records([run])[0]
    known = prepare(run, data)
    params = [Param.from_json(p.to_json()) for p in known.params]
    flops = count(known).flops
    monkeypatch.setattr(engine, "counted_step", None)
    monkeypatch.setattr("hptransfer.train.prepare.describe_params", None)
    prepared = prepare(run, data, params=params, flops=flops)
    events = engine.train(Unit((run,)), data, CPU, prepared=prepared)
    [again] = [event for event in events if isinstance(event, RunRecord)]
    assert (again.probes, again.flops, again.loss) == (first.probes, first.flops, first.loss)


def test_the_parts_of_a_prepared_run_are_not_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, data = spec("scion", "mlp", steps=2), data_for("mlp")
    prepared = prepare(run, data)

    def look_up(kind: str, table: object) -> None:
        raise AssertionError(f"{kind} looked up again")

    monkeypatch.setattr(registry, "load_spec", look_up)
    count(prepared)
    time_steps(prepared, CPU, 2, Placement())
    list(engine.train(Unit((run,)), data, CPU, prepared=prepared))
    with pytest.raises(AssertionError, match="optimizer looked up again"):
        prepare(run, data)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_the_estimate_on_the_meta_device_agrees_with_the_counters(
    optimizer: str, model: str, n: int
) -> None:
    run = spec(optimizer, model, steps=2, batch=8)
    cost = count(prepare(run, data_for(model)))
    probes = records(ladder(run, n))[n - 1].probes
    assert cost.model_flops == probes["model_flops_per_step"]
    assert cost.optimizer_flops == probes["optimizer_flops_per_step"]
    running = lanes([run])
    assert cost.parameters == sum(w.numel() for w in weights(running).values())
    running.gradients(0)
    held = sum(t.numel() * 4 for g in running.groups for t in (g.w, *g.g, *g.state.values()))
    assert held <= cost.memory <= held + 2**24
