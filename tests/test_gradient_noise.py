"""Gradient noise on small models: gradients one by one, norms, averages, and an end-to-end law."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hptransfer.analysis import tails
from hptransfer.datasets import Examples
from hptransfer.errors import InputError
from hptransfer.spec import Param
from hptransfer.train import gradient_noise
from hptransfer.train.lanes import Lanes
from units import CPU, MODELS, data_for, digits, spec, stepped, weights


def drawn(running: Lanes, n: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return gradient_noise._taken(gradient_noise._examples(running), n, batch)


@pytest.mark.parametrize("model", MODELS)
def test_every_gradient_is_the_one_that_training_takes_on_its_batch(model: str) -> None:
    running = stepped([spec("adamw", model)], 3)
    x, y = drawn(running, 3, 4)
    names = list(running.leaves)
    found = gradient_noise.gradients(running, names, x, y)
    for i in range(3):
        running.accumulate(x[i], y[i], True)
        for name, g in zip(names, found, strict=True):
            assert running.leaves[name].grad is not None
            torch.testing.assert_close(g[i], running.leaves[name].grad, msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_of_a_batch_is_the_mean_over_its_examples(model: str) -> None:
    running = stepped([spec("adamw", model)], 3)
    x, y = drawn(running, 8, 1)
    names = list(running.leaves)
    single = gradient_noise.gradients(running, names, x, y)
    [*whole] = gradient_noise.gradients(running, names, x.movedim(1, 0), y.movedim(1, 0))
    for one, all_ in zip(single, whole, strict=True):
        torch.testing.assert_close(one.mean(0), all_[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "optimizer", ["adamw", "transported_scion", "scion_light", "torch.optim:Adagrad"]
)
def test_measuring_leaves_a_run_as_it_was_bit_for_bit(optimizer: str) -> None:
    run = spec(optimizer)
    alone, watched = stepped([run]), stepped([run], 0)
    for t in range(run.steps):
        gradient_noise.gradients(watched, list(watched.leaves), *drawn(watched, 2, 1))
        watched.gradients(t)
        watched.update(t)
    assert torch.equal(alone.losses, watched.losses)
    for name, w in weights(alone).items():
        assert torch.equal(weights(watched)[name], w), name


def test_batches_of_their_own_follow_each_other_and_come_after_those_of_the_run() -> None:
    run = spec("adamw", "mlp", batch=4, steps=5)
    running = stepped([run], 0)
    x, _ = drawn(running, 3, 2)
    fresh = torch.cat([running.batches.train(t)[0] for t in (5, 6)])
    assert torch.equal(x.flatten(0, 1), fresh[:6])
    stream = gradient_noise._examples(running)
    first, second = (gradient_noise._taken(stream, 2, 4)[0] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (4, 3, 3, 3)])
def test_norms_and_averages_are_those_of_the_differences(shape: tuple[int, ...]) -> None:
    d = torch.randn(40, *shape, generator=torch.Generator().manual_seed(0))
    gathered = gradient_noise._Gathered(Param("a.weight", "hidden", shape, shape))
    gathered.add(d[:24])
    gathered.add(d[24:])
    found = gathered.noise(3, 1)
    flat = d.flatten(2)
    assert (found.layer, found.kind, found.step, found.batch) == ("a", "hidden", 3, 1)
    assert found.frobenius == pytest.approx(torch.linalg.matrix_norm(flat).numpy())
    assert found.spectral == pytest.approx(torch.linalg.matrix_norm(flat, 2).numpy(), rel=1e-3)
    assert np.array_equal(found.entries, d.double().flatten().numpy())
    pairs = flat.unflatten(0, (20, 2)).mean(1)
    assert list(found.averages) == [1, 2]  # of 4 there are fewer than LEAST_AVERAGES
    assert found.averages[2] == pytest.approx(torch.linalg.matrix_norm(pairs).mean().item())


def test_the_spectral_norm_stands_repeated_and_vanishing_singular_values() -> None:
    u, v = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    rank_one = u[:, :, None] * v[:, None, :]
    exact = torch.linalg.vector_norm(u, dim=1) * torch.linalg.vector_norm(v, dim=1)
    torch.testing.assert_close(gradient_noise._spectral(rank_one), exact)
    repeated = torch.eye(64)[None] * torch.tensor([1.0, 0.0])[:, None, None]
    found = gradient_noise._spectral(repeated)
    assert found.tolist() == [pytest.approx(1, rel=3e-3), 0.0]


@pytest.mark.parametrize("unit", [0.0, 1e-25, 1e25])
def test_noise_whose_squares_leave_the_range_of_floats_has_its_norms(unit: float) -> None:
    d = torch.eye(3)[None] * unit * torch.tensor([1.0, 2.0, 3.0])
    gathered = gradient_noise._Gathered(Param("a.weight", "hidden", (3, 3), (3, 3)))
    gathered.add(d)
    assert gathered.spectral[0].item() == pytest.approx(3 * unit, rel=1e-6, abs=0)
    assert gathered.frobenius[0].item() == pytest.approx(14**0.5 * unit, rel=1e-6, abs=0)


def test_a_run_is_measured_at_four_moments_with_one_example_and_with_its_batch() -> None:
    run = spec("adamw", "gpt", steps=20)
    pieces = list(gradient_noise.measure(run, data_for("gpt"), CPU, pairs=102))
    places = [(step, batch) for step in (0, 2, 10, 20) for batch in (1, 4)]
    assert [(p.step, p.batch) for p in pieces] == [x for x in places for _ in range(4)]
    assert [p.pairs for p in pieces[:4]] == [26, 51, 76, 102]
    assert [bool(p.layers) for p in pieces] == [False, False, False, True] * 8
    layers = [layer for p in pieces for layer in p.layers]
    assert {len(each.frobenius) for each in layers} == {102}
    kinds = {each.layer: each.kind for each in layers}
    assert kinds["embedding"] == "embedding"
    assert kinds["blocks.0.q"] == "hidden"
    assert kinds["head"] == "output"
    assert len(kinds) == 8


def test_the_noise_is_that_of_differences_of_independent_gradients() -> None:
    run = spec("adamw", "mlp", steps=1)
    first = next(
        p for p in gradient_noise.measure(run, data_for("mlp"), CPU, pairs=100) if p.layers
    )
    running = stepped([run], 0)
    names = [f"{layer.layer}.weight" for layer in first.layers]
    x, y = drawn(running, 50, 1)  # 25 pairs are a piece
    for layer, g in zip(first.layers, gradient_noise.gradients(running, names, x, y), strict=True):
        sizes = torch.linalg.matrix_norm(g[::2] - g[1::2])
        assert layer.frobenius[:25] == pytest.approx(sizes.numpy())


def test_a_measurement_is_the_same_twice() -> None:
    run = spec("adamw", "mlp", steps=4)
    one, two = (
        [layer for p in gradient_noise.measure(run, data_for("mlp"), CPU, pairs=100)
         for layer in p.layers]
        for _ in range(2)
    )  # fmt: skip
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.frobenius, b.frobenius)


def test_few_steps_and_a_batch_of_one_are_measured_once_each() -> None:
    assert gradient_noise.moments(100) == [0, 10, 50, 100]
    assert gradient_noise.moments(1) == [0, 1]
    assert gradient_noise.batches(spec(batch=1)) == [1]


@pytest.mark.parametrize(("index", "verdict"), [(1.2, "heavy"), (np.inf, "light")])
def test_inputs_with_a_power_tail_give_the_layers_its_index(index: float, verdict: str) -> None:
    """The head's gradient is (p - y) h, and h has the size of the image."""
    small = digits(20_000)
    rng = np.random.default_rng(0)
    x = small.x_train
    if np.isfinite(index):
        x = x * (1 + rng.pareto(index, (len(x), 1, 1, 1))).astype(np.float32)
    data: Examples = replace(small, x_train=x, y_train=rng.integers(0, 5, len(x)))
    run = spec("adamw", "mlp", steps=1)
    first = next(p for p in gradient_noise.measure(run, data, CPU, pairs=2048) if p.layers)
    for layer in first.layers:
        assert tails.tail(layer.frobenius).verdict == verdict, layer.layer
        assert tails.tail(layer.spectral).verdict == verdict, layer.layer


def test_a_run_that_diverges_says_so_and_how_to_cure_it() -> None:
    """After one step its weights are not finite, and every loss so far was."""
    run = spec("sgd", "mlp", log2_lr=140.0)
    with pytest.raises(InputError, match="diverged by step 1") as error:
        list(gradient_noise.measure(run, data_for("mlp"), CPU, pairs=100))
    assert "tune" in error.value.hint
