"""AdamW, Muon, SGD and Lion against their tables by role, and rules for every optimizer."""

import math

import pytest
import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.optimizers.adamw import Adam, adamw, adamw_emb, adamw_mup
from hptransfer.optimizers.lion import lion
from hptransfer.optimizers.muon import Orthogonal, Scaling, muon, muon_sp
from hptransfer.optimizers.rules import init_state
from hptransfer.optimizers.sgd import nsgd, sgd, signsgd
from hptransfer.spec import Param, Role
from units import (
    DENSE,
    EMBEDDING,
    HIDDEN,
    OPTIMIZERS,
    OUTPUT,
    PARAMS,
    VECTOR,
    M,
    at,
    moved,
    random,
)

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


# AdamW


@pytest.mark.parametrize("p", PARAMS.values(), ids=PARAMS.keys())
def test_adamw_mup_is_yangs_table(p: Param) -> None:
    rule = adamw_mup(p, weight_decay=0.1)
    w, g = random(*p.shape), random(*p.shape, seed=1)
    lr_multiplier = 1 / M if p.role in ("hidden", "output") else 1.0
    first = moved(rule, g, w, at(lr=0.5)) - w * (1 - 0.5 * 0.1)
    # Adam's first step is lr * sign(g)
    torch.testing.assert_close(first, -0.5 * lr_multiplier * g.sign(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved(rule, 0 * g, w, at(lr=0.5)), w * (1 - 0.5 * 0.1))


def test_adamw_mup_starts_with_the_variances_of_yangs_table() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, base = 512, 128
    cases = {
        1.0: Param("e", "input", (256, wide), (256, base), embedding=True),
        256**-0.5: Param("i", "input", (wide, 256), (base, 256)),
        wide**-0.5: Param("h", "hidden", (wide, wide), (base, base)),
        base**0.5 / wide: Param("o", "output", (256, wide), (256, base)),
    }
    for std, p in cases.items():
        w = adamw_mup(p, output_init="small").init_weight(generator)
        assert w.std().item() == pytest.approx(std, rel=0.02)
        assert w.shape == p.shape
    zero = adamw_mup(cases[base**0.5 / wide]).init_weight(generator)
    assert zero.abs().max() == 0
    assert adamw_mup(VECTOR).init_weight(generator).abs().max() == 0


def test_a_tied_weight_of_adamw_mup_is_an_output_layer_that_never_starts_at_zero() -> None:
    tied = Param("t", "output", (256, 512), (256, 128), tied=True)
    w = adamw_mup(tied).init_weight(torch.Generator().manual_seed(0))
    assert w.std().item() == pytest.approx(128**0.5 / 512, rel=0.02)
    step = moved(adamw_mup(TIED), random(7, 8), zeros(TIED), at(lr=0.5))
    torch.testing.assert_close(step, -0.5 / M * random(7, 8).sign(), rtol=1e-9, atol=1e-9)


def test_the_eps_of_hidden_weights_shrinks_with_width_and_depth() -> None:
    deep = Param("h", "hidden", (12, 8), (3, 2), depth_m=3.0)
    for p, divisor in ((HIDDEN, M), (deep, 3 * M), (OUTPUT, 1.0), (EMBEDDING, 1.0), (VECTOR, 1.0)):
        assert adamw_mup(p, eps=1e-3).eps == pytest.approx(1e-3 / divisor)
    # the purpose: a gradient that shrinks as 1/(m depth_m) gives the same share of a full step
    g, small = torch.full((12, 8), 1e-3).double(), torch.full((12, 8), 1e-3 / (3 * M)).double()
    base = Param("h", "hidden", (12, 8), (12, 8))
    a = moved(adamw_mup(base, eps=1e-3), g, zeros(HIDDEN), at())
    b = moved(adamw_mup(deep, eps=1e-3), small, zeros(HIDDEN), at())
    torch.testing.assert_close(a, M * b)


def test_adamw_emb_differs_from_adamw_in_the_lr_of_embeddings_alone() -> None:
    for p in EVERY:
        w, g = random(*p.shape), random(*p.shape, seed=1)
        factor = M if p.embedding else 1.0
        plain, scaled = adamw(p), adamw_emb(p)
        assert torch.equal(*(moved(r, 0 * g, w, at(lr=0.25)) for r in (plain, scaled)))  # decay
        a, b = (moved(r, g, zeros(p), at(lr=0.25)) for r in (plain, scaled))
        torch.testing.assert_close(b, factor * a)
        draws = [r.init_weight(torch.Generator().manual_seed(0)) for r in (plain, scaled)]
        assert torch.equal(*draws)


def test_adamw_starts_every_matrix_at_the_same_deviation() -> None:
    roles: tuple[Role, ...] = ("input", "hidden", "output")
    for role in roles:
        p = Param("x", role, (256, 300), (256, 100))
        w = adamw(p).init_weight(torch.Generator().manual_seed(1))
        assert w.std().item() == pytest.approx(0.02, rel=0.02)


# Muon


def test_muon_scales_its_hidden_step_by_the_named_rule() -> None:
    g, w = random(12, 8), zeros(HIDDEN)
    scales: dict[Scaling, float] = {
        "original": math.sqrt(12 / 8),
        "spectral": math.sqrt(12 / 8),
        "match_rms_adamw": 0.2 * math.sqrt(12),
    }
    for scaling, scale in scales.items():
        step = moved(muon(HIDDEN, scaling=scaling, polar="svd"), g, w, at(lr=0.5))
        torch.testing.assert_close(step, -0.5 * scale * unit(g))
    wide = Param("h", "hidden", (8, 12), (2, 3))
    step = moved(muon(wide, polar="svd"), g.mT, w.mT, at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * unit(g).mT)
    step = moved(muon(wide, polar="svd", scaling="spectral"), g.mT, w.mT, at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * math.sqrt(8 / 12) * unit(g).mT)


def test_muon_takes_fused_matrices_one_by_one_and_flattens_convolutions() -> None:
    g = random(*QKV.shape)
    step = moved(muon(QKV, polar="svd"), g, zeros(QKV), at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * torch.cat([unit(part) for part in g.chunk(3)]))
    g = random(*CONV.shape)
    step = moved(muon(CONV, polar="svd"), g, zeros(CONV), at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * unit(g.flatten(1)).view_as(g))


def test_muon_gives_other_parameters_the_mup_rows_and_muon_sp_the_plain_ones() -> None:
    g = random(7, 8)
    w = torch.zeros(7, 8, dtype=torch.float64)
    # a fixed peak lr that follows the schedule: at half the peak, half of it
    half = at(lr=0.25, lr_peak=0.5)
    for p, multiplier in ((OUTPUT, 1 / M), (TIED, 1 / M), (EMBEDDING, 1.0)):
        rule = muon(p, aux_lr=0.1)
        assert isinstance(rule, Adam)
        expected = -0.05 * multiplier * g.sign()
        torch.testing.assert_close(moved(rule, g, w, half), expected, rtol=1e-6, atol=0)
        plain = moved(muon_sp(p, aux_lr=0.1), g, w, half)
        torch.testing.assert_close(plain, -0.05 * g.sign(), rtol=1e-5, atol=0)  # eps 1e-8
    for p in (VECTOR, GAIN, DENSE):
        assert isinstance(muon(p), Adam) and isinstance(muon_sp(p), Adam)
        w, still = random(*p.shape), zeros(p)
        assert torch.equal(moved(muon(p, weight_decay=0.1), still, w, half), w)
    assert isinstance(muon(HIDDEN), Orthogonal)
    generator = torch.Generator().manual_seed(0)
    assert muon(OUTPUT).init_weight(generator).abs().max() == 0
    assert muon(TIED).init_weight(generator).abs().max() > 0
    assert muon_sp(OUTPUT).init_weight(generator).abs().max() > 0


@pytest.mark.parametrize("name", ["muon", "muon_sp", *(n for n in OPTIMIZERS if "scion" in n)])
def test_the_number_of_polar_steps_can_be_chosen(name: str) -> None:
    factory = registry.load("optimizer", name)
    g = random(*HIDDEN.shape)
    default, all_8, few = (
        moved(factory(HIDDEN, polar_steps=k), g, zeros(HIDDEN), at()) for k in (0, 8, 2)
    )
    assert torch.equal(default, all_8)
    assert not torch.allclose(default, few, rtol=1e-2)


# SGD, Lion


def test_momentum_of_sgd_sums_and_that_of_the_normalised_ones_averages() -> None:
    g, w = random(1, *HIDDEN.shape), zeros(HIDDEN)[None]
    ends = {}
    for rule in (sgd(HIDDEN, momentum=0.5), nsgd(HIDDEN, beta=0.5), signsgd(HIDDEN, beta=0.5)):
        x, state = w, init_state(rule, w)
        for t in range(2):
            x, state = rule.update((1 - 3 * t) * g, state, x, at(t, lr=0.1))  # g, then -2 g
        ends[len(ends)] = x
    torch.testing.assert_close(ends[0], -0.1 * g - 0.1 * (0.5 - 2) * g)
    torch.testing.assert_close(ends[1], 0 * g, rtol=0, atol=1e-16)  # there and back
    torch.testing.assert_close(ends[2], 0 * g, rtol=0, atol=1e-16)


@pytest.mark.parametrize("p", EVERY, ids=lambda p: p.name)
def test_nsgd_moves_every_matrix_by_lr_in_its_own_frobenius_norm(p: Param) -> None:
    step = moved(nsgd(p), 1e-9 * random(*p.shape), zeros(p), at(lr=0.5))
    parts = step.unflatten(0, (p.parts, -1)).flatten(1)
    torch.testing.assert_close(parts.norm(dim=1), torch.full((p.parts,), 0.5).double())
    assert torch.equal(moved(nsgd(p), zeros(p), zeros(p), at()), zeros(p))


def test_sgd_and_its_normalised_kin_start_at_one_over_fan_in() -> None:
    for factory in (sgd, nsgd, signsgd):
        for p, std in (
            (Param("h", "hidden", (300, 400), (3, 4)), 0.05),
            (Param("e", "input", (300, 400), (300, 4), embedding=True), 1.0),
            (Param("t", "output", (300, 400), (300, 4), tied=True), 0.05),
        ):
            w = factory(p).init_weight(torch.Generator().manual_seed(0))
            assert w.std().item() == pytest.approx(std, rel=0.02)


def test_lion_steps_by_the_interpolation_and_keeps_another_average() -> None:
    rule = lion(HIDDEN, beta1=0.5, beta2=0.8, weight_decay=0.1)
    g, w = random(1, *HIDDEN.shape), random(1, *HIDDEN.shape, seed=1)
    x, state = rule.update(g, init_state(rule, w), w, at(lr=0.2))
    torch.testing.assert_close(x, 0.98 * w - 0.2 * g.sign())
    torch.testing.assert_close(state["m"], 0.2 * g)
    # 0.5 * 0.2 g - 0.5 * 0.1 g is still g's sign, the new average is 0.16 g - 0.02 g
    y, state = rule.update(-0.1 * g, state, x, at(1, lr=0.2))
    torch.testing.assert_close(y, 0.98 * x - 0.2 * g.sign())
    torch.testing.assert_close(state["m"], 0.14 * g)
