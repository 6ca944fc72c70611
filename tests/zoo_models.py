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


def tied_gpt(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """The head is the embedding."""
    model = Text(width, vocab, Block(width), Block(width))
    model.head.weight = model.token.weight
    return model


class Scaled(nn.Module):
    """A residual branch that begins small, as LayerScale has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))
        self.inner = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.gamma * self.inner(h).relu()


def layer_scale(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A gain that its constructor starts at another value than 1."""
    return saying(Text(width, vocab, Scaled(width)), parts__0__gamma="gain")


class FunctionallyTied(Text):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.parts[0](self.token(x)), self.token.weight)


def functionally_tied(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """The head is the embedding, by a function that no module shows."""
    model = FunctionallyTied(width, vocab, Block(width))
    del model.head
    return model


def functionally_tied_said(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """The same, and it says so."""
    return saying(functionally_tied(width, vocab=vocab), token__weight="output")


def saying(model: nn.Module, **roles: str) -> nn.Module:
    """The model with these roles; `__` stands for a dot."""
    said = {name.replace("__", "."): role for name, role in roles.items()}
    setattr(model, "roles", lambda: said)  # noqa: B010
    return model


class OneHot(Text):
    def forward(self, x: Tensor) -> Tensor:
        one_hot = F.one_hot(x, self.head.out_features).to(self.token.weight)
        return self.head(self.parts[0](one_hot @ self.token.weight))


def one_hot(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """An embedding as a product with one-hot inputs."""
    return OneHot(width, vocab, Block(width))


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


def encoder_layer(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """nn.TransformerEncoderLayer with a causal mask."""
    return Text(width, vocab, Encoder(width, 0.0))


class First(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor) -> Tensor:
        return self.inner(h)[0]


def lstm(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """nn.LSTM."""
    return Text(width, vocab, First(nn.LSTM(width, width, batch_first=True)))


def gru(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
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


def moe(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A routed mixture of experts, stacked (E, d_out, d_in)."""
    return MoE(width, vocab, Block(width), Routed(width))


class Dense(nn.Module):
    """Every token goes to all experts, in one product."""

    def __init__(self, width: int, experts: int = 3) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, 2 * width, width) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, width, 2 * width) / width**0.5)

    def forward(self, h: Tensor) -> Tensor:
        inner = torch.einsum("btd,efd->btef", h, self.up).relu()
        return h + torch.einsum("btef,edf->btd", inner, self.down) / len(self.up)


def dense_moe(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Experts without a router, which vectorise."""
    return MoE(width, vocab, Block(width), Dense(width))


def gqa(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Grouped-query attention with one fused matrix, which says nothing of it."""
    return Text(width, vocab, Attention(width))


def gqa_said(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """The same, as one hidden matrix."""
    return saying(gqa(width, vocab=vocab), parts__0__qkv__weight="hidden")


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


def vit(width: int, *, in_shape: tuple[int, ...] = (1, 28, 28), n_classes: int = 10) -> nn.Module:
    """nn.MultiheadAttention on patches, with its in_proj."""
    return Patches(width, in_shape, n_classes)


def albert(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
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


def t5(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Encoder and decoder share an embedding."""
    return T5(width, vocab)


class Causal(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv(F.pad(h.mT, (2, 0))).mT.relu()


def conv1d(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """A causal convolution over the tokens."""
    return Text(width, vocab, Causal(width))


class Positions(Text):
    """Fixed positions, and random features that do not train."""

    noise: Tensor

    def __init__(self, width: int, vocab: int, context: int) -> None:
        super().__init__(width, vocab, Block(width))
        self.pos = nn.Embedding(context, width)
        at = torch.arange(context)[:, None] / 100 ** (torch.arange(0, width, 2) / width)
        self.pos.weight.data.copy_(torch.cat([at.sin(), at.cos()], 1))
        self.pos.weight.requires_grad_(False)
        self.features = nn.Parameter(torch.randn(width, width), requires_grad=False)
        self.register_buffer("noise", torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.pos(torch.arange(x.shape[1], device=x.device))
        return self.head(self.parts[0](h + self.noise + (h @ self.features).cos()))


def frozen(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Frozen parameters."""
    return Positions(width, vocab, context)


class Rotary(Text):
    """A complex buffer, as in Llama's public code."""

    turn: Tensor

    def __init__(self, width: int, vocab: int, context: int) -> None:
        super().__init__(width, vocab, Block(width))
        angle = torch.outer(torch.arange(context), 1 / 100 ** (torch.arange(width // 2) / width))
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.view_as_complex(self.token(x).unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(h * self.turn[: x.shape[1]]).flatten(-2)
        return self.head(self.parts[0](turned))


def rotary(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Rotary positions from a complex buffer."""
    return Rotary(width, vocab, context)


class Reads(Text):
    """A constructor that reads a number from a tensor."""

    def __init__(self, width: int, vocab: int) -> None:
        super().__init__(width, vocab, Block(width))
        self.rates = [x.item() for x in torch.linspace(0, 0.1, 3)]


def reads_a_number(width: int, *, vocab: int = 256, context: int = 64) -> nn.Module:
    """Builds on no device without numbers."""
    return Reads(width, vocab)


class OfWidth(nn.Module):
    """A class whose first argument is the width."""

    def __init__(self, width: int, vocab: int = 256, context: int = 64) -> None:
        super().__init__()
        self.inner = Text(width, vocab, Block(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)
