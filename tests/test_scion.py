"""Scion against its table by role: norms, radii, starts, vectors and gains, and its light form."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.optimizers.rules import Rule, as_matrix, init_state
from hptransfer.optimizers.scion import (
    LMO,
    NormName,
    Start,
    scion,
    scion_light,
    scion_unconstrained,
)
from hptransfer.optimizers.transported import transported_scion
from hptransfer.spec import Param
from units import (
    DENSE,
    EMBEDDING,
    HIDDEN,
    OUTPUT,
    PARAMS,
    VECTOR,
    at,
    lanes,
    moved,
    random,
    spec,
    stepped,
    weights,
)

CONV = Param("c", "hidden", (6, 4, 3, 3), (3, 2, 3, 3), conv=True)
FIRST_CONV = Param("f", "input", (4, 6, 3, 3), (2, 6, 3, 3), conv=True)
QKV = Param("q", "hidden", (24, 8), (6, 2), parts=3)
TIED = Param("t", "output", (7, 8), (7, 2), tied=True)
GAIN = Param("g", "vector", (8,), (2,), gain=True)
FACTORIES: tuple[Callable[..., Rule], ...] = (
    scion,
    scion_unconstrained,
    scion_light,
    partial(scion_light, constrained=True),
    transported_scion,
    partial(transported_scion, constrained=True),
)


def zeros(p: Param) -> Tensor:
    return torch.zeros(p.shape, dtype=torch.float64)


def unit(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


# Directions, all written out: (d_out, d_in) is (12, 8), (8, 5), (7, 8), (8 tokens of 7), (6, 4)
TABLE: list[tuple[str, Param, Callable[[Tensor], Tensor]]] = [
    ("spectral", HIDDEN, lambda m: math.sqrt(12 / 8) * unit(m)),
    ("spectral", DENSE, lambda m: math.sqrt(8 / 5) * unit(m)),
    ("spectral", Param("n", "input", (8, 50), (2, 50)), unit),
    ("spectral", OUTPUT, lambda m: math.sqrt(7 / 8) * unit(m)),
    ("spectral", EMBEDDING, lambda m: math.sqrt(8) * unit(m)),
    ("spectral", CONV, lambda m: math.sqrt(6 / 4) / 9 * unit(m.flatten(1)).view_as(m)),
    ("spectral", FIRST_CONV, lambda m: math.sqrt(4 / 6) / 9 * unit(m.flatten(1)).view_as(m)),
    ("spectral", QKV, lambda m: torch.cat([unit(part) for part in m.chunk(3)])),
    ("sign", HIDDEN, lambda m: m.sign() / 8),
    ("sign", OUTPUT, lambda m: m.sign() / 8),
    ("sign", TIED, lambda m: m.sign() / 8),
    ("sign", EMBEDDING, lambda m: m.sign()),
    ("sign", CONV, lambda m: m.sign() / 36),
    ("colnorm", HIDDEN, lambda m: math.sqrt(12) / 8 * m / m.norm(dim=0, keepdim=True)),
    ("colnorm", EMBEDDING, lambda m: math.sqrt(8) * m / m.norm(dim=1, keepdim=True)),
    ("rownorm", HIDDEN, lambda m: m / m.norm(dim=1, keepdim=True) / math.sqrt(8)),
    ("rownorm", EMBEDDING, lambda m: m / m.norm(dim=0, keepdim=True)),
    ("euclidean", HIDDEN, lambda m: m / m.norm()),
    ("auto", EMBEDDING, lambda m: math.sqrt(8) * m / m.norm(dim=1, keepdim=True)),
    ("auto", DENSE, lambda m: math.sqrt(8 / 5) * unit(m)),
    ("auto", OUTPUT, lambda m: math.sqrt(7 / 8) * unit(m)),
]


@pytest.mark.parametrize(("norm", "p", "direction"), TABLE, ids=lambda v: getattr(v, "name", None))
def test_every_norm_moves_every_role_by_the_table(
    norm: str, p: Param, direction: Callable[[Tensor], Tensor]
) -> None:
    rule = scion_unconstrained(p, **{p.role: norm, f"radius_{p.role}": 3.0, "polar": "svd"})
    g = random(*p.shape)
    torch.testing.assert_close(moved(rule, g, zeros(p), at(lr=0.5)), -1.5 * direction(g))


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_default_is_colnorm_then_spectral_then_sign_with_radii_1_3_10(
    factory: Callable[..., Rule],
) -> None:
    expected = {
        "e": -0.5 * math.sqrt(8),
        "i": -0.5 * math.sqrt(8 / 5),
        "h": -1.5 * math.sqrt(12 / 8),
        "o": -5.0 / 8,
        "v": -1.5 * math.sqrt(8),
    }
    for p in PARAMS.values():
        g = random(*p.shape)
        step = moved(factory(p, polar="svd"), g, zeros(p), at(lr=0.5, lr_next=0.5))
        match p.name:
            case "e":
                unit_step = g / g.norm(dim=1, keepdim=True)
            case "v":
                unit_step = g / g.norm()
            case "o":
                unit_step = g.sign()
            case _:
                unit_step = unit(g)
        torch.testing.assert_close(step, expected[p.name] * unit_step)


@pytest.mark.parametrize("factory", FACTORIES)
def test_weights_start_on_the_ball_a_bias_at_0_and_a_gain_at_1(
    factory: Callable[..., Rule],
) -> None:
    for p in (EMBEDDING, DENSE, HIDDEN, OUTPUT, QKV, TIED):
        rule = factory(p)
        w = rule.init_weight(torch.Generator().manual_seed(0))
        assert w.shape == p.shape
        lmo = scion(p)
        size = lmo.norm.norm(as_matrix(p, w))
        torch.testing.assert_close(size, torch.full_like(size, lmo.radius))
    assert torch.equal(factory(VECTOR).init_weight(torch.Generator()), torch.zeros(8).double())
    assert torch.equal(factory(GAIN).init_weight(torch.Generator()), torch.ones(8).double())


def test_every_tap_of_a_convolution_starts_semi_orthogonal() -> None:
    w = scion(CONV, radius_hidden=9.0).init_weight(torch.Generator().manual_seed(0))
    for row, column in ((0, 0), (2, 1)):
        tap = w[:, :, row, column]
        torch.testing.assert_close(tap.mT @ tap, 6 / 4 * torch.eye(4).double())
    assert not torch.equal(w[:, :, 0, 0], w[:, :, 2, 1])


@pytest.mark.parametrize("norm", ["colnorm", "rownorm", "sign", "spectral", "euclidean"])
def test_any_norm_can_be_named_for_any_role(norm: NormName) -> None:
    for p in (*PARAMS.values(), CONV, QKV, TIED):
        rule = scion_unconstrained(p, input=norm, hidden=norm, output=norm)
        step = moved(rule, random(*p.shape), zeros(p), at(lr=0.5))
        size = rule.norm.norm(as_matrix(p, step))
        expected = torch.full_like(size, 0.5 * rule.radius)
        torch.testing.assert_close(size, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("factory", FACTORIES)
def test_vectors_move_by_their_rms_or_by_signs_with_the_hidden_radius(
    factory: Callable[..., Rule],
) -> None:
    w, g = zeros(VECTOR), random(8)
    for p in (VECTOR, replace(GAIN, gain=False)):
        step = moved(factory(p, radius_hidden=3.0), g, w, at(lr=0.5))
        torch.testing.assert_close(step, -1.5 * g / g.square().mean().sqrt())
        step = moved(factory(p, radius_hidden=3.0, vector="sign"), g, w, at(lr=0.5))
        torch.testing.assert_close(step, -1.5 * g.sign())


@pytest.mark.parametrize("factory", FACTORIES)
def test_no_form_of_scion_draws_a_gain_to_zero(factory: Callable[..., Rule]) -> None:
    rule = factory(GAIN)
    w = torch.ones(1, 8, dtype=torch.float64)
    assert torch.equal(rule.update(0 * w, init_state(rule, w), w, at(lr=0.5))[0], w)


def test_a_bias_of_constrained_scion_stays_in_its_ball() -> None:
    bias = torch.ones(8, dtype=torch.float64)
    assert torch.equal(moved(scion(VECTOR), 0 * bias, bias, at(lr=0.25)), 0.75 * bias)


# Unseen tokens


@pytest.mark.parametrize(
    "factory", [scion_unconstrained, scion_light, partial(transported_scion, transport=0.0)]
)
@pytest.mark.parametrize("norm", ["auto", "sign"])
def test_rows_of_seen_tokens_move_by_one_rms_and_unseen_ones_exactly_by_zero(
    factory: Callable[..., Rule], norm: str
) -> None:
    rule = factory(EMBEDDING, radius_input=2.0, input=norm)
    w, g = random(7, 8), random(7, 8, seed=1)
    g[[0, 3]] = 0
    step = moved(rule, g, w, at(lr=0.25)) - w
    assert torch.equal(step[[0, 3]], torch.zeros(2, 8).double())
    seen = step[[1, 2, 4, 5, 6]]
    torch.testing.assert_close(seen.square().mean(1).sqrt(), torch.full((5,), 0.5).double())
    w[[0, 3]] = 1 / 3
    assert torch.equal(moved(rule, g, w, at(lr=0.25))[[0, 3]], w[[0, 3]])


def test_unseen_tokens_keep_their_embedding_in_a_run() -> None:
    run = spec("scion_unconstrained", "gpt", steps=1, batch=2)
    fresh = lanes([run])
    before, after = weights(fresh)["embedding.weight"], weights(stepped([run]))["embedding.weight"]
    seen = torch.zeros(len(before), dtype=torch.bool)
    seen[fresh.batches.train(0)[0].flatten()] = True
    assert torch.equal(after[~seen], before[~seen])
    moves = (after - before)[seen].square().mean(1).sqrt()
    torch.testing.assert_close(moves, torch.full_like(moves, run.lr))


@pytest.mark.parametrize("norm", ["auto", "rownorm", "sign"])
def test_the_guard_lets_a_token_rest_that_is_seen_no_more(norm: NormName) -> None:
    """Its average falls below 0.01 of the others after log(0.01)/log(0.9), 44 steps."""
    rested = {}
    for guard in (0.0, 0.01):
        rule = scion_unconstrained(EMBEDDING, input=norm, guard=guard)
        w = random(1, 7, 8)
        state = init_state(rule, w)
        moves = []
        for t in range(70):
            g = torch.ones(1, 7, 8, dtype=torch.float64)
            g[:, 0] = float(t == 0) * 10  # in the long run a tenth of it is the size of the others
            before = w
            w, state = rule.update(g, state, w, at(t, lr=0.1))
            moves.append(not torch.equal(w[:, 0], before[:, 0]))
            assert not torch.equal(w[:, 1], before[:, 1])
        rested[guard] = moves.index(False) if False in moves else None
    assert rested[0.0] is None
    assert rested[0.01] is not None and 35 < rested[0.01] < 50


def test_the_guard_is_of_embeddings_alone() -> None:
    g = random(*HIDDEN.shape)
    g[:, 0] *= 1e-6
    for norm in ("colnorm", "sign", "rownorm"):
        rules = [scion_unconstrained(HIDDEN, hidden=norm, guard=v) for v in (0.0, 0.5)]
        a, b = (moved(rule, g, zeros(HIDDEN), at()) for rule in rules)
        assert torch.equal(a, b)


# The momentum, and where it lies


def test_a_first_gradient_start_takes_the_gradient_whole() -> None:
    g = random(1, *HIDDEN.shape)
    weights: dict[Start, float] = {"zero": 0.1, "first": 1.0}
    for start, weight in weights.items():
        rule = scion(HIDDEN, start=start)
        _, state = rule.update(g, init_state(rule, g), g, at(0))
        torch.testing.assert_close(state["m"], weight * g)
        _, state = rule.update(2 * g, state, g, at(1))
        torch.testing.assert_close(state["m"], 0.9 * weight * g + 0.2 * g)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("p", [EMBEDDING, HIDDEN, OUTPUT, VECTOR, CONV], ids=lambda p: p.name)
def test_scion_light_moves_as_scion_after_a_zero_start(p: Param, constrained: bool) -> None:
    heavy: LMO = (scion if constrained else scion_unconstrained)(p, polar="svd")
    light = scion_light(p, constrained=constrained, polar="svd")
    a = b = heavy.init_weight(torch.Generator().manual_seed(0))[None]
    state, buffer = init_state(heavy, a), torch.zeros_like(b)
    assert init_state(light, b) == {}
    for t in range(50):
        lr = 0.05 * (1 - t / 50)
        g = random(*a.shape, seed=t + 1)
        a, state = heavy.update(g, state, a, at(t, lr))
        b, kept = light.update(buffer + g, {}, b, at(t, lr))
        assert list(kept) == ["gradient"]
        buffer = kept["gradient"]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", ["gpt", "mlp"])
def test_a_run_with_scion_light_is_one_with_scion_and_holds_no_state(model: str) -> None:
    runs = [spec(name, model, steps=10) for name in ("scion_unconstrained", "scion_light")]
    heavy, light = (stepped([run], dtype=torch.float64) for run in runs)
    assert all(group.state == {} for group in light.groups)
    for name, w in weights(heavy).items():
        torch.testing.assert_close(weights(light)[name], w, rtol=0, atol=1e-9)


def test_the_lr_of_a_constrained_method_ends_at_one() -> None:
    for name, hp, limits in (
        ("scion", {}, (-30.0, 0.0)),
        ("scion_unconstrained", {}, None),
        ("scion_light", {"constrained": False}, None),
        ("scion_light", {"constrained": True}, (-30.0, 0.0)),
        ("transported_scion", {"constrained": False}, None),
        ("transported_scion", {"constrained": True}, (-30.0, 0.0)),
    ):
        part = registry.describe("optimizer", name)
        assert part.lr_limits({**part.defaults, **hp}) == limits
