"""What an optimizer is made of: Step, State, Rule, and the one place of the matrix view."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from hptransfer.errors import InputError
from hptransfer.spec import Param

__all__ = [
    "Rule",
    "Stack",
    "State",
    "Step",
    "add_",
    "as_matrix",
    "average",
    "average_",
    "descend",
    "from_matrix",
    "gaussian",
    "generator_for",
    "matrix_shape",
    "vector_start",
]

State = dict[str, Tensor]
"""What a rule keeps of one parameter between steps, by name."""

_METHODS = ("init_weight", "update")

Stack = Tensor | Sequence[Tensor]
"""k same-shaped tensors, together or one by one."""


class Step(NamedTuple):
    """`t`: gradients seen before this one; `lr` now, in the next step, and the tuned `lr_peak`.

    A rule of this package is also given `t` as a tensor without axes, in a step that a GPU replays.
    """

    t: int | Tensor
    lr: Tensor
    lr_next: Tensor
    lr_peak: Tensor

    @property
    def first(self) -> bool:
        """Whether no gradient was seen before; a step that is replayed is never the first."""
        return isinstance(self.t, int) and self.t == 0


@runtime_checkable
class Rule(Protocol):
    """How a parameter begins and moves, written for one tensor of `Param.shape`.

    The engine maps `update` and `readout` over same-shaped parameters and over lanes. A rule with a
    true attribute `batched` is given same-shaped parameters together, as (k, *shape), which is
    faster. A state entry named `gradient` replaces the gradient buffer: the next gradient is added
    to it (ScionLight). No state is g or w itself, whose memory is used again.

    A rule may also have:
    - `init_state(w) -> State`: the state before the first step; else momentum `m`, zeros like w.
    - `readout(w, state) -> Tensor`: the point to evaluate, X where the weights hold a transported
      Y; else the weights.
    - `update_(g, state, w, step)`, of a batched rule: moves the tensors of one lane and its state
      in place, g and w being a Stack. It is not used for a subclass that does not define its own,
      nor for tensors that are not contiguous. On a GPU it is used, for float32, where a true
      attribute `fused` says so.
    """

    def init_weight(self, generator: Generator) -> Tensor:
        """The weight at the start of a run, of `Param.shape`."""
        ...

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        """The new weight and the new state; g: the gradient at w. Neither is changed in place."""
        ...


def made(name: str, optimizer: Callable[..., Rule], p: Param, hp: dict[str, Any]) -> Rule:
    """The rule that an optimizer gives for a parameter. Raises InputError where it gives none."""
    rule = optimizer(p, **hp)
    if lacks := [m for m in _METHODS if not hasattr(rule, m)]:
        raise InputError(
            f"optimizer {name!r}: gave a {type(rule).__name__} without {', '.join(lacks)}",
            "docs/how-to/own-optimizer.md says what an optimizer returns",
        )
    return rule


def _batched(rule: Rule) -> bool:
    return getattr(rule, "batched", False)


def init_state(rule: Rule, w: Tensor) -> State:
    """States of same-shaped parameters, w: (k, *shape); momentum `m` where the rule says none."""
    own: Callable[[Tensor], State] | None = getattr(rule, "init_state", None)
    if own is None:
        return {"m": torch.zeros_like(w)}
    return own(w) if _batched(rule) else torch.vmap(own)(w)


def update(rule: Rule, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
    """One step of same-shaped parameters; tensors are (k, *shape)."""
    if _batched(rule):
        return rule.update(g, state, w, step)
    return torch.vmap(rule.update, in_dims=(0, 0, 0, None))(g, state, w, step)


def update_(rule: Rule, g: Stack, state: State, w: Stack, step: Step) -> State:
    """`update` of one lane, which moves `w` in place and may overwrite `state`."""
    own = {**vars(type(rule)), **getattr(rule, "__dict__", {})}  # not what a base class gives
    fused = getattr(rule, "fused", False) and w[0].dtype == torch.float32
    able = _batched(rule) and "update_" in own and (fused or w[0].device.type == "cpu")
    in_place = getattr(rule, "update_", None)
    if in_place is not None and able and _contiguous(w) and _contiguous(g):
        in_place(g, state, w, step)
        return state
    moved, state = update(rule, _together(g), state, _together(w), step)
    for old, new in [(w, moved)] if isinstance(w, Tensor) else zip(w, moved, strict=True):
        old.copy_(new)
    return state


def _contiguous(stack: Stack) -> bool:
    if isinstance(stack, Tensor):
        return stack.is_contiguous()
    return all(tensor.is_contiguous() for tensor in stack)


def _together(stack: Stack) -> Tensor:
    if isinstance(stack, Tensor):
        return stack
    return stack[0].unsqueeze(0) if len(stack) == 1 else torch.stack(list(stack))


def keeps_gradient(rule: Rule, p: Param) -> bool:
    """Whether its state replaces the gradient buffer: a step without numbers shows it."""
    with torch.device("meta"):
        w = torch.empty(1, *p.shape)
        lr = torch.empty(())
        _, state = update(rule, w, init_state(rule, w), w, Step(0, lr, lr, lr))
    return "gradient" in state


def readout(rule: Rule, w: Tensor, state: State) -> Tensor:
    """Where same-shaped parameters are evaluated, (k, *shape): w where the rule says nothing."""
    own: Callable[[Tensor, State], Tensor] | None = getattr(rule, "readout", None)
    if own is None:
        return w
    return own(w, state) if _batched(rule) else torch.vmap(own)(w, state)


def average(old: Tensor, new: Tensor, beta: float | Tensor) -> Tensor:
    """beta old + (1-beta) new, in one pass over memory."""
    return torch.lerp(new, old, beta)


def average_(old: Tensor, new: Stack, beta: float | Tensor, ahead: Tensor | None = None) -> None:
    """`average` in place of the old tensors; `ahead`: there, that of the result and the new ones.

    One tensor after the other, which is still in the cache for the second.
    """
    places = [None] * len(new) if ahead is None else ahead.unbind()
    for kept, added, place in zip(old, new, places, strict=True):
        torch.lerp(added, kept, beta, out=kept)
        if place is not None:
            torch.lerp(added, kept, beta, out=place)


def add_(w: Stack, moves: Tensor) -> None:
    """w + moves in place; moves: (k, *shape)."""
    pairs = [(w, moves)] if isinstance(w, Tensor) else zip(w, moves, strict=True)
    for own, move in pairs:
        own.add_(move)


def descend(
    w: Tensor, d: Tensor, step: Tensor | float, decay: Tensor | float | None = None
) -> Tensor:
    """(1 - decay) w - step d, a pass over memory each; `step` and `decay` are scalars."""
    kept = w if decay is None else w * (1 - decay)
    return torch.addcmul(kept, d, -torch.as_tensor(step, dtype=w.dtype))


def as_matrix(p: Param, tensor: Tensor) -> Tensor:
    """(*batch, *shape) -> (*batch, d_out, d_in).

    Embedding transposed, taps flattened, a vector (d, 1); fused matrices: (*batch, parts, d_out,
    d_in).
    """
    n = len(p.shape)
    if n == 1:
        return tensor.unsqueeze(-1)
    if p.embedding:
        return tensor.flatten(-n, -2).mT
    matrix = tensor.flatten(1 - n)
    return matrix.unflatten(-2, (p.parts, p.d_out)) if p.parts > 1 else matrix


def from_matrix(p: Param, matrix: Tensor) -> Tensor:
    """Inverse of `as_matrix`."""
    if len(p.shape) == 1:
        return matrix.squeeze(-1)
    if p.embedding:
        return matrix.mT.unflatten(-2, p.shape[:-1])
    matrix = matrix.flatten(-3, -2) if p.parts > 1 else matrix
    return matrix.unflatten(-1, p.shape[1:])


def matrix_shape(p: Param) -> tuple[int, ...]:
    """(d_out, d_in), led by the number of fused matrices where there are several."""
    return (p.parts, p.d_out, p.d_in) if p.parts > 1 else (p.d_out, p.d_in)


def gaussian(p: Param, std: float, generator: Generator) -> Tensor:
    """N(0, std^2), float64; of the vectors a bias is 0 and a gain 1."""
    if p.role == "vector":
        return vector_start(p)
    return std * torch.randn(p.shape, generator=generator, dtype=torch.float64)


def vector_start(p: Param) -> Tensor:
    """Zeros for a bias, ones for a gain; float64."""
    return torch.full(p.shape, float(p.gain), dtype=torch.float64)


def generator_for(seed: int, name: str) -> Generator:
    """A CPU generator that depends on the seed and the parameter's name alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
