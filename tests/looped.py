"""A small model with every role, and a training loop in the plainest form, for comparison."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hptransfer.optim
from hptransfer.optim import RuleOptimizer
from units import LOG2_LR, SHORT

# where a constant learning rate would turn the transport off
HP: dict[str, dict[str, Any]] = {
    **SHORT,
    "transported_scion": {"transport_schedule": "constant", "transport": 0.25},
}
VOCAB, CONTEXT, BATCH = 11, 6, 8
WIDTH, BASE, WIDER = 16, 8, 32
# Of weights near 1 in float32: a loop that adds gradients up in another order, or in a kernel that
# fuses operations, rounds otherwise, and a polar factor or a sign makes more of it.
ROUNDING = 5e-5


class Net(nn.Module):
    """Embedding, gain, bias, two hidden matrices and a head; a mean over the past mixes tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, VOCAB, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        h = h.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=h.dtype)[:, None]
        return self.head(h + self.down(torch.tanh(self.up(self.norm(h)))))


def batch(t: int) -> Tensor:
    """Tokens (BATCH, CONTEXT + 1) of step t; both halves are alike in size."""
    generator = torch.Generator().manual_seed(t)
    return torch.randint(VOCAB, (BATCH, CONTEXT + 1), generator=generator)


def loss_of(model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def compiled(model: nn.Module, backend: str) -> nn.Module:
    wrapper = torch.compile(model, backend=backend)
    assert isinstance(wrapper, nn.Module)
    return wrapper


def lr_of(name: str) -> float:
    return 2.0 ** LOG2_LR.get(name, -4.0)


def made(
    name: str,
    model: nn.Module,
    lr: float | None = None,
    base: nn.Module | None = None,
    **hp: Any,
) -> RuleOptimizer:
    hp = {**HP.get(name, {}), **hp}
    chosen = lr_of(name) if lr is None else lr
    return hptransfer.optim.optimizer(model, name, lr=chosen, base=base or Net(BASE), **hp)


def net(name: str, width: int = WIDTH) -> Net:
    """The model with the init of an optimizer, but no weight at zero: else little would move."""
    model = Net(width)
    hptransfer.optim.init_(model, name, base=Net(BASE if width != BASE else WIDER))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def step(model: nn.Module, optimizer: RuleOptimizer, t: int) -> None:
    optimizer.zero_grad()
    loss_of(model, batch(t)).backward()
    optimizer.step()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def plain(name: str, steps: int) -> dict[str, Tensor]:
    """The weights after so many steps in one process, without a wrapper."""
    model = net(name)
    optimizer = made(name, model)
    for t in range(steps):
        step(model, optimizer, t)
    return weights(model)


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference of two entries."""
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)
