"""What a run costs: parameters, FLOPs and bytes, counted on the meta device without a step."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from hptransfer.errors import InputError, Note, cause
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Step
from hptransfer.train.build import blocks, examples
from hptransfer.train.groups import sparse_gradient
from hptransfer.train.prepare import Prepared, StepFlops, own_parts


@dataclass(frozen=True)
class Cost:
    """What one lane costs: parameters, FLOPs per step, bytes at the peak.

    `fixed`: weights (and their bfloat16 copies), gradients, optimizer state, temporaries of the
    largest update. `activations`: of the whole batch at once. `recomputed`: the same where every
    block keeps its input alone.
    """

    parameters: int
    model_flops: float
    optimizer_flops: float
    fixed: int
    activations: int
    recomputed: int

    @property
    def memory(self) -> int:
        """Bytes with the whole batch at once."""
        return self.fixed + self.activations

    @property
    def flops(self) -> StepFlops:
        return StepFlops(self.model_flops, self.optimizer_flops)


def count(prepared: Prepared) -> Cost:
    """The cost of a run. Raises InputError where the model cannot be built.

    A part of somebody's own that the meta device cannot run is counted on the CPU, with a Note.
    """
    try:
        with torch.device("meta"):
            return _counted(prepared)
    except Exception as error:
        own = own_parts(prepared.spec)
        refused = isinstance(error, InputError) and error.__cause__ is None
        if refused or not own:
            raise
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            cost = _counted(prepared)
        names = " or ".join(f"{kind} {name!r}" for kind, name in own.items())
        text = f"{names}: counted in a step on the CPU, for without numbers it fails"
        warnings.warn(Note(f"{text} ({cause(error.__cause__ or error)})"), stacklevel=2)
        return cost


def _counted(prepared: Prepared) -> Cost:
    sizes = [math.prod(p.shape) for p in prepared.params]
    parameters, largest = sum(sizes), max(sizes)
    model_flops, activations, recomputed, frozen = _model_cost(prepared)
    optimizer_flops, state = _optimizer_cost(prepared)
    if not prepared.vectorises:
        state = 8 * parameters  # a torch optimizer does not say; Adam has two buffers
    half = prepared.spec.precision == "bfloat16"
    return Cost(
        parameters,
        model_flops,
        optimizer_flops,
        fixed=(10 if half else 8) * parameters + state + 4 * 4 * largest + frozen,
        activations=int(activations / (2 if half else 1)),
        recomputed=int(recomputed / (2 if half else 1)),
    )


def _model_cost(prepared: Prepared) -> tuple[int, int, float, int]:
    """FLOPs of a forward and backward pass, and the float32 bytes that the forward pass keeps.

    The bytes twice: with all activations, and with those of one block and the inputs of the others.
    Last the bytes of the parameters that do not train.
    """
    model = prepared.build()
    x, y = examples(prepared.spec, prepared.data, prepared.spec.batch)
    saved: dict[StorageWeakRef, int] = {}
    own = {StorageWeakRef(p.untyped_storage()) for p in model.parameters()}
    entered = _Blocks(model)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (reference := StorageWeakRef(storage)) not in own and not attention.open:
            saved[reference] = storage.nbytes()
            entered.see(reference)
        return tensor

    with FlopCounterMode(display=False) as flops:
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with _Attention(keep) as attention, hooks:
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        loss.backward()
    for p in model.parameters():
        if p.grad is not None and p.grad.layout is not torch.strided:
            raise sparse_gradient(tuple(p.shape))
    total = sum(saved.values())
    inside = sum(saved[reference] for reference in entered.inside)
    recomputed = float(total - inside)
    if entered.count:
        recomputed += entered.inputs + inside / entered.count
    frozen = sum(4 * p.numel() for p in model.parameters() if not p.requires_grad)
    return flops.get_total_flops(), total, recomputed, frozen


def _optimizer_cost(prepared: Prepared) -> tuple[int, int]:
    """FLOPs of an update and bytes of the state; both 0 for a torch optimizer."""
    if not prepared.vectorises:
        return 0, 0
    lr = torch.tensor(1.0)
    state_bytes = 0
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        for p in prepared.params:
            rule = prepared.rule(p)
            w = torch.zeros(1, *p.shape)
            state = rules.init_state(rule, w)
            state_bytes += sum(s.numel() * 4 for s in state.values())
            rules.update(rule, w, state, w, Step(0, lr, lr, lr))
    return flops.get_total_flops(), state_bytes


class _Blocks:
    """Which tensors are saved inside a model's blocks, and the bytes of the blocks' inputs."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.inside: set[StorageWeakRef] = set()
        self.inputs = 0
        self.count = 0
        self._open = False
        for block in blocks(model):
            block.register_forward_pre_hook(self._enter)
            block.register_forward_hook(self._leave)

    def _enter(self, block: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        del block
        self._open = True
        self.count += 1
        self.inputs += args[0].untyped_storage().nbytes()

    def _leave(self, *_: object) -> None:
        self._open = False

    def see(self, reference: StorageWeakRef) -> None:
        if self._open:
            self.inside.add(reference)


class _Attention(TorchFunctionMode):
    """Keeps what the fused kernels of attention do, its inputs and its output.

    On the meta device it is taken apart, into products that keep every score.
    """

    def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.open = False
        self._keep = keep

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.open = True
        out = func(*args, **(kwargs or {}))
        self.open = False
        for kept in (*args, *(kwargs or {}).values(), out):
            if isinstance(kept, Tensor):  # query, key, value, a mask
                self._keep(kept)
        return out
