"""Every optimizer against its table in METHODS, and against independent implementations."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hptransfer import registry
from hptransfer.datasets import offsets
from hptransfer.lanes import build, lr_factor
from hptransfer.norms import polar
from hptransfer.optimizers.adamw import Adam, adamw, adamw_mup
from hptransfer.optimizers.muon import Orthogonal, muon, muon_sp
from hptransfer.optimizers.rules import Rule, as_matrix, from_matrix
from hptransfer.optimizers.scion import (
    LMO,
    scion,
    scion_unconstrained,
    transported_scion,
)
from hptransfer.spec import Param, RunSpec
from units import (
    CONTEXT,
    EMBEDDING,
    HIDDEN,
    OUTPUT,
    PARAMS,
    VECTOR,
    M,
    at,
    data_for,
    digits,
    lanes,
    moved,
    random,
    spec,
    stepped,
    tokens,
    weights,
)


def batch_of(run: RunSpec, t: int) -> tuple[Tensor, Tensor]:
    """The training batch of a step, read off the data itself."""
    if run.model["name"] == "mlp":
        data = digits()
        chosen = offsets(run.seed, t, run.batch, len(data.y_train))
        return torch.from_numpy(data.x_train[chosen]), torch.from_numpy(data.y_train[chosen])
    stream = torch.from_numpy(tokens().train).long()
    begins = offsets(run.seed, t, run.batch, len(stream) - CONTEXT)
    windows = torch.stack([stream[b : b + CONTEXT + 1] for b in begins.tolist()])
    return windows[:, :-1], windows[:, 1:]


def plain_gradients(
    run: RunSpec, model: torch.nn.Module, t: int, dtype: torch.dtype = torch.float64
) -> float:
    """Gradients of step t by an ordinary backward pass, into `.grad`."""
    model.zero_grad()
    x, y = batch_of(run, t)
    x = x.to(dtype) if x.is_floating_point() else x
    loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
    loss.backward()
    return loss.item()


def plain_model(run: RunSpec, start: dict[str, Tensor], dtype: torch.dtype) -> torch.nn.Module:
    model = build(run, data_for(run.model["name"]), run.width).to(dtype)
    model.load_state_dict(start)
    return model


# AdamW


@pytest.mark.parametrize("model", ["gpt", "mlp"])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_adamw_follows_torch_adamw_for_20_steps(model: str, clip: float) -> None:
    run = spec("adamw", model, steps=20, warmup=0.2, clip=clip, hp={"weight_decay": 0.5})
    ours = stepped([run], dtype=torch.float64)
    other = plain_model(run, weights(lanes([run], dtype=torch.float64)), torch.float64)
    optimizer = torch.optim.AdamW(
        other.parameters(), lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.5
    )
    for t in range(run.steps):
        optimizer.param_groups[0]["lr"] = run.lr * lr_factor(run, t)
        loss = plain_gradients(run, other, t)
        # Lanes keeps float32 losses; the weights below are compared in float64
        assert ours.losses[0, t].item() == pytest.approx(loss, rel=1e-6)
        if clip:
            # torch divides by norm + 1e-6; the norm is near 1 here
            torch.nn.utils.clip_grad_norm_(other.parameters(), clip)
        optimizer.step()
    end = weights(ours)
    for name, w in other.named_parameters():
        torch.testing.assert_close(end[name], w.detach(), rtol=0, atol=1e-6 if clip else 1e-13)


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


def test_adamw_starts_every_matrix_at_the_same_deviation() -> None:
    for p in (Param("e", "input", (256, 300), (256, 100), embedding=True), HIDDEN):
        w = adamw(Param("x", p.role, (256, 300), (256, 100))).init_weight(
            torch.Generator().manual_seed(1)
        )
        assert w.std().item() == pytest.approx(0.02, rel=0.02)


# Muon


@pytest.mark.parametrize("scaling", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("same_polar", [True, False])
def test_muon_follows_torch_muon_for_20_steps(
    scaling: str, nesterov: bool, same_polar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same gradients, from a real run, go to both.

    torch casts to bfloat16 before it divides by the norm, we after; each rounding is 2^-9, and the
    five steps, whose slope at 0 is 3.4 each, carry it to about a percent of the way. With the same
    exact polar factor in both the rest must agree to float32 rounding.
    """
    if same_polar:
        monkeypatch.setattr(
            "torch.optim._muon._zeropower_via_newtonschulz",
            lambda g, *_: polar(g, "svd"),
        )
    hp = {
        "polar": "svd" if same_polar else "jordan",
        "weight_decay": 0.1,
        "scaling": scaling,
        "nesterov": nesterov,
    }
    run = spec("muon", "gpt", steps=20, batch=16, hp=hp, log2_lr=-5.0)
    ours = lanes([run])
    hidden = [name for name in weights(ours) if name.startswith("blocks")]
    start = weights(ours)
    others = {name: torch.nn.Parameter(start[name].clone()) for name in hidden}
    optimizer = torch.optim.Muon(
        others.values(),
        lr=1.0,
        weight_decay=0.1,
        momentum=0.95,
        nesterov=nesterov,
        adjust_lr_fn=scaling,  # type: ignore[arg-type]
    )
    for t in range(run.steps):
        ours.gradients(t)
        for group in ours.groups:
            for i, name in enumerate(group.names):
                if name in others:
                    others[name].grad = group.g[i].clone()
        optimizer.param_groups[0]["lr"] = run.lr * lr_factor(run, t)
        optimizer.step()
        ours.update(t)
    end = weights(ours)
    for name in hidden:
        ahead = end[name] - start[name]
        difference = (end[name] - others[name].detach()).norm() / ahead.norm()
        assert difference < (2e-6 if same_polar else 0.03), name


def test_muon_scales_its_hidden_step_by_the_named_rule() -> None:
    g, w = random(12, 8), torch.zeros(12, 8, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    for scaling, scale in (
        ("original", math.sqrt(12 / 8)),
        ("spectral", math.sqrt(12 / 8)),
        ("match_rms_adamw", 0.2 * math.sqrt(12)),
    ):
        step = moved(muon(HIDDEN, scaling=scaling, polar="svd"), g, w, at(lr=0.5))  # type: ignore[arg-type]
        torch.testing.assert_close(step, -0.5 * scale * u @ vh)
    wide = Param("h", "hidden", (8, 12), (2, 3))
    step = moved(muon(wide, polar="svd"), g.mT, w.mT, at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * (u @ vh).mT)
    step = moved(muon(wide, polar="svd", scaling="spectral"), g.mT, w.mT, at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * math.sqrt(8 / 12) * (u @ vh).mT)


def test_muon_gives_other_parameters_the_mup_rows_and_muon_sp_the_plain_ones() -> None:
    g = random(7, 8)
    w = torch.zeros(7, 8, dtype=torch.float64)
    # a fixed peak lr that follows the schedule: at half the peak, half of it
    half = at(lr=0.25, lr_peak=0.5)
    for p, multiplier in ((OUTPUT, 1 / M), (EMBEDDING, 1.0)):
        rule = muon(p, aux_lr=0.1)
        assert isinstance(rule, Adam)
        expected = -0.05 * multiplier * g.sign()
        torch.testing.assert_close(moved(rule, g, w, half), expected, rtol=1e-6, atol=0)
        plain = moved(muon_sp(p, aux_lr=0.1), g, w, half)
        torch.testing.assert_close(plain, -0.05 * g.sign(), rtol=1e-5, atol=0)  # eps 1e-8
    assert isinstance(muon(HIDDEN), Orthogonal)
    generator = torch.Generator().manual_seed(0)
    assert muon(OUTPUT).init_weight(generator).abs().max() == 0
    assert muon_sp(OUTPUT).init_weight(generator).abs().max() > 0


# Scion


def reference_direction(p: Param, m: Tensor) -> Tensor:
    """D(M) of ColNorm -> Spectral -> Sign, written out from METHODS section 0."""
    if p.embedding:
        d = p.shape[1]
        return math.sqrt(d) * m / m.norm(dim=1, keepdim=True).clamp(min=1e-300)
    if p.role == "output":
        return m.sign() / p.shape[1]
    u, values, vh = torch.linalg.svd(m, full_matrices=False)
    u = u * (values > 1e-10 * values[0])  # a unit that is off has a zero row
    factor = math.sqrt(p.shape[0] / p.shape[1])
    return (max(1.0, factor) if p.role == "input" else factor) * u @ vh


RADIUS = {"input": 1.0, "hidden": 3.0, "output": 10.0}


@pytest.mark.parametrize("optimizer", ["scion", "scion_unconstrained"])
@pytest.mark.parametrize("model", ["gpt", "mlp"])
def test_scion_follows_the_papers_loop_for_10_steps(optimizer: str, model: str) -> None:
    run = spec(optimizer, model, steps=10, batch=32, hp={"polar": "svd"}, log2_lr=-6.0)
    ours = stepped([run], dtype=torch.float64)
    other = plain_model(run, weights(lanes([run], dtype=torch.float64)), torch.float64)
    params = {name: g.p for g in ours.groups for name in g.names}
    d: dict[str, Tensor] = {}
    for t in range(run.steps):
        plain_gradients(run, other, t)
        gamma = run.lr * lr_factor(run, t)
        with torch.no_grad():
            for name, x in other.named_parameters():
                assert x.grad is not None
                d[name] = 0.1 * x.grad + 0.9 * d.get(name, torch.zeros_like(x))
                if optimizer == "scion":
                    x.mul_(1 - gamma)
                p = params[name]
                x.sub_(gamma * RADIUS[p.role] * reference_direction(p, d[name]))
    end = weights(ours)
    for name, w in other.named_parameters():
        torch.testing.assert_close(end[name], w.detach(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("p", PARAMS.values(), ids=PARAMS.keys())
def test_constrained_scion_is_unconstrained_scion_with_decay(p: Param) -> None:
    w, g = random(*p.shape), random(*p.shape, seed=1)
    constrained = moved(scion(p), g, w, at(lr=0.25))
    free = moved(scion_unconstrained(p), g, w, at(lr=0.25))
    torch.testing.assert_close(constrained, free - 0.25 * w, rtol=0, atol=1e-14)


@pytest.mark.parametrize("p", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("stretch", [1.0, 3.0])
@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_constrained_iterates_stay_in_the_ball(p: Param, stretch: float, lr: float) -> None:
    rule = scion(p, start="first")
    assert isinstance(rule, LMO)
    x = stretch * rule.init_weight(torch.Generator().manual_seed(0))[None]
    limit = max(rule.norm.norm(as_matrix(p, x)).item(), rule.radius)
    state = rule.init_state(x)
    for t in range(15):
        g = random(*x.shape, seed=t + 2)
        x, state = rule.update(g, state, x, at(t, lr=lr))
        # Polar Express ends within 1e-3 of the sphere
        assert rule.norm.norm(as_matrix(p, x)).item() <= limit * (1 + 1e-3)


def test_scion_starts_on_its_ball_and_a_vector_at_zero() -> None:
    for p in PARAMS.values():
        for factory in (scion, scion_unconstrained):
            rule = factory(p)
            assert isinstance(rule, LMO)
            w = rule.init_weight(torch.Generator().manual_seed(0))
            assert w.shape == p.shape
            size = rule.norm.norm(as_matrix(p, w)).item()
            assert size == pytest.approx(0.0 if p.role == "vector" else rule.radius)


def test_a_vector_moves_by_its_rms() -> None:
    w, g = torch.zeros(8, dtype=torch.float64), random(8)
    step = moved(scion_unconstrained(VECTOR, radius_hidden=3.0), g, w, at(lr=0.5))
    torch.testing.assert_close(step, -1.5 * g / g.square().mean().sqrt())


@pytest.mark.parametrize(
    "factory", [scion_unconstrained, partial(transported_scion, transport=0.0)]
)
def test_rows_of_seen_tokens_move_by_one_rms_and_unseen_ones_exactly_by_zero(
    factory: Callable[..., Rule],
) -> None:
    rule = factory(EMBEDDING, radius_input=2.0)
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
    before, after = (weights(r)["embedding.weight"] for r in (lanes([run]), stepped([run])))
    seen = torch.zeros(len(before), dtype=torch.bool)
    seen[batch_of(run, 0)[0].flatten()] = True
    assert torch.equal(after[~seen], before[~seen])
    moves = (after - before)[seen].square().mean(1).sqrt()
    torch.testing.assert_close(moves, torch.full_like(moves, run.lr))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("optimizer", ["scion", "scion_unconstrained", "transported_scion"])
def test_scaling_the_loss_leaves_the_iterates_unchanged(optimizer: str, scale: float) -> None:
    run = spec(optimizer, "gpt", batch=16)

    def end(factor: float) -> dict[str, Tensor]:
        running = lanes([run], dtype=torch.float64)
        for t in range(run.steps):
            running.gradients(t)
            for group in running.groups:
                group.g.mul_(factor)
            running.update(t)
        return weights(running)

    plain, scaled = end(1.0), end(scale)
    for name, w in plain.items():
        torch.testing.assert_close(scaled[name], w, rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", ["colnorm", "rownorm", "sign", "spectral", "euclidean"])
def test_any_norm_can_be_named_for_any_role(norm: str) -> None:
    for p in PARAMS.values():
        rule = scion_unconstrained(p, input=norm, hidden=norm, output=norm)  # type: ignore[arg-type]
        assert isinstance(rule, LMO)
        w, g = torch.zeros(p.shape, dtype=torch.float64), random(*p.shape)
        step = moved(rule, g, w, at(lr=0.5))
        assert rule.norm.norm(as_matrix(p, step)).item() == pytest.approx(
            0.5 * rule.radius, rel=1e-3
        )


# All of them


@pytest.mark.parametrize("name", registry.BUILTINS["optimizer"])
def test_a_rule_reads_roles_and_shapes_and_never_names(name: str) -> None:
    factory = registry.load("optimizer", name)
    for p in PARAMS.values():
        renamed = Param("other", p.role, p.shape, p.base_shape, p.embedding, p.conv)
        g, w = random(*p.shape), random(*p.shape, seed=1)
        assert torch.equal(moved(factory(p), g, w, at()), moved(factory(renamed), g, w, at()))


def test_the_matrix_view_is_d_out_by_d_in_and_returns() -> None:
    conv = Param("c", "hidden", (4, 3, 2, 2), (2, 3, 2, 2), conv=True)
    for p, view in (
        (EMBEDDING, (8, 7)),
        (HIDDEN, (12, 8)),
        (VECTOR, (8, 1)),
        (conv, (4, 12)),
    ):
        w = random(2, 3, *p.shape)
        matrix = as_matrix(p, w)
        assert matrix.shape == (2, 3, *view)
        assert (p.d_out, p.d_in) == view
        assert torch.equal(from_matrix(p, matrix), w)
