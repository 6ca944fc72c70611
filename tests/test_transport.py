"""Transported Scion: the momentum it promises, X and Y, and the strength of transport."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hptransfer.optimizers.scion import Transported, transported_scion
from hptransfer.spec import Param
from units import EMBEDDING, HIDDEN, OUTPUT, at, lanes, random, records, spec, stepped, weights


def quadratic(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Gradient of a strictly convex quadratic: H1 (X - A) H2."""
    rows, columns = random(shape[0], shape[0], seed=5), random(shape[1], shape[1], seed=6)
    h1 = rows @ rows.mT + torch.eye(shape[0]).double()
    h2 = columns @ columns.mT + torch.eye(shape[1]).double()
    a = random(*shape, seed=7)
    return lambda x: h1 @ (x - a) @ h2


@pytest.mark.parametrize("p", [HIDDEN, EMBEDDING, OUTPUT], ids=lambda p: p.role)
@pytest.mark.parametrize("start", ["first", "zero"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "warm-up"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.95])
def test_the_transported_momentum_is_the_gradient_at_x_on_a_noiseless_quadratic(
    p: Param, start: str, schedule: str, beta: float
) -> None:
    """After a zero start the average has weight 1 - beta^t, t the gradients in it.

    m' = beta m + (1 - beta) g(Y), m = (1 - beta^t) g(X_prev), must be (1 - beta^(t+1)) g(X), so
    (1 - beta) kappa_t = beta (1 - beta^t).
    """
    rule = transported_scion(
        p,
        beta=beta,
        transport=1.0,
        transport_schedule="constant",
        start=start,
        polar="svd",  # type: ignore[arg-type]
    )
    gradient, total = quadratic(p.shape), 40
    factors = {
        "constant": [1.0] * (total + 1),
        "linear": [1 - t / total for t in range(total + 1)],
        "warm-up": [min(1.0, (t + 1) / 10) for t in range(total + 1)],
    }[schedule]
    w = random(1, *p.shape, seed=8)
    state = rule.init_state(w)
    for t in range(total):
        x = rule.readout(w, state)
        step = at(t, 0.02 * factors[t], 0.02 * factors[t + 1], 0.02)
        w, state = rule.update(gradient(w), state, w, step)
        weight = 1.0 if start == "first" else 1 - beta ** (t + 1)
        true = gradient(x)
        assert (state["m"] / weight - true).abs().max() <= 1e-12 * true.abs().max()
    ahead = (w - rule.readout(w, state)).abs().max()
    assert (ahead > 0) == (beta > 0)


@pytest.mark.parametrize("transport", [0.25, 1.0])
@pytest.mark.parametrize("transport_schedule", ["constant", "decay"])
def test_transported_scion_follows_its_recursion_with_x_and_y_kept_apart(
    transport: float, transport_schedule: str
) -> None:
    beta, total, peak = 0.8, 12, 0.1
    rule = transported_scion(
        HIDDEN,
        beta=beta,
        transport=transport,
        transport_schedule=transport_schedule,
        polar="svd",  # type: ignore[arg-type]
    )
    target = random(12, 8, seed=9)
    rates = [peak * (1 - t / total) for t in range(total + 1)]
    w = random(1, 12, 8, seed=8)
    state = rule.init_state(w)
    x = x_before = w[0]
    m = torch.zeros_like(x)
    for t in range(total):
        s = transport * (1 - rates[t] / peak) if transport_schedule == "decay" else transport
        y = x + s * beta / (1 - beta) * (x - x_before)
        torch.testing.assert_close(w[0], y, rtol=0, atol=1e-12)
        g = torch.tanh(y - target)
        m = beta * m + (1 - beta) * g if t else g
        u, _, vh = torch.linalg.svd(m, full_matrices=False)
        x_before, x = x, x - rates[t] * 3.0 * math.sqrt(12 / 8) * u @ vh
        w, state = rule.update(
            torch.tanh(w - target), state, w, at(t, rates[t], rates[t + 1], peak)
        )
    torch.testing.assert_close(rule.readout(w, state)[0], x, rtol=0, atol=1e-12)
    assert (w[0] - x).abs().max() > 1e-4


@pytest.mark.parametrize("model", ["gpt", "mlp"])
@pytest.mark.parametrize("start", ["zero", "first"])
def test_transport_zero_is_unconstrained_scion_bit_for_bit(model: str, start: str) -> None:
    plain = spec("scion_unconstrained", model, hp={"start": start})
    still = spec("transported_scion", model, hp={"start": start, "transport": 0.0})
    a, b = stepped([plain]), stepped([still])
    assert torch.equal(a.losses, b.losses)
    assert all(torch.equal(w, weights(b)[name]) for name, w in weights(a).items())
    moving = stepped([spec("transported_scion", model, hp={"start": start})])
    assert not torch.equal(a.losses, moving.losses)


@pytest.mark.parametrize("n", [1, 3])
def test_a_transported_run_is_evaluated_at_x_and_never_at_y(n: int) -> None:
    hp = {"transport": 1.0, "transport_schedule": "constant"}
    run = spec("transported_scion", "mlp", hp=hp, schedule="constant")
    unit = [run.point(run.log2_lr - i, 0) for i in range(n)]
    running = stepped(unit, steps=0)
    x = [weights(running, lane) for lane in range(n)]
    for t in range(run.steps):
        running.gradients(t)
        running.update(t)
        for group in running.groups:  # X moves by u, whatever the weights hold
            for i, name in enumerate(group.names):
                for lane in range(n):
                    u = group.state["u"][i]
                    x[lane][name] += u if running.single else u[lane]
    at_y = running.evaluate()
    running.read_out()
    for lane in range(n):
        for name, w in weights(running, lane).items():
            torch.testing.assert_close(w, x[lane][name], rtol=0, atol=1e-5)
    at_x = running.evaluate()
    given = torch.tensor([record.loss for record in records(unit)])
    torch.testing.assert_close(given, at_x, rtol=1e-6, atol=0)
    assert (at_y - at_x).abs().max() > 1e-2


def strengths(schedule: str, warmup: float, transport_schedule: str) -> list[float]:
    """s kappa / kappa after every step of a 4-step run with transport 0.5 and beta 0.9."""
    hp = {"transport": 0.5, "transport_schedule": transport_schedule}
    run = spec("transported_scion", "mlp", steps=4, schedule=schedule, warmup=warmup, hp=hp)
    running = lanes([run], dtype=torch.float64)
    found = []
    for t in range(4):
        running.gradients(t)
        running.update(t)
        aheads = [group.state["ahead"].flatten() / 9 for group in running.groups]
        assert torch.cat(aheads).unique().numel() == 1  # Y is one point of the network
        found.append(aheads[0][0].item())
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup", "transport_schedule", "expected"),
    [
        ("linear", 0.0, "decay", [0.125, 0.25, 0.375, 0.5]),
        ("linear", 0.0, "constant", [0.5, 0.5, 0.5, 0.5]),
        ("constant", 0.0, "decay", [0.0, 0.0, 0.0, 0.0]),
        ("linear", 0.5, "decay", [0.0, 0.0, 0.25, 0.5]),
        ("linear", 1.0, "decay", [0.0, 0.0, 0.0, 0.5]),
    ],
)
def test_the_strength_of_transport_grows_as_the_lr_decays(
    schedule: str, warmup: float, transport_schedule: str, expected: list[float]
) -> None:
    assert strengths(schedule, warmup, transport_schedule) == pytest.approx(expected, abs=1e-12)


def test_kappa_grows_with_the_gradients_in_the_buffer_after_a_zero_start() -> None:
    zero = transported_scion(HIDDEN, beta=0.9, start="zero")
    first = transported_scion(HIDDEN, beta=0.9, start="first")
    assert isinstance(zero, Transported) and isinstance(first, Transported)
    assert zero.kappa(at(0)) == pytest.approx(0.9)  # one gradient: 0.9 (1 - 0.9) / 0.1
    assert zero.kappa(at(1)) == pytest.approx(0.9 * 1.9)
    assert zero.kappa(at(500)) == pytest.approx(9.0)
    assert first.kappa(at(0)) == pytest.approx(9.0)
