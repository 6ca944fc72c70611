"""Exact properties of the methods: balls, special cases of one another, scale invariance."""

from collections.abc import Callable
from functools import partial
from typing import TypedDict

import pytest
import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.geometry.norms import MeanNorm
from hptransfer.optimizers.muon import muon
from hptransfer.optimizers.rules import Rule, as_matrix, init_state, readout
from hptransfer.optimizers.scion import (
    LMO,
    Light,
    NormName,
    scion,
    scion_light,
    scion_unconstrained,
)
from hptransfer.optimizers.sgd import nsgd, signsgd
from hptransfer.optimizers.transported import Transported, transported_scion
from hptransfer.spec import Param
from units import DENSE, EMBEDDING, HIDDEN, OUTPUT, VECTOR, at, random

CONV = Param("c", "hidden", (6, 4, 3, 3), (3, 2, 3, 3), conv=True)
QKV = Param("q", "hidden", (24, 8), (6, 2), parts=3)
TIED = Param("t", "output", (7, 8), (7, 2), tied=True)
MATRICES = (EMBEDDING, DENSE, HIDDEN, OUTPUT, CONV, QKV, TIED)
EVERY = (*MATRICES, VECTOR)
NORMS: tuple[NormName, ...] = ("spectral", "sign", "colnorm", "rownorm", "euclidean")


def pull(p: Param, w: Tensor, t: int, scale: float = 1.0) -> Tensor:
    """A gradient that depends on the weights and on the step's noise; w: (k, *shape)."""
    return scale * (torch.tanh(w - random(*p.shape, seed=3)) + 0.3 * random(*w.shape, seed=50 + t))


def path(
    rule: Rule, p: Param, start: Tensor, rates: list[float], scale: float = 1.0
) -> list[Tensor]:
    """The weights after every step; those of ScionLight with their gradient buffer."""
    w, state, buffer = start, init_state(rule, start), torch.zeros_like(start)
    found = []
    for t, lr in enumerate(rates):
        lr_next = rates[min(t + 1, len(rates) - 1)]
        g = buffer + pull(p, w, t, scale)
        w, state = rule.update(g, state, w, at(t, lr, lr_next, max(rates)))
        buffer = state.pop("gradient", torch.zeros_like(w))
        found.append(readout(rule, w, state))
    return found


def linear(peak: float, steps: int) -> list[float]:
    return [peak * (1 - t / steps) for t in range(steps)]


class Norms(TypedDict):
    """The norm of each role, as fields of Scion."""

    input: NormName
    hidden: NormName
    output: NormName


def named(norm: NormName) -> Norms:
    return {"input": norm, "hidden": norm, "output": norm}


# The ball


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "factory",
    [
        scion,
        partial(scion_light, constrained=True),
        partial(transported_scion, constrained=True, transport_schedule="constant"),
    ],
    ids=["scion", "light", "transported"],
)
@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_constrained_iterates_stay_in_their_ball(
    norm: NormName, factory: Callable[..., LMO | Light | Transported], stretch: float
) -> None:
    """||X_t|| <= max(||X_0||, rho), at every lr up to 1, also with a start outside the ball."""
    for p in EVERY:
        rule = factory(
            p, polar="svd", vector="sign" if norm == "sign" else "bias_rms", **named(norm)
        )
        ball = rule if isinstance(rule, LMO) else rule.scion
        start = stretch * rule.init_weight(torch.Generator().manual_seed(0))[None]
        began = ball.norm.norm(as_matrix(p, start))
        limit = torch.clamp(began, min=ball.radius) * (1 + 1e-12)
        for rates in ([0.1] * 12, [1.0] * 4, linear(1.0, 12)):
            for x in path(rule, p, start, rates):
                assert (ball.norm.norm(as_matrix(p, x)) <= limit).all()


def test_a_full_constrained_step_lands_on_the_sphere() -> None:
    for p in EVERY:
        rule = scion(p, polar="svd")
        x = path(rule, p, random(1, *p.shape), [1.0])[0]
        size = rule.norm.norm(as_matrix(p, x))
        torch.testing.assert_close(size, torch.full_like(size, rule.radius))


def test_a_transported_y_may_leave_the_ball_where_x_does_not() -> None:
    rule = transported_scion(
        HIDDEN, constrained=True, transport=1.0, transport_schedule="constant", polar="svd"
    )
    ball = rule.scion
    w = ball.init_weight(torch.Generator().manual_seed(0))[None]
    state, outside = init_state(rule, w), 0
    for t in range(20):
        w, state = rule.update(pull(HIDDEN, w, t), state, w, at(t, 0.2))
        outside += int(ball.norm.norm(w).item() > 1.01 * ball.radius)
        assert ball.norm.norm(readout(rule, w, state)).item() <= ball.radius * (1 + 1e-12)
    assert outside > 5


# One method as a special case of another


@pytest.mark.parametrize("norm", NORMS)
def test_scg_is_uscg_with_decoupled_decay(norm: NormName) -> None:
    for p in EVERY:
        scg, uscg = (f(p, polar="svd", **named(norm)) for f in (scion, scion_unconstrained))
        rates = linear(0.3, 30)
        constrained = path(scg, p, random(1, *p.shape), rates)
        w = random(1, *p.shape)
        state = init_state(uscg, w)
        for t, lr in enumerate(rates):
            moved, state = uscg.update(pull(p, w, t), state, w, at(t, lr))
            w = moved - lr * w  # X <- (1 - lr) X + lr rho lmo
            torch.testing.assert_close(w, constrained[t], rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_uscg_family_holds_normalised_sgd_signsgd_and_muon(beta: float) -> None:
    """Scion's Table 1: the balls of the Euclidean, the entrywise and the spectral norm."""
    rates = linear(0.2, 30)
    for p in EVERY:
        start = random(1, *p.shape)
        reduced = scion_unconstrained(p, beta=beta, polar="svd", **named("euclidean"))
        if p.role != "vector":  # their bias moves by its RMS
            plain = [lr * reduced.radius for lr in rates]
            ends = path(reduced, p, start, rates), path(nsgd(p, beta=beta), p, start, plain)
            torch.testing.assert_close(*(end[-1] for end in ends), rtol=0, atol=1e-12)
        reduced = scion_unconstrained(p, beta=beta, vector="sign", **named("sign"))
        assert isinstance(reduced.norm, MeanNorm)
        factor = reduced.radius * reduced.norm.factor((p.d_out, p.d_in))
        plain = [lr * factor for lr in rates]
        ends = path(reduced, p, start, rates), path(signsgd(p, beta=beta), p, start, plain)
        torch.testing.assert_close(*(end[-1] for end in ends), rtol=0, atol=1e-12)
        if p.role == "hidden" and not p.conv:
            reduced = scion_unconstrained(p, beta=beta, radius_hidden=1.0, polar="svd")
            other = muon(p, beta=beta, nesterov=False, scaling="spectral", polar="svd")
            ends = path(reduced, p, start, rates), path(other, p, start, rates)
            torch.testing.assert_close(*(end[-1] for end in ends), rtol=0, atol=1e-12)


def test_jordans_muon_is_the_spectral_ball_up_to_its_polynomial_and_nesterovs_momentum() -> None:
    """The published Muon: singular values between 0.47 and 1.2 in place of 1."""
    rule = muon(HIDDEN, polar="jordan", scaling="spectral")
    ball = scion_unconstrained(HIDDEN, radius_hidden=1.0).norm
    step = rule.update(random(1, 12, 8), {"m": random(1, 12, 8)}, 0 * random(1, 12, 8), at(lr=1.0))
    assert 0.47 <= ball.norm(step[0]).item() <= 1.21


# The scale of the loss


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize(
    ("name", "hp"),
    [
        *[
            (n, named(norm))
            for n in ("scion", "scion_unconstrained", "scion_light")
            for norm in NORMS
        ],
        ("scion_unconstrained", {"guard": 0.3, "input": "auto"}),
        ("scion_unconstrained", {"start": "first", "polar_steps": 3}),
        ("scion_unconstrained", {"vector": "sign", "polar": "svd"}),
        ("transported_scion", {}),
        ("transported_scion", {"store": "recompute", "transport_schedule": "constant"}),
        ("transported_scion", {"constrained": True, "start": "zero"}),
        *[("moga_row", {"p": p}) for p in ("1", "1.5", "2", "3", "inf")],
        *[("moga_col", {"q": q, "embedding": "sign"}) for q in ("2", "3", "inf")],
        ("moga_official", {}),
        ("nsgd", {}),
        ("signsgd", {}),
        ("lion", {}),
    ],
    ids=str,
)
def test_the_scale_of_the_loss_changes_no_iterate(
    name: str, hp: dict[str, object], scale: float
) -> None:
    for p in EVERY:
        rule: Rule = registry.load("optimizer", name)(p, **hp)
        start, rates = random(1, *p.shape), linear(0.05, 12)
        plain, scaled = (path(rule, p, start, rates, by)[-1] for by in (1.0, scale))
        torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-9)
        assert not torch.allclose(plain, start)


def test_the_scale_of_the_loss_changes_no_iterate_of_muons_matrices() -> None:
    for polar in ("polar_express", "jordan", "svd"):
        for p in (HIDDEN, CONV, QKV):
            rule = muon(p, polar=polar)
            plain, scaled = (
                path(rule, p, random(1, *p.shape), linear(0.05, 12), by)[-1] for by in (1.0, 1e-6)
            )
            torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-9)


def test_the_scale_of_the_loss_changes_sgd() -> None:
    """The test above can fail."""
    rule = registry.load("optimizer", "sgd")(HIDDEN)
    plain, scaled = (
        path(rule, HIDDEN, random(1, 12, 8), linear(0.05, 12), by)[-1] for by in (1.0, 1e-6)
    )
    assert not torch.allclose(plain, scaled)
