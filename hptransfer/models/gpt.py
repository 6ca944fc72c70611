"""A small GPT for width studies, in one file."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hptransfer.errors import InputError

REVISION = {"gpt": 1}
LIMITS = {
    "n_layer": (1, 1000),
    "head_size": (2, 1024),
    "context": (2, 1_000_000),
    "residual_base": (0, 1000),
}


class _LaneAttention(torch.autograd.Function):
    """Causal attention whose vmap rule folds the lanes into the batch.

    `scaled_dot_product_attention` has no batching rule on CPU, so vmap would loop over the lanes.
    This class needs no backward: vmap sees the forward pass alone, and ordinary autograd records
    the operations of the rule. The caller differentiates the sum over lanes outside vmap.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del ctx, inputs, output

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *qkv: Tensor) -> tuple[Tensor, int]:
        lanes = info.batch_size

        def fold(t: Tensor, dim: int | None) -> Tensor:
            t = t.unsqueeze(0).expand(lanes, *t.shape) if dim is None else t.movedim(dim, 0)
            return t.flatten(0, 1)

        q, k, v = (fold(t, dim) for t, dim in zip(qkv, in_dims, strict=True))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.unflatten(0, (lanes, -1)), 0


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(head_size)) v under a causal mask; all (B, n_head, T, head_size)."""
    # torch has no public test for an active vmap.
    if torch._C._functorch.is_batchedtensor(q):  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        return _LaneAttention.apply(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


_weight_norm_backward: Any = torch.ops.aten._weight_norm_interface_backward


class _RMSNorm(torch.autograd.Function):
    """x -> y = x sqrt(d) / (n + 1e-6), n = ||x||_2, over the last dimension.

    The gradient is r g - r (x . g) / (n (n + 1e-6)) x with r = sqrt(d) / (n + 1e-6). A weight norm
    y = (s/N) x has the same gradient for s = r N and N^2 = n (n + 1e-6). Torch's CPU kernel of the
    weight norm passes over memory once; the formula, operation by operation, takes four passes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, *sizes = _normed(x)
        ctx.save_for_backward(x, *sizes)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor | None
    ) -> Tensor | None:
        (x, size, scale), g = ctx.saved_tensors, grads[0]
        if g is None:
            return None
        square = (size / scale).mul_(math.sqrt(x.shape[-1]))  # N^2
        if x.device.type == "cpu" and x.dtype == g.dtype != torch.bfloat16:
            norm = square.sqrt_().clamp_min_(1e-18)  # the kernel divides by its square
            # The kernel requires contiguous tensors but does not check g, whose strides it ignores.
            rows = (t.reshape(-1, t.shape[-1]).contiguous() for t in (g, x, scale * norm, norm))
            return _weight_norm_backward(*rows, 0)[0].view_as(x)
        along = (x * g).sum(-1, keepdim=True) / square.clamp_min(torch.finfo(square.dtype).tiny)
        return (g * scale).addcmul_(x, along * scale, value=-1).type_as(x)


class _LaneRMSNorm(_RMSNorm):
    """`_RMSNorm` in the form with `setup_context`, which vmap and other transforms require.

    Outside a transform this form costs more per call, so `_RMSNorm` stays.
    """

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _normed(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], *x: Tensor) -> tuple[Any, tuple[int, int, int]]:
        """Move the lanes to the front; the norm itself treats them as a batch.

        After an embedding the lanes stand between tokens and features, where later passes over
        memory are slow. `_LaneAttention` says why no backward is needed.
        """
        del info
        return _LaneRMSNorm.apply(x[0].movedim(in_dims[0], 0).contiguous()), (0, 0, 0)


def _normed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y (..., d), n and r (..., 1) of `_RMSNorm`."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = (size + 1e-6).reciprocal_().mul_(math.sqrt(x.shape[-1]))
    return x * scale, size, scale


def rms_norm(x: Tensor) -> Tensor:
    """x / ||x||_RMS over the last dimension, without affine parameters."""
    if torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]
        return _LaneRMSNorm.apply(x)[0]
    return _RMSNorm.apply(x)


class Block(nn.Module):
    """x + c attention(norm(x)), then x + c mlp(norm(x)), c = `branch`; (B, T, width)."""

    def __init__(self, width: int, head_size: int, gain: float, branch: float) -> None:
        super().__init__()
        self.head_size = head_size
        self.gain = gain
        self.branch = branch
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        x = torch.add(x, self.attention(rms_norm(x), turn), alpha=self.branch)
        # gain * down(gelu) = down(gain * gelu), and the output of `down` is four times smaller.
        hidden = self.down(F.gelu(self.up(rms_norm(x))))
        return torch.add(x, hidden, alpha=self.branch * self.gain)

    def attention(self, x: Tensor, turn: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            linear(x).view(B, T, C // self.head_size, self.head_size)
            for linear in (self.q, self.k, self.v)
        )
        q, k = (rotate(rms_norm(t), turn[:, None]) for t in (q, k))
        y = causal_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return self.o(y.transpose(1, 2).reshape(B, T, C))


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions of x (B, T, n_head, h); `turn`: complex (T, 1, h/2).

    The pair (x_2i, x_2i+1), read as a complex number, turns by the angle t 10000^(-2i/h).
    Source: Su et al. 2021, arXiv:2104.09864.
    """
    real = x.to(torch.promote_types(x.dtype, torch.float32))
    pairs = torch.view_as_complex(real.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).type_as(x)


class GPT(nn.Module):
    """Byte tokens (B, T) -> logits (B, T, vocab)."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        width: int,
        vocab: int,
        n_layer: int,
        head_size: int,
        context: int,
        gain: float,
        tied: bool,
        branch: float,
    ) -> None:
        super().__init__()
        self.tied = tied
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, head_size, gain, branch) for _ in range(n_layer))
        self.head = nn.Linear(width, vocab, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        frequency = 10000.0 ** (-torch.arange(0, head_size, 2) / head_size)
        angle = torch.outer(torch.arange(context).float(), frequency)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def roles(self) -> dict[str, str]:
        # named_parameters() lists a tied weight once, under its first name.
        ends = {"embedding.weight": "output" if self.tied else "input", "head.weight": "output"}
        return {n: ends.get(n, "hidden") for n, _ in self.named_parameters()}

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        turn = torch.complex(self.cos[:T], self.sin[:T])
        h = rms_norm(self.embedding(x))
        for block in self.blocks:
            h = block(h, turn)
        return self.head(rms_norm(h))


def gpt(
    width: int,
    *,
    vocab: int = 256,
    n_layer: int = 2,
    head_size: int = 32,
    context: int = 64,
    sqrt2: bool = True,
    tied: bool = False,
    residual_base: int = 0,
) -> GPT:
    """Pre-norm GPT: RMSNorm without gain, rotary positions, QK-norm, GELU, no biases.

    Tokens (B, T), T <= context -> logits (B, T, vocab). The head size is fixed, so the number of
    heads grows with `width`. `sqrt2` multiplies the activation by sqrt(2) (Pethick et al. 2025,
    arXiv:2502.07529), equally for every optimizer of a suite. `tied`: one weight is the embedding
    and the head. `residual_base`: multiplies every residual branch by residual_base / n_layer (Dey
    et al. 2025, CompleteP, arXiv:2505.01618); 0 multiplies by 1.
    Raises InputError where the head size is odd or does not divide the width.
    """
    if width % head_size:
        below = width // head_size * head_size
        raise InputError(
            f"width {width} is not a multiple of head_size {head_size}",
            f"the nearest widths are {below} and {below + head_size}"
            if below
            else f"the nearest width is {head_size}",
        )
    if head_size % 2:
        raise InputError(
            f"model.head_size: got {head_size}, needs an even number", "rotary positions turn pairs"
        )
    gain = math.sqrt(2.0) if sqrt2 else 1.0
    branch = residual_base / n_layer if residual_base else 1.0
    return GPT(width, vocab, n_layer, head_size, context, gain, tied, branch)
