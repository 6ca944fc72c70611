"""Transported Scion: its momentum, X and Y, and the strength of transport."""

import io
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from hptransfer.optimizers.rules import Rule, State, init_state, readout
from hptransfer.optimizers.scion import Start, scion, scion_unconstrained
from hptransfer.optimizers.transported import Store, TransportSchedule, transported_scion
from hptransfer.spec import Param
from units import EMBEDDING, HIDDEN, OUTPUT, at, lanes, random, records, spec, stepped, weights

constant = partial(transported_scion, transport=1.0, transport_schedule="constant", polar="svd")


def quadratic(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Gradient of a strictly convex quadratic: H1 (X - A) H2."""
    rows, columns = random(shape[0], shape[0], seed=5), random(shape[1], shape[1], seed=6)
    h1 = rows @ rows.mT + torch.eye(shape[0]).double()
    h2 = columns @ columns.mT + torch.eye(shape[1]).double()
    a = random(*shape, seed=7)
    return lambda x: h1 @ (x - a) @ h2


def rates_of(schedule: str, total: int = 40, peak: float = 0.02) -> list[float]:
    """The lr of every step, and of one more step."""
    factors = {
        "constant": [1.0] * (total + 1),
        "linear": [1 - t / total for t in range(total + 1)],
        "warm-up": [min(1.0, (t + 1) / 10) for t in range(total + 1)],
    }[schedule]
    return [peak * factor for factor in factors]


@pytest.mark.parametrize("p", [HIDDEN, EMBEDDING, OUTPUT], ids=lambda p: p.role)
@pytest.mark.parametrize("start", ["first", "zero"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "warm-up"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(
    ("store", "constrained"),
    [("displacement", False), ("recompute", False), ("displacement", True)],
)
def test_the_transported_momentum_is_the_gradient_at_x_on_a_noiseless_quadratic(
    p: Param, start: Start, schedule: str, beta: float, store: Store, constrained: bool
) -> None:
    """After a zero start the average has weight 1 - beta^t, t the gradients in it.

    m' = beta m + (1 - beta) g(Y), m = (1 - beta^t) g(X_prev), must be (1 - beta^(t+1)) g(X), so
    (1 - beta) kappa_t = beta (1 - beta^t).
    """
    rule = constant(p, beta=beta, start=start, store=store, constrained=constrained)
    gradient, rates = quadratic(p.shape), rates_of(schedule)
    w = random(1, *p.shape, seed=8)
    state = init_state(rule, w)
    for t in range(40):
        x = readout(rule, w, state)
        w, state = rule.update(gradient(w), state, w, at(t, rates[t], rates[t + 1], max(rates)))
        weight = 1.0 if start == "first" else 1 - beta ** (t + 1)
        true = gradient(x)
        assert (state["m"] / weight - true).abs().max() <= 1e-12 * true.abs().max()
    ahead = (w - readout(rule, w, state)).abs().max()
    assert (ahead > 0) == (beta > 0)


@pytest.mark.parametrize("start", ["first", "zero"])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize(
    "beta_at",
    [lambda t: 0.5 + 0.45 * t / 40, lambda t: 0.9 - 0.8 * (t % 2), lambda t: 1 - (t + 2) ** -0.5],
    ids=["growing", "alternating", "1 - 1/sqrt(t)"],
)
def test_the_transported_momentum_is_exact_under_a_beta_that_changes(
    start: Start, schedule: str, beta_at: Callable[[int], float]
) -> None:
    """The beta of the step that uses Y decides its place; another beta is not exact."""
    gradient, rates = quadratic(HIDDEN.shape), rates_of(schedule)
    for lookahead, exact in ((1, True), (0, False)):
        w = random(1, *HIDDEN.shape, seed=8)
        state = constant(HIDDEN, start=start).init_state(w) if start == "first" else {}
        worst, weight = 0.0, float(start == "first")
        for t in range(40):
            rule = constant(HIDDEN, beta=beta_at(t), start=start)
            state = state or init_state(rule, w)
            true = gradient(readout(rule, w, state))
            step = at(t, rates[t], rates[t + 1], 0.02)
            w, state = rule.advance(gradient(w), state, w, step, beta_at(t + lookahead))
            weight = beta_at(t) * weight + (1 - beta_at(t))
            error = (state["m"] / weight - true).abs().max() / true.abs().max()
            worst = max(worst, error.item())
        assert (worst < 1e-11) == exact


def test_lanes_of_different_beta_place_their_y_each_for_itself() -> None:
    betas, p = torch.tensor([0.0, 0.5, 0.95], dtype=torch.float64), HIDDEN
    gradient, rates = quadratic(p.shape), rates_of("linear")

    def one(beta: Tensor, cap: Tensor, g: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        # under vmap a real hyperparameter is a tensor
        rule = constant(p, beta=beta, kappa_cap=cap, start="zero")  # pyright: ignore[reportArgumentType]
        return rule.update(g, state, w, step)

    caps = torch.full((3,), 1e6, dtype=torch.float64)
    w = random(1, *p.shape, seed=8).expand(3, 1, *p.shape).clone()
    state = torch.vmap(constant(p, start="zero").init_state)(w)
    x = w
    for t in range(40):
        step = at(t, rates[t], rates[t + 1], 0.02)
        true = gradient(x)
        w, state = torch.vmap(one)(betas, caps, gradient(w), state, w)
        weight = (1 - betas ** (t + 1)).view(3, 1, 1, 1)
        assert (state["m"] / weight - true).abs().max() <= 1e-11 * true.abs().max()
        x = torch.vmap(constant(p, start="zero").readout)(w, state)


@pytest.mark.parametrize("transport", [0.25, 1.0])
@pytest.mark.parametrize("transport_schedule", ["constant", "decay"])
def test_transported_scion_follows_its_recursion_with_x_and_y_kept_apart(
    transport: float, transport_schedule: TransportSchedule
) -> None:
    beta, total, peak = 0.8, 12, 0.1
    rule = transported_scion(
        HIDDEN,
        beta=beta,
        transport=transport,
        transport_schedule=transport_schedule,
        polar="svd",
        start="first",
    )
    target = random(12, 8, seed=9)
    rates = [peak * (1 - t / total) for t in range(total + 1)]
    w = random(1, 12, 8, seed=8)
    state = init_state(rule, w)
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
    torch.testing.assert_close(readout(rule, w, state)[0], x, rtol=0, atol=1e-12)
    assert (w[0] - x).abs().max() > 1e-4


@pytest.mark.parametrize("model", ["gpt", "mlp"])
@pytest.mark.parametrize("start", ["zero", "first"])
@pytest.mark.parametrize(
    "form", [{}, {"store": "recompute"}, {"constrained": True}, {"kappa_warmup": True}], ids=str
)
def test_transport_zero_is_scion_bit_for_bit(
    model: str, start: str, form: dict[str, object]
) -> None:
    name = "scion" if "constrained" in form else "scion_unconstrained"
    hp = {"start": start, **form}
    a = stepped([spec(name, model, hp={"start": start}, log2_lr=-4.0)])
    b = stepped([spec("transported_scion", model, hp={**hp, "transport": 0.0})])
    assert torch.equal(a.losses, b.losses)
    b.read_out()
    assert all(torch.equal(w, weights(b)[name]) for name, w in weights(a).items())
    moving = stepped([spec("transported_scion", model, hp=hp)])
    assert not torch.equal(a.losses, moving.losses)


@pytest.mark.parametrize(("transport", "cap"), [(0.0, 1e6), (0.5, 0.0)])
@pytest.mark.parametrize("constrained", [False, True])
def test_no_transport_and_a_cap_of_zero_are_scion(
    transport: float, cap: float, constrained: bool
) -> None:
    plain: Rule = (scion if constrained else scion_unconstrained)(HIDDEN)
    still = transported_scion(
        HIDDEN,
        transport=transport,
        transport_schedule="constant",
        kappa_cap=cap,
        constrained=constrained,
    )
    a = b = random(1, 12, 8)
    state_a, state_b = init_state(plain, a), init_state(still, b)
    for t in range(8):
        a, state_a = plain.update(torch.tanh(a), state_a, a, at(t, 0.1))
        b, state_b = still.update(torch.tanh(b), state_b, b, at(t, 0.1))
        assert torch.equal(a, b)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("start", ["zero", "first"])
def test_recomputing_the_displacement_changes_no_bit_and_holds_no_buffer(
    n: int, start: str
) -> None:
    for model in ("gpt", "mlp"):
        ends = []
        for store in ("displacement", "recompute"):
            hp = {"store": store, "start": start}
            run = spec("transported_scion", model, hp=hp)
            running = stepped([run.point(run.log2_lr - i, 0) for i in range(n)])
            whole = {k for g in running.groups for k, v in g.state.items() if v.shape == g.w.shape}
            assert whole == ({"m", "u"} if store == "displacement" else {"m"})
            running.read_out()
            ends.append((running.losses, weights(running, n - 1)))
        assert torch.equal(ends[0][0], ends[1][0])
        assert all(torch.equal(w, ends[1][1][name]) for name, w in ends[0][1].items())


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "hp", [{}, {"store": "recompute", "start": "zero"}, {"constrained": True}], ids=str
)
def test_saving_at_y_and_going_on_is_the_same_bit_for_bit(n: int, hp: dict[str, object]) -> None:
    hp = {"transport": 1.0, "transport_schedule": "constant", **hp}
    run = spec("transported_scion", "gpt", hp=hp)
    unit = [run.point(run.log2_lr - i, 0) for i in range(n)]
    whole, first = stepped(unit), stepped(unit, steps=3)
    saved = io.BytesIO()
    torch.save(first.snapshot(), saved)
    first.read_out()  # a look at X, which spoils values without a copy
    again = lanes(unit)
    saved.seek(0)
    again.restore(torch.load(saved, weights_only=True))
    for t in range(3, run.steps):
        again.gradients(t)
        again.update(t)
    assert torch.equal(again.losses, whole.losses)
    for running in (whole, again):
        running.read_out()
    for lane in range(n):
        assert all(
            torch.equal(w, weights(again, lane)[name]) for name, w in weights(whole, lane).items()
        )


@pytest.mark.parametrize("store", ["displacement", "recompute"])
def test_reading_x_leaves_the_training_alone(store: Store) -> None:
    rule = constant(HIDDEN, store=store)
    ends = []
    for looks in (False, True):
        w = random(1, 12, 8)
        state = init_state(rule, w)
        for t in range(6):
            if looks:
                readout(rule, w, state).zero_()
            w, state = rule.update(torch.tanh(w), state, w, at(t, 0.1))
        ends.append(w)
    assert torch.equal(*ends)


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
        for group in running.groups:  # X moves by u, whichever point the weights hold
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
    hp = {"transport": 0.5, "transport_schedule": transport_schedule, "start": "first"}
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


def kappas(
    steps: int, *, start: Start, kappa_cap: float = 1e6, kappa_warmup: bool = False
) -> list[float]:
    """s kappa after each of the first steps, with s = 1."""
    rule = constant(HIDDEN, beta=0.9, start=start, kappa_cap=kappa_cap, kappa_warmup=kappa_warmup)
    w = random(1, 12, 8)
    state, found = init_state(rule, w), []
    for t in range(steps):
        w, state = rule.update(torch.tanh(w), state, w, at(t, 0.1))
        found.append(state["ahead"].item())
    return found


def test_kappa_grows_with_the_gradients_in_the_buffer_after_a_zero_start() -> None:
    zero = kappas(200, start="zero")
    assert zero[:2] == pytest.approx([0.9, 0.9 * 1.9])  # one gradient: 0.9 (1 - 0.9) / 0.1
    assert zero[-1] == pytest.approx(9.0)
    assert kappas(3, start="first") == pytest.approx([9.0, 9.0, 9.0])


def test_the_cap_of_kappa_holds_after_either_start() -> None:
    assert kappas(3, start="first", kappa_cap=4.0) == pytest.approx([4.0, 4.0, 4.0])
    zero = kappas(200, start="zero", kappa_cap=4.0)
    assert zero[:2] == pytest.approx([0.9, 0.9 * 1.9])
    assert max(zero) == pytest.approx(4.0)


def test_the_warm_up_of_kappa_is_linear_over_two_over_one_minus_beta_steps() -> None:
    grown = kappas(25, start="first", kappa_warmup=True)
    assert grown == pytest.approx([9.0 * min(1.0, (t + 1) / 20) for t in range(25)])
    capped = kappas(25, start="first", kappa_warmup=True, kappa_cap=4.0)
    assert capped == pytest.approx([4.0 * min(1.0, (t + 1) / 20) for t in range(25)])
    exact = [9.0 * (1 - 0.9 ** (t + 1)) * min(1.0, (t + 1) / 20) for t in range(25)]
    assert kappas(25, start="zero", kappa_warmup=True) == pytest.approx(exact)
