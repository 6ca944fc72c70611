"""MOGA: its norms by role, the look-ahead on the old average, the defaults, its authors' code."""

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from hptransfer.geometry.norms import rownorm
from hptransfer.optimizers.moga import MOGA, moga_col, moga_official, moga_row
from hptransfer.optimizers.rules import as_matrix, from_matrix, init_state
from hptransfer.optimizers.scion import NormName, scion_unconstrained
from hptransfer.spec import Param
from units import DENSE, EMBEDDING, HIDDEN, OUTPUT, VECTOR, at, moved, random

CONV = Param("c", "hidden", (6, 4, 3, 3), (3, 2, 3, 3), conv=True)
QKV = Param("qkv", "hidden", (24, 8), (6, 2), parts=3)
GAIN = Param("g", "vector", (8,), (2,), gain=True)
MATRICES = (DENSE, HIDDEN, OUTPUT, CONV, QKV)


def line(g: Tensor, exponent: float) -> Tensor:
    """sign(g)|g|^(e-1) / ||g||_e^(e-1) of one vector, as on the authors' slides."""
    if exponent == math.inf:
        d = torch.zeros_like(g)
        d[g.abs().argmax()] = g[g.abs().argmax()].sign()
        return d
    size = g.abs().pow(exponent).sum().pow(1 / exponent)
    return g.sign() * g.abs().pow(exponent - 1) / size.pow(exponent - 1)


def by_row(g: Tensor, p: float) -> Tensor:
    return g.shape[1] ** (-1 / p) * torch.stack([line(row, p) for row in g])


def by_column(g: Tensor, q: float) -> Tensor:
    conjugate = 1.0 if q == math.inf else q / (q - 1)
    columns = torch.stack([line(column, conjugate) for column in g.mT], dim=1)
    return g.shape[0] ** (1 / q) / g.shape[1] * columns


def expected(p: Param, g: Tensor, direction: Callable[[Tensor], Tensor]) -> Tensor:
    """The direction of every fused matrix in the tensor's own shape."""
    matrices = as_matrix(p, g)
    stacked = matrices if p.parts > 1 else matrices[None]
    units = torch.stack([direction(matrix) for matrix in stacked])
    return from_matrix(p, units if p.parts > 1 else units[0])


@pytest.mark.parametrize("p", ["1", "1.5", "2", "3", "inf"])
@pytest.mark.parametrize("param", MATRICES, ids=lambda p: p.name)
def test_moga_row_moves_by_the_slides_row_formula(
    param: Param, p: Literal["1", "1.5", "2", "3", "inf"]
) -> None:
    g, w = random(*param.shape), random(*param.shape, seed=1)
    step = moved(moga_row(param, p=p, weight_decay=0.0), g, w, at(lr=0.5)) - w
    direction = expected(param, g, lambda matrix: by_row(matrix, float(p)))
    torch.testing.assert_close(step, -0.5 * direction, rtol=0, atol=1e-14)


@pytest.mark.parametrize("q", ["2", "3", "inf"])
@pytest.mark.parametrize("param", MATRICES, ids=lambda p: p.name)
def test_moga_col_moves_by_the_slides_column_formula(
    param: Param, q: Literal["2", "3", "inf"]
) -> None:
    g, w = random(*param.shape), random(*param.shape, seed=1)
    step = moved(moga_col(param, q=q, weight_decay=0.0), g, w, at(lr=0.5)) - w
    direction = expected(param, g, lambda matrix: by_column(matrix, float(q)))
    torch.testing.assert_close(step, -0.5 * direction, rtol=0, atol=1e-14)


def test_the_second_power_is_rownorm_and_colnorm_and_the_ends_are_sign() -> None:
    g, w = random(*HIDDEN.shape), torch.zeros(HIDDEN.shape, dtype=torch.float64)
    pairs: list[tuple[MOGA, NormName]] = [
        (moga_row(HIDDEN, p="2"), "rownorm"),
        (moga_col(HIDDEN, q="2"), "colnorm"),
        (moga_row(HIDDEN, p="1"), "sign"),
        (moga_col(HIDDEN, q="inf"), "sign"),
    ]
    for rule, name in pairs:
        scion = scion_unconstrained(HIDDEN, hidden=name, radius_hidden=1.0)
        torch.testing.assert_close(moved(rule, g, w, at()), moved(scion, g, w, at()))


@pytest.mark.parametrize("factory", [moga_row, moga_col])
def test_embeddings_move_by_tokens_or_signs_and_vectors_by_signs(
    factory: Callable[..., MOGA],
) -> None:
    g, w = random(*EMBEDDING.shape), torch.zeros(EMBEDDING.shape, dtype=torch.float64)
    g[2] = 0
    step = moved(factory(EMBEDDING), g, w, at(lr=0.5))
    rms = step.square().mean(1).sqrt()
    torch.testing.assert_close(rms, 0.5 * torch.tensor([1.0, 1, 0, 1, 1, 1, 1]).double())
    step = moved(factory(EMBEDDING, embedding="sign"), g, w, at(lr=0.5))
    assert torch.equal(step, -0.5 * g.sign())
    for p, start in ((VECTOR, 0.0), (GAIN, 1.0)):
        rule = factory(p, weight_decay=0.5)
        w = rule.init_weight(torch.Generator())
        assert torch.equal(w, torch.full((8,), start).double())
        step = moved(rule, random(8), w, at(lr=0.25)) - w
        torch.testing.assert_close(step, -0.25 * random(8).sign())  # and no decay


def test_the_look_ahead_starts_from_the_old_average() -> None:
    """The step follows b2 M + (1-b2) G, not the new average M' = b1 M + (1-b1) G."""
    rule = moga_row(HIDDEN, beta1=0.8, beta2=0.3, weight_decay=0.5)
    w = random(1, *HIDDEN.shape, seed=9)
    state = init_state(rule, w)
    m = torch.zeros_like(w[0])
    for t in range(6):
        g = random(1, *HIDDEN.shape, seed=t)
        ahead = 0.3 * m + 0.7 * g[0]
        m = 0.8 * m + 0.2 * g[0]
        target = w[0] * (1 - 0.1 * 0.5) - 0.1 * by_row(ahead, 2.0)
        w, state = rule.update(g, state, w, at(t, lr=0.1))
        torch.testing.assert_close(w[0], target, rtol=0, atol=1e-14)
        torch.testing.assert_close(state["m"][0], m, rtol=0, atol=1e-14)


def test_equal_betas_are_a_plain_average() -> None:
    """Then the iterates equal those of unconstrained Scion in the same norm."""
    rule = moga_col(HIDDEN, beta1=0.7, beta2=0.7, weight_decay=0.0)
    scion = scion_unconstrained(HIDDEN, beta=0.7, hidden="colnorm", radius_hidden=1.0)
    a = b = random(1, *HIDDEN.shape, seed=9)
    state_a, state_b = init_state(rule, a), init_state(scion, b)
    for t in range(6):
        g = random(1, *HIDDEN.shape, seed=t)
        a, state_a = rule.update(g, state_a, a, at(t))
        b, state_b = scion.update(g, state_b, b, at(t))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_weights_start_as_in_mup_with_a_zero_output() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = Param("h", "hidden", (300, 400), (3, 4))
    tokens = Param("e", "input", (300, 400), (300, 4), embedding=True)
    assert moga_row(wide).init_weight(generator).std().item() == pytest.approx(0.05, rel=0.02)
    assert moga_row(tokens).init_weight(generator).std().item() == pytest.approx(1.0, rel=0.02)
    assert moga_row(OUTPUT).init_weight(generator).abs().max() == 0
    tied = Param("t", "output", (300, 400), (300, 100), tied=True)
    assert moga_row(tied).init_weight(generator).std().item() == pytest.approx(1 / 40, rel=0.02)


def authors_direction(p: Param, m: Tensor) -> Tensor:
    """The update of the authors' code over the lr, role by role, at p = 2 and base factor 20."""
    if p.embedding or p.role == "vector":
        return m.sign()
    if p.role == "output":
        return m / m.norm(dim=1, keepdim=True)
    blocks = m.chunk(p.parts)  # q, k and v one after another
    lines = [block.flatten(1) for block in blocks]
    units = [20 / line.shape[1] ** 0.5 * line / line.norm(dim=1, keepdim=True) for line in lines]
    return torch.cat(units).view(p.shape)


TIED = Param("t", "output", (7, 8), (7, 2), tied=True)
POSITIONS = Param("x", "input", (1, 7, 8), (1, 7, 2), embedding=True)


@pytest.mark.parametrize(
    "param", [*MATRICES, EMBEDDING, POSITIONS, TIED, VECTOR, GAIN], ids=lambda p: p.name
)
def test_moga_official_follows_a_plain_loop_with_the_authors_constants(param: Param) -> None:
    rule = moga_official(param)
    w = random(1, *param.shape, seed=9)
    state = init_state(rule, w)
    x, m = w[0].clone(), torch.zeros(param.shape, dtype=torch.float64)
    for t in range(50):
        lr = 0.01 * (1 - t / 50)
        g = torch.tanh(x - random(*param.shape, seed=8)) + 0.3 * random(*param.shape, seed=100 + t)
        m = 0.95 * m + 0.05 * g
        decay = 0.0 if param.role == "vector" else 0.1
        x = x * (1 - lr * decay) - lr * authors_direction(param, m)
        w, state = rule.update(g[None], state, w, at(t, lr, lr_peak=0.01))
        torch.testing.assert_close(w[0], x, rtol=0, atol=1e-12)


def test_on_hidden_weights_moga_official_is_moga_row_at_20_times_the_lr() -> None:
    official = moga_official(HIDDEN, weight_decay=0.0)
    row = moga_row(HIDDEN, beta1=0.95, beta2=0.95, weight_decay=0.0)
    g, w = random(*HIDDEN.shape), random(*HIDDEN.shape, seed=1)
    one, other = moved(official, g, w, at(lr=0.01)), moved(row, g, w, at(lr=0.2))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-15)


@pytest.mark.parametrize("power", ["1", "2", "3"])
def test_the_base_factor_moves_hidden_weights_and_no_others(power: Literal["1", "2", "3"]) -> None:
    for p in (*MATRICES, EMBEDDING, VECTOR):
        g, zero = random(*p.shape), torch.zeros(p.shape, dtype=torch.float64)
        one, other = (
            moved(moga_official(p, p=power, base_factor=f), g, zero, at()) for f in (1, 3)
        )
        hidden = p in (DENSE, HIDDEN, CONV, QKV)
        torch.testing.assert_close(other, 3 * one if hidden else one)
    g, zero = random(*HIDDEN.shape), torch.zeros(HIDDEN.shape, dtype=torch.float64)
    step = moved(moga_official(HIDDEN, p=power), g, zero, at(lr=0.5))
    torch.testing.assert_close(step, -0.5 * 20 * by_row(g, float(power)))


def test_without_a_fan_factor_the_norm_of_an_output_update_grows_with_the_root_of_the_width() -> (
    None
):
    def sizes(factory: Callable[[Param], MOGA], role: Literal["hidden", "output"]) -> list[float]:
        found = []
        for width in (64, 256, 1024):
            p = Param("w", role, (10, width), (10, 64))
            step = moved(factory(p), random(10, width), torch.zeros(10, width).double(), at(lr=1.0))
            found.append(rownorm().norm(step).item())
        return found

    assert sizes(moga_official, "output") == pytest.approx([8.0, 16.0, 32.0])
    assert sizes(moga_official, "hidden") == pytest.approx([20.0, 20.0, 20.0])
    assert sizes(moga_row, "output") == pytest.approx([1.0, 1.0, 1.0])
