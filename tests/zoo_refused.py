"""Models that no run can train: each is refused by name with what to do."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_models import Block, Encoder, MoE, Routed, Text, saying


class Conv1D(nn.Module):
    """The layer of this name in transformers: a Linear whose weight is (d_in, d_out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.02)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, h: Tensor) -> Tensor:
        return torch.addmm(self.bias, h.flatten(0, 1), self.weight).view(*h.shape[:-1], self.nf)


class Projection(nn.Module):
    """A matrix (d_in, d_out) of one's own, on the right of the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(width, width) * 0.02)

    def forward(self, h: Tensor) -> Tensor:
        return h + h.cumsum(1) @ self.w


def hf_conv1d(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A Conv1D as in transformers."""
    return Text(width, vocab, Conv1D(width, width))


def transposed(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A transposed matrix under a said role; it is square, so no shape shows it."""
    return saying(Text(width, vocab, Projection(width)), parts__0__w="hidden")


class Complex(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(width, width, dtype=torch.complex64))

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h.to(torch.complex64), self.w).real


def complex_weights(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A complex matrix under a said role."""
    return saying(Text(width, vocab, Complex(width)), parts__0__w="hidden")


def sparse(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Sparse gradients of an embedding."""
    model = Text(width, vocab, Block(width))
    model.token = nn.Embedding(vocab, width, sparse=True)
    return model


class SparseByFunction(Text):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.parts[0](F.embedding(x, self.token.weight, sparse=True)))


def sparse_by_function(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Sparse gradients that no module shows."""
    return SparseByFunction(width, vocab, Block(width))


class Pair(Text):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), None  # type: ignore[return-value]


def pair(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Gives logits and something else."""
    return Pair(width, vocab, Block(width))


def raises_in_forward(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A width that does not fit."""
    return Text(width, vocab, nn.Linear(width + 1, width))


class Noisy(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return F.dropout(h, 0.1)


def noisy(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Dropout that no module shows."""
    return Text(width, vocab, Block(width), Noisy())


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        self.seen += 1
        return h / self.seen


def counting(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A buffer that a forward pass changes."""
    return Text(width, vocab, Block(width), Counting())


class GPT(nn.Module):
    """A class whose first argument is the width by another name."""

    def __init__(self, n_embd: int, vocab: int = 256, context: int = 64) -> None:
        super().__init__()
        self.inner = Text(n_embd, vocab, Block(n_embd))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def encoder_layer_as_it_comes(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """nn.TransformerEncoderLayer with its default dropout."""
    return Text(width, vocab, Encoder(width, 0.1))


def moe_transposed(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """The same with experts (E, d_in, d_out) under the role of others."""
    return MoE(width, vocab, Block(width), Routed(width, transposed=True))


def batchnorm(
    width: int, *, in_shape: tuple[int, ...] = (1, 28, 28), n_classes: int = 10
) -> nn.Module:
    """A convolution with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(in_shape[0], width, 3, 2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, n_classes),
    )


class DenseTransposed(nn.Module):
    """Experts (E, d_in, d_out) in a product for which torch copies them into another order."""

    def __init__(self, width: int, experts: int = 3) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, width, 2 * width))
        self.down = nn.Parameter(torch.randn(experts, width, 2 * width))

    def forward(self, h: Tensor) -> Tensor:
        inner = torch.einsum("btd,edf->btef", h, self.up).relu()
        return h + torch.einsum("btef,edf->btd", inner, self.down)


def dense_transposed(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Experts without a router, the first of them transposed."""
    return MoE(width, vocab, Block(width), DenseTransposed(width))
