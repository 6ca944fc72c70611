"""Models as people bring them: functions of the width whose modules nobody wrote for this package.

The tests name this file as a plug-in, so its functions are found as a user's are.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Grouped queries: one matrix gives all queries and fewer keys and values."""

    def __init__(self, width: int, head: int = 8) -> None:
        super().__init__()
        self.heads, self.head = width // head, head
        self.qkv = nn.Linear(width, width + 2 * head, bias=False)
        self.o = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        b, t, width = h.shape
        q, k, v = self.qkv(h).split([width, self.head, self.head], dim=-1)
        q = q.view(b, t, self.heads, self.head).transpose(1, 2)
        k, v = (x[:, None].expand(b, self.heads, t, self.head) for x in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(out.transpose(1, 2).reshape(b, t, width))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        past = h.cumsum(1) / torch.arange(1, h.shape[1] + 1, device=h.device)[:, None]
        return h + self.down(F.gelu(self.up(self.norm(past))))


class Text(nn.Module):
    """Embedding, a stack of parts, head."""

    def __init__(self, width: int, vocab: int, *parts: nn.Module) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.parts = nn.ModuleList(parts)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x)
        for part in self.parts:
            h = part(h)
        return self.head(h)


def tied_gpt(width, *, vocab: int = 256, context: int = 64):
    """The head is the embedding."""
    model = Text(width, vocab, Block(width), Block(width))
    model.head.weight = model.token.weight
    return model


class FunctionallyTied(Text):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.parts[0](self.token(x)), self.token.weight)


def functionally_tied(width, *, vocab: int = 256, context: int = 64):
    """The head is the embedding, by a function that no module shows."""
    model = FunctionallyTied(width, vocab, Block(width))
    del model.head
    return model


def functionally_tied_said(width, *, vocab: int = 256, context: int = 64):
    """The same, and it says so."""
    model = functionally_tied(width, vocab=vocab)
    model.roles = lambda: {"token.weight": "output"}
    return model


class Encoder(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=dropout, batch_first=True, norm_first=True
        )

    def forward(self, h: Tensor) -> Tensor:
        t = h.shape[1]
        mask = torch.full((t, t), -math.inf, device=h.device, dtype=h.dtype).triu(1)
        return self.layer(h, src_mask=mask)


def encoder_layer(width, *, vocab: int = 256, context: int = 64):
    """nn.TransformerEncoderLayer with a causal mask."""
    return Text(width, vocab, Encoder(width, 0.0))


def encoder_layer_as_it_comes(width, *, vocab: int = 256, context: int = 64):
    """nn.TransformerEncoderLayer with its default dropout."""
    return Text(width, vocab, Encoder(width, 0.1))


class First(nn.Module):
    """The first of several results."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor) -> Tensor:
        return self.inner(h)[0]


def lstm(width, *, vocab: int = 256, context: int = 64):
    """nn.LSTM."""
    return Text(width, vocab, First(nn.LSTM(width, width, batch_first=True)))


def gru(width, *, vocab: int = 256, context: int = 64):
    """nn.GRU of two layers."""
    return Text(width, vocab, First(nn.GRU(width, width, 2, batch_first=True)))


class Routed(nn.Module):
    """Each token goes to the expert that its router likes best, and only there."""

    def __init__(self, width: int, experts: int = 4, transposed: bool = False) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        up = (experts, width, 2 * width) if transposed else (experts, 2 * width, width)
        self.up = nn.Parameter(torch.randn(up) / width**0.5)
        self.up_bias = nn.Parameter(torch.zeros(experts, 2 * width))
        self.down = nn.Parameter(torch.randn(experts, width, 2 * width) / (2 * width) ** 0.5)
        self.transposed = transposed

    def forward(self, h: Tensor) -> Tensor:
        flat = h.flatten(0, 1)
        weight, chosen = self.router(flat).softmax(-1).max(-1)
        out = torch.zeros_like(flat)
        for expert in range(len(self.up)):
            (rows,) = torch.where(chosen == expert)
            up = self.up[expert].mT if self.transposed else self.up[expert]
            inner = F.relu(F.linear(flat[rows], up, self.up_bias[expert]))
            out = out.index_add(0, rows, F.linear(inner, self.down[expert]) * weight[rows, None])
        return h + out.view_as(h)


class MoE(Text):
    def roles(self) -> dict[str, str]:
        names = {"parts.1.up": "hidden", "parts.1.down": "hidden", "parts.1.up_bias": "bias"}
        return {name: role for name, role in names.items() if name in dict(self.named_parameters())}


def moe(width, *, vocab: int = 256, context: int = 64):
    """A routed mixture of experts, stacked (E, d_out, d_in)."""
    return MoE(width, vocab, Block(width), Routed(width))


def moe_transposed(width, *, vocab: int = 256, context: int = 64):
    """The same with experts (E, d_in, d_out) under the role of others."""
    return MoE(width, vocab, Block(width), Routed(width, transposed=True))


class Dense(nn.Module):
    """Every token goes to all experts, in one product."""

    def __init__(self, width: int, experts: int = 3) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, 2 * width, width) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, width, 2 * width) / width**0.5)

    def forward(self, h: Tensor) -> Tensor:
        inner = torch.einsum("btd,efd->btef", h, self.up).relu()
        return h + torch.einsum("btef,edf->btd", inner, self.down) / len(self.up)


def dense_moe(width, *, vocab: int = 256, context: int = 64):
    """Experts without a router, which vectorise."""
    return MoE(width, vocab, Block(width), Dense(width))


def gqa(width, *, vocab: int = 256, context: int = 64):
    """Grouped-query attention with one fused matrix, which says nothing of it."""
    return Text(width, vocab, Attention(width))


def gqa_said(width, *, vocab: int = 256, context: int = 64):
    """The same, as one hidden matrix."""
    model = gqa(width, vocab=vocab)
    model.roles = lambda: {"parts.0.qkv.weight": "hidden"}
    return model


class Patches(nn.Module):
    def __init__(self, width: int, in_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        side = in_shape[-1] // 2
        self.stem = nn.Conv2d(in_shape[0], width, side, side)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.stem(x).flatten(2).mT)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(h.mean(1))


def vit(width, *, in_shape: tuple = (1, 28, 28), n_classes: int = 10):
    """nn.MultiheadAttention on patches, with its in_proj."""
    return Patches(width, in_shape, n_classes)


def batchnorm(width, *, in_shape: tuple = (1, 28, 28), n_classes: int = 10):
    """A convolution with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(in_shape[0], width, 3, 2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, n_classes),
    )


def albert(width, *, vocab: int = 256, context: int = 64):
    """One block at three places."""
    block = Block(width)
    return Text(width, vocab, block, block, block)


class Embedded(nn.Module):
    def __init__(self, shared: nn.Embedding, width: int) -> None:
        super().__init__()
        self.embed_tokens, self.block = shared, Block(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.embed_tokens(x))


class T5(nn.Module):
    def __init__(self, width: int, vocab: int) -> None:
        super().__init__()
        self.shared = nn.Embedding(vocab, width)
        self.encoder = Embedded(self.shared, width)
        self.decoder = Embedded(self.shared, width)
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(self.encoder(x) + self.decoder(x))


def t5(width, *, vocab: int = 256, context: int = 64):
    """Encoder and decoder share an embedding."""
    return T5(width, vocab)


class Causal(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv(F.pad(h.mT, (2, 0))).mT.relu()


def conv1d(width, *, vocab: int = 256, context: int = 64):
    """A causal convolution over the tokens."""
    return Text(width, vocab, Causal(width))


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


def hf_conv1d(width, *, vocab: int = 256, context: int = 64):
    """A Conv1D as in transformers."""
    return Text(width, vocab, Conv1D(width, width))


def transposed(width, *, vocab: int = 256, context: int = 64):
    """A transposed matrix under a said role; it is square, so no shape shows it."""
    model = Text(width, vocab, Projection(width))
    model.roles = lambda: {"parts.0.w": "hidden"}
    return model


class Positions(Text):
    """Fixed positions, and random features that do not train."""

    def __init__(self, width: int, vocab: int, context: int) -> None:
        super().__init__(width, vocab, Block(width))
        self.pos = nn.Embedding(context, width)
        at = torch.arange(context)[:, None] / 100 ** (torch.arange(0, width, 2) / width)
        self.pos.weight.data.copy_(torch.cat([at.sin(), at.cos()], 1))
        self.pos.weight.requires_grad_(False)
        self.features = nn.Parameter(torch.randn(width, width), requires_grad=False)
        self.register_buffer("noise", torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.pos.weight[: x.shape[1]]
        return self.head(self.parts[0](h + self.noise + (h @ self.features).cos()))


def frozen(width, *, vocab: int = 256, context: int = 64):
    """Frozen parameters."""
    return Positions(width, vocab, context)


class Rotary(Text):
    """A complex buffer, as in Llama's public code."""

    def __init__(self, width: int, vocab: int, context: int) -> None:
        super().__init__(width, vocab, Block(width))
        angle = torch.outer(torch.arange(context), 1 / 100 ** (torch.arange(width // 2) / width))
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.view_as_complex(self.token(x).unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(h * self.turn[: x.shape[1]]).flatten(-2)
        return self.head(self.parts[0](turned))


def rotary(width, *, vocab: int = 256, context: int = 64):
    """Rotary positions from a complex buffer."""
    return Rotary(width, vocab, context)


class Complex(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(width, width, dtype=torch.complex64))

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h.to(torch.complex64), self.w).real


def complex_weights(width, *, vocab: int = 256, context: int = 64):
    """A complex matrix under a said role."""
    model = Text(width, vocab, Complex(width))
    model.roles = lambda: {"parts.0.w": "hidden"}
    return model


def sparse(width, *, vocab: int = 256, context: int = 64):
    """Sparse gradients of an embedding."""
    model = Text(width, vocab, Block(width))
    model.token = nn.Embedding(vocab, width, sparse=True)
    return model


class SparseByFunction(Text):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.parts[0](F.embedding(x, self.token.weight, sparse=True)))


def sparse_by_function(width, *, vocab: int = 256, context: int = 64):
    """Sparse gradients that no module shows."""
    return SparseByFunction(width, vocab, Block(width))


class Pair(Text):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), None  # type: ignore[return-value]


def pair(width, *, vocab: int = 256, context: int = 64):
    """Gives logits and something else."""
    return Pair(width, vocab, Block(width))


class Reads(Text):
    """A constructor that reads a number from a tensor."""

    def __init__(self, width: int, vocab: int) -> None:
        super().__init__(width, vocab, Block(width))
        self.rates = [x.item() for x in torch.linspace(0, 0.1, 3)]


def reads_a_number(width, *, vocab: int = 256, context: int = 64):
    """Builds on no device without numbers."""
    return Reads(width, vocab)


def raises_in_forward(width, *, vocab: int = 256, context: int = 64):
    """A width that does not fit."""
    return Text(width, vocab, nn.Linear(width + 1, width))


class Noisy(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return F.dropout(h, 0.1)


def noisy(width, *, vocab: int = 256, context: int = 64):
    """Dropout that no module shows."""
    return Text(width, vocab, Block(width), Noisy())


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        self.seen += 1
        return h / self.seen


def counting(width, *, vocab: int = 256, context: int = 64):
    """A buffer that a forward pass changes."""
    return Text(width, vocab, Block(width), Counting())


class GPT(nn.Module):
    """A class whose first argument is the width by another name."""

    def __init__(self, n_embd: int, vocab: int = 256, context: int = 64) -> None:
        super().__init__()
        self.inner = Text(n_embd, vocab, Block(n_embd))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class OfWidth(nn.Module):
    """A class whose first argument is the width."""

    def __init__(self, width: int, vocab: int = 256, context: int = 64) -> None:
        super().__init__()
        self.inner = Text(width, vocab, Block(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)
