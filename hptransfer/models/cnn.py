"""A small residual network of convolutions for width studies, in one file."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from hptransfer.errors import InputError

REVISION = {"cnn": 1}
LIMITS = {"n_block": (1, 100), "group": (2, 1024)}


class Block(nn.Module):
    """x + second(act(norm(first(act(norm(x)))))), two 3 x 3 convolutions; (B, C, H, W).

    Source: He et al. 2016, arXiv:1603.05027.
    """

    def __init__(self, width: int, group: int, gain: float) -> None:
        super().__init__()
        self.group = group
        self.gain = gain
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(activated(x, self.group, self.gain))
        return x + self.second(activated(h, self.group, self.gain))


def activated(x: Tensor, group: int, gain: float) -> Tensor:
    """gain relu(GroupNorm(x)), (B, C, H, W); no affine parameters, `group` channels per group."""
    return gain * F.relu(F.group_norm(x, x.shape[1] // group))


class CNN(nn.Module):
    """Images (B, C, H, W) -> logits (B, n_classes)."""

    def __init__(
        self, width: int, channels: int, n_classes: int, n_block: int, group: int, gain: float
    ) -> None:
        super().__init__()
        self.group = group
        self.gain = gain
        self.stem = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.ModuleList(Block(width, group, gain) for _ in range(n_block))
        self.head = nn.Linear(width, n_classes, bias=False)

    def roles(self) -> dict[str, str]:
        ends = {"stem.weight": "input", "head.weight": "output"}
        return {n: ends.get(n, "hidden") for n, _ in self.named_parameters()}

    def forward(self, x: Tensor) -> Tensor:
        # The stem and the first pool halve each side, so that the blocks work on few pixels.
        h = activated(self.stem(x), self.group, self.gain)
        for block in self.blocks:
            # The side is rounded up, so that it never becomes 0.
            h = block(F.avg_pool2d(h, 2, ceil_mode=True))
        pooled = activated(h, self.group, self.gain).mean(dim=(2, 3))
        # The averages of ReLUs differ little among images. layer_norm subtracts their mean over
        # the channels, and the head learns faster.
        return self.head(F.layer_norm(pooled, pooled.shape[-1:]))


def cnn(
    width: int,
    *,
    in_shape: tuple[int, ...] = (1, 28, 28),
    n_classes: int = 10,
    n_block: int = 2,
    group: int = 8,
    sqrt2: bool = True,
) -> CNN:
    """Residual network of 3 x 3 convolutions: GroupNorm without gain, ReLU, average pooling.

    Images (B, *in_shape) -> logits (B, n_classes). `width`: channels of every layer; no biases.
    `group`: channels per GroupNorm group. The number of groups grows with the width, so a channel
    shares its statistics with equally many others at every width. `sqrt2` multiplies the
    activation by sqrt(2) (Pethick et al. 2025, arXiv:2502.07529).
    Raises InputError where `group` does not divide the width.
    Source: He et al. 2016, arXiv:1603.05027 (pre-activation); Wu & He 2018, arXiv:1803.08494.
    """
    if width % group:
        below = width // group * group
        raise InputError(
            f"width {width} is not a multiple of group {group}",
            f"the nearest widths are {below} and {below + group}"
            if below
            else f"the nearest width is {group}",
        )
    gain = math.sqrt(2.0) if sqrt2 else 1.0
    return CNN(width, in_shape[0], n_classes, n_block, group, gain)
