"""A small vision transformer for width studies, in one file."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hptransfer.errors import InputError

REVISION = {"vit": 1}
LIMITS = {
    "patch": (1, 1024),
    "n_layer": (1, 1000),
    "head_size": (4, 1024),
    "residual_base": (0, 1000),
}


class _LaneAttention(torch.autograd.Function):
    """Attention whose vmap rule folds the lanes into the batch; models/gpt.py says why."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

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
        out = F.scaled_dot_product_attention(q, k, v)
        return out.unflatten(0, (lanes, -1)), 0


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(head_size)) v without a mask; all (B, n_head, T, head_size)."""
    # torch has no public test for an active vmap.
    if torch._C._functorch.is_batchedtensor(q):  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        return _LaneAttention.apply(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def rms_norm(x: Tensor) -> Tensor:
    """x / ||x||_RMS over the last dimension, without affine parameters."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * (math.sqrt(x.shape[-1]) / (size + 1e-6))


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

    def forward(self, x: Tensor) -> Tensor:
        x = torch.add(x, self.attention(rms_norm(x)), alpha=self.branch)
        # gain * down(gelu) = down(gain * gelu), and the output of `down` is four times smaller.
        return x + self.branch * self.gain * self.down(F.gelu(self.up(rms_norm(x))))

    def attention(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            linear(x).view(B, T, C // self.head_size, self.head_size).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        y = attention(rms_norm(q), rms_norm(k), v)
        return self.o(y.transpose(1, 2).reshape(B, T, C))


def cut(x: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) -> patches (B, H/p W/p, C p p), row by row."""
    B, C, H, W = x.shape
    x = x.view(B, C, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * patch * patch)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed positions (rows * columns, width): sin and cos of the column, then of the row.

    The w/4 frequencies run from 1 down to 1/10000, as in Beyer et al. 2022, arXiv:2205.01580.
    """
    frequency = 10000.0 ** -torch.linspace(0, 1, width // 4)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    along_x, along_y = (torch.outer(axis.flatten().float(), frequency) for axis in (x, y))
    return torch.cat([along_x.sin(), along_x.cos(), along_y.sin(), along_y.cos()], dim=1)


class ViT(nn.Module):
    """Images (B, C, H, W) -> logits (B, n_classes)."""

    positions: Tensor

    def __init__(
        self,
        width: int,
        in_shape: tuple[int, ...],
        n_classes: int,
        patch: int,
        n_layer: int,
        head_size: int,
        gain: float,
        branch: float,
    ) -> None:
        super().__init__()
        channels, height, across = in_shape
        self.patch = patch
        # A linear layer, so that optimizers see a dense input of fixed size and no convolution.
        self.patches = nn.Linear(channels * patch * patch, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, head_size, gain, branch) for _ in range(n_layer))
        self.head = nn.Linear(width, n_classes, bias=False)
        fixed = positions(height // patch, across // patch, width)
        self.register_buffer("positions", fixed, persistent=False)

    def roles(self) -> dict[str, str]:
        ends = {"patches.weight": "input", "head.weight": "output"}
        return {n: ends.get(n, "hidden") for n, _ in self.named_parameters()}

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(cut(x, self.patch)) + self.positions
        for block in self.blocks:
            h = block(h)
        # Normalise after the mean: the part that all patches share is large, and the head would
        # learn slowly from it.
        return self.head(rms_norm(h.mean(dim=1)))


def vit(
    width: int,
    *,
    in_shape: tuple[int, ...] = (1, 28, 28),
    n_classes: int = 10,
    patch: int = 7,
    n_layer: int = 2,
    head_size: int = 32,
    sqrt2: bool = True,
    residual_base: int = 0,
) -> ViT:
    """Vision transformer: linear patches, fixed positions, RMSNorm, QK-norm, GELU, mean pooling.

    Images (B, *in_shape) -> logits (B, n_classes). No biases, no class token. The head size is
    fixed, so the number of heads grows with `width`. `patch`: side of a patch in pixels. `sqrt2`
    multiplies the activation by sqrt(2) (Pethick et al. 2025, arXiv:2502.07529). `residual_base`:
    multiplies every residual branch by residual_base / n_layer (Dey et al. 2025, CompleteP,
    arXiv:2505.01618); 0 multiplies by 1.
    Raises InputError where the head size is no multiple of 4 or does not divide the width, and
    where the patch does not divide the image.
    Source: Beyer et al. 2022, arXiv:2205.01580 (fixed positions, mean pooling); QK-norm and RMSNorm
    as in our GPT.
    """
    _, height, across = in_shape
    sides = math.gcd(height, across)
    if sides % patch:
        fitting = ", ".join(str(n) for n in range(1, sides + 1) if sides % n == 0)
        raise InputError(
            f"model.patch: {patch} does not divide images of {height} x {across}",
            f"patches that do: {fitting}",
        )
    if width % head_size:
        below = width // head_size * head_size
        raise InputError(
            f"width {width} is not a multiple of head_size {head_size}",
            f"the nearest widths are {below} and {below + head_size}"
            if below
            else f"the nearest width is {head_size}",
        )
    if head_size % 4:
        raise InputError(
            f"model.head_size: got {head_size}, needs a multiple of 4",
            "positions are a sine and a cosine of row and column",
        )
    gain = math.sqrt(2.0) if sqrt2 else 1.0
    branch = residual_base / n_layer if residual_base else 1.0
    return ViT(width, in_shape, n_classes, patch, n_layer, head_size, gain, branch)
