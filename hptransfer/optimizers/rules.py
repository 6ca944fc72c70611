"""What an optimizer is made of: Step, State, Rule, and the one place of the matrix view."""

import hashlib
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from hptransfer.spec import Param

State = dict[str, Tensor]


class Step(NamedTuple):
    """`t`: gradients seen before this one; `lr` now, in the next step, and the tuned `lr_peak`."""

    t: int
    lr: Tensor
    lr_next: Tensor
    lr_peak: Tensor


@runtime_checkable
class Rule(Protocol):
    """How the parameters of one role and shape begin and move; tensors are (k, *shape)."""

    def init_weight(self, generator: Generator) -> Tensor: ...

    def init_state(self, w: Tensor) -> State: ...

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]: ...

    def readout(self, w: Tensor, state: State) -> Tensor:
        """The point to evaluate: X where the weights hold a transported Y, else the weights."""
        ...


def as_matrix(p: Param, tensor: Tensor) -> Tensor:
    """(*batch, *shape) -> (*batch, d_out, d_in): embedding transposed, taps flattened, (d, 1)."""
    match len(p.shape):
        case 1:
            return tensor.unsqueeze(-1)
        case 2:
            return tensor.mT if p.embedding else tensor
        case _:
            return tensor.flatten(1 - len(p.shape))


def from_matrix(p: Param, matrix: Tensor) -> Tensor:
    """Inverse of `as_matrix`."""
    match len(p.shape):
        case 1:
            return matrix.squeeze(-1)
        case 2:
            return matrix.mT if p.embedding else matrix
        case _:
            return matrix.unflatten(-1, p.shape[1:])


def matrix_shape(p: Param) -> tuple[int, int]:
    return p.d_out, p.d_in


def gaussian(p: Param, std: float, generator: Generator) -> Tensor:
    """N(0, std^2), float64; zeros for a vector (a bias)."""
    if p.role == "vector":
        return torch.zeros(p.shape, dtype=torch.float64)
    return std * torch.randn(p.shape, generator=generator, dtype=torch.float64)


def generator_for(seed: int, name: str) -> Generator:
    """A CPU generator that depends on the seed and the parameter's name alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
