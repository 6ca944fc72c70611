"""The parts of an optimizer: Step, State, Rule, and a parameter's view as a matrix."""

import hashlib
import math
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
"""Tensors that a rule keeps for one parameter between steps, by name."""

_METHODS = ("init_weight", "update")

Stack = Tensor | Sequence[Tensor]
"""k tensors of one shape: one tensor (k, *shape), or a sequence of k tensors."""


class Step(NamedTuple):
    """One step: `t` gradients came before this one.

    `lr` of this step, `lr_next` of the next one, `lr_peak` the tuned one: 0-d tensors. A step that
    a GPU replays has `t` as a 0-d tensor too; only rules of this package are given it.
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

    The engine maps `update` and `readout` over parameters of one shape and over lanes. A rule whose
    attribute `batched` is true takes parameters of one shape together, as (k, *shape), which is
    faster. A state entry named `gradient` replaces the gradient buffer, and the next gradient is
    added to it (ScionLight). No entry of the state may be g or w itself: the engine overwrites
    both.

    A rule may also have:
    - `elementwise`, true where each entry moves by its own weight, gradient and state alone: of a
      tensor that processes share, each then moves the part that it has.
    - `init_state(w) -> State`: the state before the first step. Default: momentum `m`, zeros like
      w.
    - `readout(w, state) -> Tensor`: the point to evaluate, for instance X where the weights hold a
      transported Y. Default: the weights.
    - `update_(g, state, w, step)`, only if `batched`: moves the tensors of one lane and its state
      in place; g and w are Stacks. The engine calls it for contiguous tensors, and only where the
      rule or its own class defines it, not a base class: on a CPU, and for float32 on a GPU where
      the attribute `fused` is true.
    """

    def init_weight(self, generator: Generator) -> Tensor:
        """The weight at the start of a run, of `Param.shape`."""
        ...

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        """The new weight and the new state; g: the gradient at w. Changes no argument in place."""
        ...


def made(name: str, optimizer: Callable[..., Rule], p: Param, hp: dict[str, Any]) -> Rule:
    """The rule of an optimizer for a parameter.

    Raises InputError where the optimizer returns no rule.
    """
    rule = optimizer(p, **hp)
    if missing := [m for m in _METHODS if not hasattr(rule, m)]:
        raise InputError(
            f"optimizer {name!r}: gave a {type(rule).__name__} without {', '.join(missing)}",
            "docs/how-to/own-optimizer.md says what an optimizer returns",
        )
    return rule


def _batched(rule: Rule) -> bool:
    return getattr(rule, "batched", False)


def init_state(rule: Rule, w: Tensor) -> State:
    """State of parameters of one shape, w: (k, *shape); zeros as `m` without `init_state`."""
    own: Callable[[Tensor], State] | None = getattr(rule, "init_state", None)
    if own is None:
        return {"m": torch.zeros_like(w)}
    return own(w) if _batched(rule) else torch.vmap(own)(w)


def update(rule: Rule, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
    """One step of parameters of one shape; tensors are (k, *shape)."""
    if _batched(rule):
        return rule.update(g, state, w, step)
    return torch.vmap(rule.update, in_dims=(0, 0, 0, None))(g, state, w, step)


def update_(rule: Rule, g: Stack, state: State, w: Stack, step: Step) -> State:
    """`update` of one lane: moves `w` in place and may overwrite `state`."""
    # An inherited `update_` may not match the `update` of a subclass.
    own = {**vars(type(rule)), **getattr(rule, "__dict__", {})}
    fused = getattr(rule, "fused", False) and w[0].dtype == torch.float32
    devices = ("cpu", "cuda") if fused else ("cpu",)
    able = _batched(rule) and "update_" in own and w[0].device.type in devices
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
    """Whether the state replaces the gradient buffer; a step on the meta device shows it."""
    with torch.device("meta"):
        w = torch.empty(1, *p.shape)
        lr = torch.empty(())
        _, state = update(rule, w, init_state(rule, w), w, Step(0, lr, lr, lr))
    return "gradient" in state


def readout(rule: Rule, w: Tensor, state: State) -> Tensor:
    """Point to evaluate for parameters of one shape, (k, *shape); w without a `readout`."""
    own: Callable[[Tensor, State], Tensor] | None = getattr(rule, "readout", None)
    if own is None:
        return w
    return own(w, state) if _batched(rule) else torch.vmap(own)(w, state)


def average(old: Tensor, new: Tensor, beta: float | Tensor) -> Tensor:
    """beta old + (1-beta) new, in one pass over memory."""
    return torch.lerp(new, old, beta)


def average_(old: Tensor, new: Stack, beta: float | Tensor, ahead: Tensor | None = None) -> None:
    """`average` into `old`, (k, *shape).

    `ahead`, if given, takes beta old + (1-beta) new of the result. The tensors take turns, so that
    each is still in the cache for its second pass.
    """
    places = [None] * len(new) if ahead is None else ahead.unbind()
    for mean, value, place in zip(old, new, places, strict=True):
        torch.lerp(value, mean, beta, out=mean)
        if place is not None:
            torch.lerp(value, mean, beta, out=place)


def add_(w: Stack, moves: Tensor) -> None:
    """w + moves in place; moves: (k, *shape)."""
    pairs = [(w, moves)] if isinstance(w, Tensor) else zip(w, moves, strict=True)
    for own, move in pairs:
        own.add_(move)


def descend(
    w: Tensor, d: Tensor, step: Tensor | float, decay: Tensor | float | None = None
) -> Tensor:
    """(1 - decay) w - step d, in one pass over memory per term; scalar `step` and `decay`."""
    remainder = w if decay is None else w * (1 - decay)
    return torch.addcmul(remainder, d, -torch.as_tensor(step, dtype=w.dtype))


def as_matrix(p: Param, tensor: Tensor) -> Tensor:
    """(*batch, *shape) -> (*batch, d_out, d_in); (*batch, matrices, d_out, d_in) of several.

    Several are fused or stacked. An embedding is transposed, the taps of a convolution are
    flattened, a vector becomes (d, 1).
    """
    n = len(p.shape) - p.stacked
    if n == 1:
        return tensor.unsqueeze(-1)
    if p.embedding:
        return tensor.flatten(-n, -2).mT
    matrix = tensor.flatten(1 - n)
    if not _several(p):
        return matrix
    return matrix.flatten(-2 - p.stacked, -2).unflatten(-2, (_number(p), p.d_out))


def from_matrix(p: Param, matrix: Tensor) -> Tensor:
    """Inverse of `as_matrix`."""
    n = len(p.shape) - p.stacked
    if n == 1:
        return matrix.squeeze(-1)
    if p.embedding:
        return matrix.mT.unflatten(-2, p.shape[:-1])
    if _several(p):
        rows = p.shape[: p.stacked + 1]
        matrix = matrix.flatten(-3, -2).unflatten(-2, rows)
    return matrix.unflatten(-1, p.shape[p.stacked + 1 :])


def matrix_shape(p: Param) -> tuple[int, ...]:
    """(d_out, d_in); (matrices, d_out, d_in) of several."""
    return (_number(p), p.d_out, p.d_in) if _several(p) else (p.d_out, p.d_in)


def _several(p: Param) -> bool:
    return p.parts > 1 or p.stacked > 0


def _number(p: Param) -> int:
    """Number of matrices, fused and stacked ones."""
    return p.parts * math.prod(p.shape[: p.stacked])


def gaussian(p: Param, std: float, generator: Generator) -> Tensor:
    """N(0, std^2) of `Param.shape`, float64; a bias is 0 and a gain 1."""
    if p.role == "vector":
        return vector_start(p)
    return std * torch.randn(p.shape, generator=generator, dtype=torch.float64)


def vector_start(p: Param) -> Tensor:
    """Zeros for a bias, ones for a gain; `Param.shape`, float64."""
    return torch.full(p.shape, float(p.gain), dtype=torch.float64)


def generator_for(seed: int, name: str) -> Generator:
    """A CPU generator that depends on the seed and the parameter's name alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
