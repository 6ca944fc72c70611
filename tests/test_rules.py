"""Rules for every optimizer: roles and shapes alone, batches, lanes, true settings."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.optimizers import rules
from hptransfer.optimizers.adamw import Adam, adamw, adamw_emb, adamw_mup
from hptransfer.optimizers.muon import muon
from hptransfer.optimizers.rules import (
    Rule,
    State,
    Step,
    as_matrix,
    from_matrix,
    init_state,
    readout,
)
from hptransfer.optimizers.scion import LMO, scion, scion_unconstrained
from hptransfer.optimizers.sgd import sgd
from hptransfer.optimizers.transported import transported_scion
from hptransfer.spec import Param
from units import EMBEDDING, HIDDEN, OPTIMIZERS, OUTPUT, PARAMS, VECTOR, M, at, moved, random

CONV = Param("c", "hidden", (6, 4, 3, 3), (3, 2, 3, 3), conv=True)
QKV = Param("q", "hidden", (24, 8), (6, 2), parts=3)
TIED = Param("t", "output", (7, 8), (7, 2), tied=True)
GAIN = Param("g", "vector", (8,), (2,), gain=True)
POSITIONS = Param("x", "input", (1, 7, 8), (1, 7, 2), embedding=True)
EVERY = (*PARAMS.values(), CONV, QKV, TIED, GAIN, POSITIONS)


def zeros(p: Param) -> Tensor:
    return torch.zeros(p.shape, dtype=torch.float64)


def unit(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rule_reads_roles_and_shapes_and_never_names(name: str) -> None:
    factory = registry.load("optimizer", name)
    for p in EVERY:
        renamed = Param(**{**vars(p), "name": "other"})
        g, w = random(*p.shape), random(*p.shape, seed=1)
        assert torch.equal(moved(factory(p), g, w, at()), moved(factory(renamed), g, w, at()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_together_move_as_each_alone(name: str) -> None:
    for p in EVERY:
        rule: Rule = registry.load("optimizer", name)(p)
        assert rules._batched(rule)
        g, w = random(3, *p.shape), random(3, *p.shape, seed=1)
        together, state = rule.update(g, init_state(rule, w), w, at())
        if "gradient" in state:  # it replaces the gradient buffer
            g, state = state.pop("gradient") + g, {}
        together, state = rule.update(g, state, together, at(1))
        assert together.shape == w.shape
        for i in range(3):
            alone = w[i : i + 1]
            first = random(3, *p.shape)[i : i + 1]
            own: dict[str, Tensor]
            alone, own = rule.update(first, init_state(rule, alone), alone, at())
            carried = own.pop("gradient", 0 * first)
            alone, _ = rule.update(first + carried, own, alone, at(1))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-12)


def other_value(part: registry.Part, key: str) -> float:
    """An allowed value that is not the default."""
    default = part.defaults[key]
    low, high = part.limits[key]
    return default / 2 if low <= default / 2 < default else (default + min(high, 0.5)) / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_real_hyperparameter_may_differ_by_lane(name: str) -> None:
    """Three steps with lr and noise; under vmap the value is a 0-d tensor."""
    part = registry.describe("optimizer", name)
    factory: Callable[..., Any] = registry.load("optimizer", name)
    floats = {k: v for k, v in part.defaults.items() if isinstance(v, float)}
    assert floats.keys() <= part.limits.keys()

    def train(w: Tensor, hp: dict[str, Any], p: Param, targets: list[Tensor]) -> Tensor:
        rule: Rule = factory(p, **hp)
        state: State = init_state(rule, w)
        buffer = torch.zeros_like(w)
        for t, target in enumerate(targets):
            g = buffer + torch.tanh(w - target)
            w, state = rule.update(g, state, w, at(t, 0.2 - 0.05 * t, 0.15 - 0.05 * t, 0.2))
            buffer = state.pop("gradient", torch.zeros_like(w))
        return readout(rule, w, state)

    for p in EVERY:
        w = random(1, *p.shape, seed=9)
        run = partial(train, p=p, targets=[random(*p.shape, seed=t) for t in range(3)])
        for key in floats:
            values = [floats[key], other_value(part, key)]
            stacked = {
                k: torch.tensor(values if k == key else [v, v], dtype=torch.float64)
                for k, v in floats.items()
            }
            together = torch.vmap(run, in_dims=(None, 0))(w, stacked)
            for lane, value in enumerate(values):
                alone = run(w, {**floats, key: value})
                torch.testing.assert_close(together[lane], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gains_start_at_one_and_biases_at_zero(name: str) -> None:
    factory = registry.load("optimizer", name)
    assert torch.equal(factory(GAIN).init_weight(torch.Generator()), torch.ones(8).double())
    assert torch.equal(factory(VECTOR).init_weight(torch.Generator()), torch.zeros(8).double())


def rows(p: Param, g: Tensor, unit_row: Callable[[Tensor], Tensor]) -> Tensor:
    return from_matrix(p, unit_row(as_matrix(p, g)))


def named_direction(name: str, p: Param, g: Tensor) -> Tensor:
    """The direction of the first step, as a reader of the exported settings builds it."""
    match name:
        case "gradient":
            return g
        case "adam" | "sign":
            return g.sign()
        case "polar":
            return rows(p, g, unit)
        case "rms":
            return g / g.square().mean().sqrt()
        case "frobenius":
            return rows(p, g, lambda m: m / m.flatten(-2).norm(dim=-1)[..., None, None])
        case "colnorm" | "column q=2":
            return rows(p, g, lambda m: m / m.norm(dim=-2, keepdim=True))
        case "row p=2":
            return rows(p, g, lambda m: m / m.norm(dim=-1, keepdim=True))
    raise AssertionError(name)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("p", EVERY, ids=lambda p: p.name)
def test_the_settings_of_a_rule_are_what_it_does(name: str, p: Param) -> None:
    hp = {"polar": "svd"} if "polar" in registry.describe("optimizer", name).defaults else {}
    rule = registry.load("optimizer", name)(p, **hp)
    told = rule.settings(0.25)
    g, w = random(*p.shape), random(*p.shape, seed=1)
    step = moved(rule, g, zeros(p), at(lr=0.25, lr_peak=0.25))
    direction = named_direction(told["direction"], p, g)
    torch.testing.assert_close(step, -told["lr"] * direction, rtol=1e-4, atol=1e-9)  # Adam's eps
    shrunk = moved(rule, 0 * g, w, at(lr=0.25, lr_peak=0.25))
    torch.testing.assert_close(shrunk, (1 - told["decay"]) * w)
    start = rule.init_weight(torch.Generator().manual_seed(0))
    kind, _, size = told["init"].rpartition(" ")
    match kind or size:
        case "ones" | "zeros":
            assert torch.equal(start, torch.full_like(start, float(size == "ones")))
        case "normal":
            assert start.std().item() == pytest.approx(float(size), rel=0.4)
        case "random signs":
            assert torch.allclose(start.abs(), torch.full_like(start, float(size)), rtol=1e-5)
        case "normal with columns of norm":
            sizes = as_matrix(p, start).norm(dim=-2)
            assert torch.allclose(sizes, torch.full_like(sizes, float(size)), rtol=1e-5)
        case "semi-orthogonal" | "semi-orthogonal taps":
            matrix = start[:, :, 0, 0] if p.conv else as_matrix(p, start)
            values = torch.linalg.svdvals(matrix)
            assert torch.allclose(values, torch.full_like(values, float(size)), rtol=1e-5)
        case _:
            raise AssertionError(told["init"])


def test_a_coupled_decay_is_told_apart_from_a_decoupled_one() -> None:
    told = sgd(HIDDEN, weight_decay=0.3).settings(0.5)
    assert told["l2"] == 0.3 and told["decay"] == 0.0
    assert adamw_mup(HIDDEN, weight_decay=0.3).settings(0.5)["decay"] == pytest.approx(0.15)


def test_settings_tell_the_betas_and_the_eps() -> None:
    assert adamw(HIDDEN, beta1=0.7, beta2=0.8, eps=1e-5).settings(1.0).items() >= {
        ("beta1", 0.7),
        ("beta2", 0.8),
        ("eps", 1e-5),
    }
    assert muon(HIDDEN, beta=0.6).settings(1.0)["beta"] == 0.6
    assert muon(OUTPUT, aux_lr=0.5).settings(1.0)["lr"] == 0.5 / M
    assert transported_scion(HIDDEN, transport=0.25).settings(1.0)["transport"] == 0.25


def test_recomputing_a_constrained_displacement_is_an_input_error() -> None:
    with pytest.raises(InputError) as caught:
        transported_scion(HIDDEN, constrained=True, store="recompute")
    assert str(caught.value) == (
        "transported_scion: got store 'recompute' with constrained, allowed there: 'displacement'"
    )
    assert "X" in caught.value.hint


def test_the_matrix_view_is_d_out_by_d_in_and_returns() -> None:
    for p, view in (
        (EMBEDDING, (8, 7)),
        (POSITIONS, (8, 7)),
        (HIDDEN, (12, 8)),
        (TIED, (7, 8)),
        (VECTOR, (8, 1)),
        (CONV, (6, 36)),
        (QKV, (3, 8, 8)),
    ):
        w = random(2, 3, *p.shape)
        matrix = as_matrix(p, w)
        assert matrix.shape == (2, 3, *view)
        assert (p.d_out, p.d_in) == view[-2:]
        assert torch.equal(from_matrix(p, matrix), w)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("make", [adamw, adamw_emb, adamw_mup])
def test_adamw_in_place_is_adamw(make: Callable[..., Adam], dtype: torch.dtype) -> None:
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for p in (HIDDEN, EMBEDDING, OUTPUT, VECTOR):
        rule = replace(make(p, weight_decay=0.1), lr_fixed=0.01 if p is OUTPUT else None)
        w = random(2, *p.shape).to(dtype)
        own, state, kept = w.clone(), init_state(rule, w), init_state(rule, w)
        for t in range(3):
            g = random(2, *p.shape, seed=1 + t).to(dtype)
            w, state = rules.update(rule, g, state, w, at(t, 0.1))
            kept = rules.update_(rule, g, kept, own, at(t, 0.1))
            torch.testing.assert_close(own, w, rtol=0, atol=tolerance)
            torch.testing.assert_close(kept, state, rtol=0, atol=tolerance)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("make", "hp"),
    [
        (scion, {}),
        (scion, {"start": "first", "guard": 0.1}),
        (scion_unconstrained, {"polar": "jordan"}),
        (scion_unconstrained, {"hidden": "euclidean", "start": "first"}),
        (muon, {}),
        (muon, {"nesterov": False, "polar": "jordan"}),
        (muon, {"weight_decay": 0.1}),
        (transported_scion, {}),
        (transported_scion, {"constrained": True, "transport_schedule": "constant"}),
        (transported_scion, {"start": "zero", "kappa_warmup": True}),
        (transported_scion, {"start": "zero", "store": "recompute", "polar": "jordan"}),
    ],
)
def test_matrix_rules_in_place_are_themselves_bit_for_bit(
    make: Callable[..., Rule], hp: dict[str, float | str | bool], together: bool
) -> None:
    kinds = (HIDDEN, QKV, CONV) if make is muon else (HIDDEN, QKV, CONV, EMBEDDING, OUTPUT, VECTOR)
    for p in kinds:
        real = {k: torch.tensor(v) for k, v in hp.items() if isinstance(v, float)}
        rule = make(p, **{"beta": torch.tensor(0.9), **hp, **real})  # as the engine gives them
        w = random(2, *p.shape).float()
        own = w.clone() if together else list(w.clone())
        state, kept = rules.init_state(rule, w), rules.init_state(rule, w)
        for t in range(3):
            g = random(2, *p.shape, seed=1 + t).float()
            before = g.clone()
            w, state = rules.update(rule, g, state, w, at(t, 0.1))
            kept = rules.update_(rule, g if together else list(g), kept, own, at(t, 0.1))
            assert torch.equal(torch.stack(list(own)), w)
            assert kept.keys() == state.keys()
            assert all(torch.equal(kept[key], state[key]) for key in state)
            assert torch.equal(g, before)


def test_a_subclass_is_not_moved_in_place_by_its_base() -> None:
    class Still(Adam):
        def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
            return w + 1, state

    class Forgetful(LMO):
        def momentum(self, g: Tensor, state: State, step: Step) -> Tensor:
            return g

    for rule in (
        Still(HIDDEN, 0.9, 0.95, 1e-8, 0.1, 0.02),
        Forgetful(**vars(scion_unconstrained(HIDDEN))),
    ):
        w, g = random(1, *HIDDEN.shape), random(1, *HIDDEN.shape, seed=1)
        state = {"m": random(*w.shape, seed=2)}
        expected, _ = rule.update(g, state, w, at(1, 0.1))
        rules.update_(rule, g, state, w, at(1, 0.1))
        assert torch.equal(w, expected)


@pytest.mark.parametrize("make", [adamw, muon, scion])
def test_tensors_with_strides_of_their_own_move_as_others(make: Callable[..., Rule]) -> None:
    rule = make(HIDDEN)
    rows, columns = HIDDEN.shape
    g = [random(columns, rows, seed=i).mT for i in range(2)]
    inside = random(2, rows, 2 * columns, seed=3)
    own = [inside[0, :, ::2], inside[1, :, ::2]]
    beside = inside[:, :, 1::2].clone()
    w = torch.stack(own)
    expected, _ = rules.update(rule, torch.stack(g), rules.init_state(rule, w), w, at(0, 0.1))
    rules.update_(rule, g, rules.init_state(rule, w), own, at(0, 0.1))
    torch.testing.assert_close(torch.stack(own), expected)
    assert torch.equal(inside[:, :, 1::2], beside)
