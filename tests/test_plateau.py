"""The objective with a known gradient: values, gradients, and what a method does on it."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from hptransfer.models.plateau import plateau
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, Step
from hptransfer.optimizers.scion import scion_unconstrained
from hptransfer.optimizers.transported import transported_scion
from hptransfer.spec import Param


def stepped(rule: Rule, w: Tensor, gradient: object, lr: float, steps: int) -> Tensor:
    """X after so many steps; `gradient`: a function of the weights."""
    w, state = w[None], rules.init_state(rule, w[None])
    size = torch.tensor(lr, dtype=torch.float64)
    for t in range(steps):
        g = gradient(w[0])[None]  # type: ignore[operator]
        w, state = rules.update(rule, g, state, w, Step(t, size, size, size))
    return rules.readout(rule, w, state)[0]


@pytest.mark.parametrize("columns", [0, 12])
def test_the_known_gradient_is_that_of_autograd(columns: int) -> None:
    model = plateau(4, columns=columns, eps=0.5)
    torch.manual_seed(0)
    x = 12 * torch.randn(50, 4, columns or 1, dtype=torch.float64)
    noise = torch.randn_like(x)
    for own, n in zip(x, noise, strict=True):
        model.x.data = own
        model.zero_grad()
        model(n).backward()
        assert model.x.grad is not None
        torch.testing.assert_close(model.x.grad, model.gradient(own) + n, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("columns", [0, 12])
@pytest.mark.parametrize("eps", [1.0, 0.25])
def test_it_starts_delta_above_its_infimum_with_a_gradient_of_2_eps(
    columns: int, eps: float
) -> None:
    model = plateau(4, columns=columns, eps=eps, gap=100.0)
    assert model.objective(model.start()).item() == pytest.approx(100.0, abs=1e-10)
    assert model.dual(model.start()).item() == pytest.approx(2 * eps, abs=1e-12)
    assert model.objective(-model.start().abs()).item() == pytest.approx(0.0, abs=1e-12)


def test_a_slope_and_a_wall_are_the_integrals_of_their_gradients() -> None:
    model = plateau(2, eps=0.7)
    for i, top in ((0, 60.0), (1, 20.0), (1, -20.0)):

        def slope(u: float, i: int = i) -> float:
            x = torch.zeros(2, 1, dtype=torch.float64)
            x[i] = u
            return model.gradient(x)[i].item()

        x = torch.zeros(2, 1, dtype=torch.float64)
        x[i] = top
        area = quad(slope, 0, top, limit=400, points=[8.0, -8.0, model.run_up / 2, model.run_up])[0]
        assert model.objective(x).item() == pytest.approx(area, abs=1e-7)


def test_the_nuclear_norm_of_a_matrix_gradient_is_that_of_its_singular_values() -> None:
    model = plateau(4, columns=12)
    x = torch.randn(3, 4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    known = torch.linalg.matrix_norm(model.gradient(x), ord="nuc")
    torch.testing.assert_close(model.dual(x), known)


def test_curvature_and_its_change_stay_within_their_bounds() -> None:
    model = plateau(2, eps=1.0)
    x = torch.linspace(-40, 120, 4001, dtype=torch.float64)
    step = (x[1] - x[0]).item()
    for i, most in ((0, math.sqrt(2 * 1.0 / 16)), (1, 0.75)):
        points = torch.zeros(len(x), 2, 1, dtype=torch.float64)
        points[:, i, 0] = x
        g = model.gradient(points)[:, i, 0]
        assert (g.diff().abs().max() / step).item() <= most * 1.01
        assert (g.diff().diff().abs().max() / step**2).item() <= 1 / 16 / (1 if i == 0 else 2) * 1.1


def test_without_noise_a_slope_is_walked_at_full_speed() -> None:
    model = plateau(2, eps=1.0)
    p = Param("x", "hidden", (2, 1), (2, 1), parts=2)
    rule = scion_unconstrained(p, radius_hidden=1.0, start="first")
    top = model.start()[0].item()
    lr = 0.5
    steps = int((top - model.run_up) / lr)
    x = stepped(rule, model.start(), model.gradient, lr, steps)
    assert x[0].item() == pytest.approx(top - steps * lr, abs=1e-9)


@pytest.mark.parametrize("transported", [False, True])
def test_a_rotated_matrix_run_is_the_diagonal_run(transported: bool) -> None:
    model = plateau(4, eps=1.0)
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(n, 4, dtype=torch.float64, generator=generator))[0]
        for n in (6, 9)
    )
    noise = torch.randn(200, 4, 1, dtype=torch.float64, generator=generator)
    make = transported_scion if transported else scion_unconstrained
    more = {"transport": 1.0, "transport_schedule": "constant"} if transported else {}
    beta = torch.tensor(0.9, dtype=torch.float64)

    def run(p: Param, radius: float, start: Tensor, outer: bool) -> Tensor:
        rule = make(p, beta=beta, radius_hidden=radius, start="first", polar="svd", **more)  # type: ignore[arg-type]
        count = iter(noise)

        def gradient(w: Tensor) -> Tensor:
            x = torch.diagonal(left.mT @ w @ right)[:, None] if outer else w
            g = model.gradient(x) + next(count)
            return left @ torch.diag(g[:, 0]) @ right.mT if outer else g

        return stepped(rule, start, gradient, 0.3, 200)

    start = model.start()
    diagonal = run(Param("x", "hidden", (4, 1), (4, 1), parts=4), 1.0, start, False)
    matrix = Param("x", "hidden", (6, 9), (6, 9))
    whole = left @ torch.diag(start[:, 0]) @ right.mT
    rotated = run(matrix, math.sqrt(9 / 6), whole, True)
    torch.testing.assert_close(
        torch.diagonal(left.mT @ rotated @ right), diagonal[:, 0], rtol=0, atol=1e-10
    )


def test_transport_of_strength_0_is_scion_bit_for_bit() -> None:
    model = plateau(4, eps=1.0)
    p = Param("x", "hidden", (4, 1), (4, 1), parts=4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100, 4, 1, dtype=torch.float64, generator=generator)
    ends = []
    for rule in (
        scion_unconstrained(p, radius_hidden=1.0),
        transported_scion(p, radius_hidden=1.0, transport=0.0, transport_schedule="constant"),
    ):
        count = iter(noise)
        ends.append(
            stepped(rule, model.start(), lambda w, c=count: model.gradient(w) + next(c), 0.3, 100)
        )
    assert torch.equal(*ends)


@pytest.mark.parametrize("transported", [False, True])
def test_on_a_steady_path_the_momentum_lags_by_the_known_amount(transported: bool) -> None:
    hessian, eta, alpha, steps = 1 / 16, 0.01, 0.25, 400
    beta = 1 - alpha

    def gradient(x: float) -> float:
        return x + hessian * x**2 / 2

    m = x = 0.0
    ahead = beta / alpha * eta if transported else 0.0
    for t in range(steps):
        x = 3.0 - eta * t
        m = beta * m + alpha * gradient(x - ahead) if t else gradient(x - ahead)
    error = m - gradient(x)
    lag = eta * beta / alpha
    known = hessian * eta**2 * beta / (2 * alpha**2)
    if not transported:
        known = lag * (1 + hessian * x) + hessian / 2 * eta**2 * (beta + beta**2) / alpha**2
    assert error == pytest.approx(known, abs=1e-13)
