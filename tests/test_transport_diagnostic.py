"""The diagnostic of transport: closed forms, a run's path, and its records on disk."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hptransfer.optimizers.rules import as_matrix
from hptransfer.optimizers.scion import LMO
from hptransfer.optimizers.transported import Transported, transported_scion
from hptransfer.records.damage import LeftOut
from hptransfer.records.diagnostics import DiagnosticStore, Point
from hptransfer.spec import Param
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import load_data
from hptransfer.transport.diagnostic import (
    MomentumNoise,
    Weights,
    _followed,
    dual_norm,
    errors,
    kappa,
    measure,
)
from transported import made_up, plain_run, tiny_study

CPU = torch.device("cpu")
HIDDEN = Param("w", "hidden", (3, 4), (3, 4))
HEAD = Param("h", "output", (2, 3), (2, 3))


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rules() -> dict[str, LMO]:
    made = {}
    for p in (HIDDEN, HEAD):
        rule = transported_scion(p, transport=0.0, polar="svd")
        assert isinstance(rule, Transported)
        made[p.name] = rule.scion
    return made


def test_on_a_quadratic_only_staleness_is_there() -> None:
    hessian = drawn(12, 12, seed=0)
    hessian = hessian + hessian.T

    def gradient(w: Weights) -> Weights:
        return {"w": (hessian @ w["w"].flatten()).reshape(3, 4)}

    at, mean, ahead = ({"w": drawn(3, 4, seed=seed)} for seed in (1, 2, 3))
    found = errors(gradient, at, mean, ahead)
    only = {"w": rules()["w"]}
    assert dual_norm(only, found.curvature) < 1e-12 * dual_norm(only, found.gradient)
    moved = gradient({"w": at["w"] - mean["w"]})
    assert dual_norm(only, found.staleness) == pytest.approx(dual_norm(only, moved))


def test_on_a_quadratic_staleness_is_what_the_momentum_is_off() -> None:
    hessian, beta = drawn(12, 12, seed=0), 0.8
    path = [drawn(12, seed=seed) for seed in range(1, 8)]
    momentum, mean, weight = torch.zeros(12).double(), torch.zeros(12).double(), 0.0
    for x in path:
        momentum = beta * momentum + (1 - beta) * (hessian @ x)
        mean = beta * mean + (1 - beta) * x
        weight = beta * weight + 1 - beta
    found = errors(
        lambda w: {"x": hessian @ w["x"]}, {"x": path[-1]}, {"x": mean / weight}, {"x": path[0]}
    )
    torch.testing.assert_close(hessian @ path[-1] - momentum / weight, found.staleness["x"])


def test_on_a_cubic_curvature_is_half_the_third_derivative_times_the_step_squared() -> None:
    third = 0.7

    def gradient(w: Weights) -> Weights:  # of third x^3 / 6, entry by entry
        return {"w": third * w["w"] ** 2 / 2}

    at, mean, ahead = ({"w": drawn(3, 4, seed=seed)} for seed in (1, 2, 3))
    found = errors(gradient, at, mean, ahead)
    torch.testing.assert_close(found.curvature["w"], third * ahead["w"] ** 2 / 2)


def test_the_dual_norm_is_the_inner_product_with_a_step_at_lr_one() -> None:
    g = {"w": drawn(3, 4, seed=1), "h": drawn(2, 3, seed=2)}
    along = 0.0
    for name, rule in rules().items():
        matrix = as_matrix(rule.p, g[name])
        along -= rule.radius * float((matrix * rule.norm.lmo(matrix.clone())).sum())
    assert dual_norm(rules(), g) == pytest.approx(along, rel=1e-5)
    assert rules()["w"].radius == 3
    assert rules()["h"].radius == 10


def test_equal_halves_leave_no_noise_and_others_that_of_an_average() -> None:
    beta, count = 0.9, 400
    noise, still = MomentumNoise(beta), MomentumNoise(beta)
    for t in range(count):
        halves = drawn(2, 5000, seed=t)
        noise.add({"w": halves})
        still.add({"w": halves[:1].expand(2, -1)})
    assert not still.read()["w"].any()
    # The mean of two halves of variance 1 has variance 1/2, its average (1-beta)/(1+beta) of that.
    expected = ((1 - beta) / (1 + beta) / 2) ** 0.5
    assert noise.read()["w"].std().item() == pytest.approx(expected, rel=0.03)


def test_a_zero_start_counts_as_an_average_whose_weights_have_the_sum_one() -> None:
    noise = MomentumNoise(0.9)
    halves = drawn(2, 7, seed=0)
    for _ in range(3):
        noise.add({"w": halves})
    torch.testing.assert_close(noise.read()["w"], (halves[0] - halves[1]) / 2)


def test_the_diagnostic_looks_as_far_ahead_as_transported_scion() -> None:
    rule = transported_scion(HIDDEN, beta=0.8, transport=1.0, transport_schedule="constant")
    assert isinstance(rule, Transported)
    w, lr = torch.zeros(1, 3, 4), torch.tensor(0.1)
    state = rule.init_state(w)
    for t in range(4):
        from hptransfer.optimizers.rules import Step

        w, state = rule.update(drawn(1, 3, 4, seed=t).float(), state, w, Step(t, lr, lr, lr))
        assert state["ahead"].item() == pytest.approx(kappa(0.8, t + 1), rel=1e-5)


def test_the_path_is_that_of_the_run(tmp_path: Path) -> None:
    run = plain_run(tiny_study(tmp_path))
    data = load_data(run.data)
    now, mean, last, noise = _followed(Lanes([run], data, CPU), 3, 0.8)
    lanes = Lanes([run], data, CPU)
    path = []
    for t in range(4):
        path.append({name: leaf.detach().clone() for name, leaf in lanes.leaves.items()})
        lanes.gradients(t)
        lanes.update(t)
    weights = [0.2 * 0.8**k for k in (3, 2, 1, 0)]
    for name in now:
        assert torch.equal(now[name], path[3][name])
        assert torch.equal(last[name], path[3][name] - path[2][name])
        average = sum(c * x[name] for c, x in zip(weights, path, strict=True)) / sum(weights)
        torch.testing.assert_close(mean[name], average)
    assert noise.weight == pytest.approx(sum(weights))


def test_noise_is_half_the_difference_of_the_gradients_of_half_batches(tmp_path: Path) -> None:
    run = plain_run(tiny_study(tmp_path))
    data = load_data(run.data)
    *_, noise = _followed(Lanes([run], data, CPU), 0, 0.8)
    lanes = Lanes([run], data, CPU)
    x, y, _ = lanes.batches.train(0)
    halves = []
    for part in (slice(0, 4), slice(4, 8)):
        loss = lanes.loss({}, x[part], y[part])
        halves.append(torch.autograd.grad(loss, list(lanes.leaves.values())))
    for name, first, second in zip(lanes.leaves, *halves, strict=True):
        torch.testing.assert_close(noise.read()[name], (first - second) / 2)


def test_a_measured_diagnostic_comes_back_from_the_disk(tmp_path: Path) -> None:
    run = plain_run(tiny_study(tmp_path))
    found = measure(Point(run, 3, 32), load_data(run.data), CPU)
    assert 0 < found.staleness <= 1.5 * found.staleness_half
    assert found.noise > 0
    assert found.ahead_seconds > 0
    store = DiagnosticStore(tmp_path, "tiny")
    store.append(found)
    assert DiagnosticStore(tmp_path, "tiny").read() == {found.point.key: found}


def test_a_damaged_diagnostic_is_left_out_with_a_warning(tmp_path: Path) -> None:
    run = plain_run(tiny_study(tmp_path))
    [first, second] = made_up(run, [0.1, 0.1], [1.0, 1.0], [1.0, 1.0]).diagnostics
    store = DiagnosticStore(tmp_path, "tiny")
    store.append(first)
    store.append(dataclasses.replace(second, noise=-1.0))
    with pytest.warns(LeftOut, match="noise is -1.0"):
        assert store.read() == {first.point.key: first}
    [path] = store.folder.glob("diagnostics-*.jsonl")
    path.write_text(path.read_text().replace('"step":3', '"step":4'))
    with pytest.warns(LeftOut, match="not that of the point"):
        assert DiagnosticStore(tmp_path, "tiny").read() == {}


def test_a_run_with_transport_has_no_diagnostic(tmp_path: Path) -> None:
    run = plain_run(tiny_study(tmp_path))
    moved = dataclasses.replace(run, hp={**run.hp, "transport": 0.5})
    with pytest.raises(AssertionError, match="without transport"):
        measure(Point(moved, 3, 32), load_data(run.data), CPU)
