"""Today's practice: one process a trial, a plain PyTorch loop with torch's own optimizers.

The same model, data, precision, steps, schedule and evaluation as a suite's, written the way a
careful user writes it: fused AdamW, scaled_dot_product_attention, F.rms_norm, a memory-mapped file.

    python tests/benchmarks/baseline.py DATA.bin --width 128 --optimizer adamw --lr 0.004
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB, CONTEXT, HEAD = 256, 64, 32


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, C = x.shape
        h = F.rms_norm(x, (C,))
        q, k, v = (f(h).view(B, T, -1, HEAD).transpose(1, 2) for f in (self.q, self.k, self.v))
        q = rotate(F.rms_norm(q, (HEAD,)), cos, sin)
        k = rotate(F.rms_norm(k, (HEAD,)), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(2**0.5 * F.gelu(self.up(F.rms_norm(x, (C,)))))


class GPT(nn.Module):
    def __init__(self, width: int, n_layer: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(n_layer))
        self.head = nn.Linear(width, VOCAB, bias=False)
        for p in self.parameters():
            nn.init.normal_(p, std=0.02)
        angle = torch.outer(torch.arange(CONTEXT), 1e4 ** (-torch.arange(0, HEAD, 2) / HEAD))
        self.cos, self.sin = angle.cos(), angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        C = self.embedding.embedding_dim
        h = F.rms_norm(self.embedding(x), (C,))
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        return self.head(F.rms_norm(h, (C,)))


def optimizers(model: nn.Module, name: str, lr: float) -> list[torch.optim.Optimizer]:
    hidden = [p for n, p in model.named_parameters() if n.startswith("blocks")]
    other = [p for n, p in model.named_parameters() if not n.startswith("blocks")]
    betas = (0.9, 0.95)
    if name == "adamw":
        return [
            torch.optim.AdamW(model.parameters(), lr=lr, betas=betas, weight_decay=0.1, fused=True)
        ]
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(other, lr=2**-7, betas=betas, weight_decay=0.0, fused=True),
    ]


def train(options: argparse.Namespace) -> float:
    """Held-out loss of one trial."""
    torch.manual_seed(options.seed)
    torch.set_default_device(options.device)
    data = torch.from_numpy(np.fromfile(options.data, np.uint8)).to(options.device)
    cut = len(data) * 95 // 100
    parts = data[:cut], data[cut:]
    model = GPT(options.width)
    owned = optimizers(model, options.optimizer, options.lr)
    window = torch.arange(CONTEXT + 1)

    def batch(part: Tensor) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(part) - CONTEXT, (options.batch, 1))
        tokens = part[at + window].long()
        return tokens[:, :-1], tokens[:, 1:]

    def loss_on(part: Tensor) -> Tensor:
        x, y = batch(part)
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    schedules = [
        torch.optim.lr_scheduler.LambdaLR(each, lambda t: 1 - t / options.steps) for each in owned
    ]
    for _ in range(options.steps):
        loss = loss_on(parts[0])
        loss.backward()
        if options.optimizer == "adamw":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each, schedule in zip(owned, schedules, strict=True):
            each.step()
            schedule.step()
            each.zero_grad()
    with torch.no_grad():
        return sum(loss_on(parts[1]).item() for _ in range(options.evaluations)) / (
            options.evaluations
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--lr", type=float, default=2**-8)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--evaluations", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{train(options):.4f}")


if __name__ == "__main__":
    main()
