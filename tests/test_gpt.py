"""Parts of the transformers: attention, rotary positions, and the norm of activations."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from hptransfer.models.gpt import causal_attention, gpt, rms_norm, rotate
from hptransfer.models.vit import attention
from units import random as noise


def test_attention_is_the_softmax_of_its_formula_masked_in_the_gpt_alone() -> None:
    q, k, v = (noise(2, 3, 5, 4, seed=s) for s in range(3))
    scores = q @ k.mT / math.sqrt(4)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = scores.masked_fill(mask, -math.inf).softmax(-1) @ v
    torch.testing.assert_close(causal_attention(q, k, v), expected)
    torch.testing.assert_close(attention(q, k, v), scores.softmax(-1) @ v)


@pytest.mark.parametrize("attend", [causal_attention, attention])
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, 0, 2), (0, None, 0), (0, 0, None)])
def test_attention_under_vmap_equals_a_loop_in_value_and_gradient(
    in_dims: tuple[int | None, ...], attend: Callable[..., Tensor]
) -> None:
    lanes_, shape = 3, (2, 3, 5, 4)
    leaves = []
    for seed, dim in enumerate(in_dims):
        full = list(shape)
        if dim is not None:
            full.insert(dim, lanes_)
        leaves.append(noise(*full, seed=seed).requires_grad_())

    def lane(i: int) -> list[Tensor]:
        return [t if d is None else t.select(d, i) for t, d in zip(leaves, in_dims, strict=True)]

    together = vmap(attend, in_dims=in_dims)(*leaves)
    loop = torch.stack([attend(*lane(i)) for i in range(lanes_)])
    torch.testing.assert_close(together, loop)
    pull = noise(*together.shape, seed=9)
    for a, b in zip(
        torch.autograd.grad((together * pull).sum(), leaves),
        torch.autograd.grad((loop * pull).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_rotation_keeps_lengths_and_depends_on_the_distance_alone() -> None:
    model = gpt(width=8, vocab=4, head_size=8, context=32).double()
    turn = torch.complex(model.cos, model.sin)
    q, k = noise(8), noise(8, seed=1)
    turned_q, turned_k = rotate(q.expand(32, 8), turn), rotate(k.expand(32, 8), turn)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(32))
    scores = turned_q @ turned_k.mT
    for distance in (0, 3, 20):
        along = scores.diagonal(-distance)
        # angles are float32
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-4)
    assert (scores[5, 0] - scores[9, 0]).abs() > 1e-3


def test_normalised_activations_have_rms_one() -> None:
    x = 100 * noise(3, 7, 64)
    torch.testing.assert_close(rms_norm(x).square().mean(-1), torch.ones(3, 7).double())
    x[0, 0] = 0
    x.requires_grad_()
    rms_norm(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def formula(x: Tensor) -> Tensor:
    return x * (math.sqrt(8) / (x.square().sum(-1, keepdim=True).sqrt() + 1e-6))


@pytest.mark.parametrize("dim", [0, 1])
def test_the_gradient_of_the_norm_is_that_of_its_formula_also_under_vmap(dim: int) -> None:
    x = noise(3, 3, 8).mul(100).requires_grad_()
    pull = noise(3, 3, 8, seed=1)
    (expected,) = torch.autograd.grad((formula(x) * pull).sum(), x)
    for mapped in (rms_norm(x), vmap(rms_norm, dim, dim)(x)):
        (found,) = torch.autograd.grad((mapped * pull).sum(), x)
        torch.testing.assert_close(mapped, formula(x))
        torch.testing.assert_close(found, expected)
    found = torch.func.grad(lambda x: (rms_norm(x) * pull).sum())(x.detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 3e-2)]
)
def test_the_gradient_of_the_norm_holds_for_rows_of_every_size(
    dtype: torch.dtype, near: float
) -> None:
    sizes = 10.0 ** torch.arange(-16, 5, 2)
    x = (noise(8, 11, seed=2).mT * sizes[:, None]).to(dtype)  # a transpose is not contiguous
    pull = noise(11, 8, seed=3).to(dtype)
    exact, own = (t.requires_grad_() for t in (x.double(), x.clone()))
    (formula(exact) * pull.double()).sum().backward()
    (rms_norm(own) * pull).sum().backward()
    assert own.grad is not None and exact.grad is not None
    largest = exact.grad.abs().amax(-1, keepdim=True)
    assert ((own.grad - exact.grad).abs() / largest).max() < near


def test_a_second_derivative_of_the_norm_is_refused() -> None:
    x = noise(2, 8).requires_grad_()
    (first,) = torch.autograd.grad(rms_norm(x).square()[0, 0], x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_under_autocast_the_gradient_of_the_norm_has_the_type_of_its_input() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        x = noise(4, 8).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = rms_norm(x)
        y.square().sum().backward()
        assert x.grad is not None and x.grad.dtype == dtype
