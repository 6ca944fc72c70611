"""A three-layer MLP for width studies on images."""

import math

import torch
from torch import Tensor, nn

REVISION = {"mlp": 1}


class MLP(nn.Module):
    """Images (B, ...) -> logits (B, n_classes); both hidden layers have `width` units."""

    def __init__(self, width: int, d_input: int, n_classes: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.first = nn.Linear(d_input, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, n_classes, bias=False)

    def roles(self) -> dict[str, str]:
        return {"first.weight": "input", "second.weight": "hidden", "head.weight": "output"}

    def forward(self, x: Tensor) -> Tensor:
        h = self.gain * torch.relu(self.first(x.flatten(1)))
        h = self.gain * torch.relu(self.second(h))
        return self.head(h)


def mlp(
    width: int,
    *,
    in_shape: tuple[int, ...] = (1, 28, 28),
    n_classes: int = 10,
    sqrt2: bool = True,
) -> MLP:
    """MLP input -> width -> width -> classes with ReLU (times sqrt(2)), no biases.

    Images (B, *in_shape) -> logits (B, n_classes).
    Source of the factor: Pethick et al. 2025, arXiv:2502.07529.
    """
    return MLP(width, math.prod(in_shape), n_classes, math.sqrt(2.0) if sqrt2 else 1.0)
