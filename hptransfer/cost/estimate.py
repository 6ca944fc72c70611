"""What a run costs before it is run: parameters, FLOPs and memory on the meta device, and speed."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from hptransfer import registry
from hptransfer.datasets import Tokens
from hptransfer.errors import InputError
from hptransfer.geometry.processor import bfloat16_rows
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Step
from hptransfer.spec import RunSpec
from hptransfer.train.build import Data, blocks, build, context_of, describe_params
from hptransfer.train.lanes import Lanes, vectorises
from hptransfer.train.memory import release

SLOW_STEP_FLOPS = 5e11  # on CPU a heavier step is not timed but extrapolated
# On CPU a longer step is that of a run which is large enough for more threads, and too large to
# gain by lanes.
LONG_STEP = 0.05
CUDA_SECONDS = 0.2  # at least timed on a GPU, whose steps may take a few ms
WORTH = 0.9  # more lanes or threads must save a tenth, or noise would choose their number
# Of the float32 matrix-product rate, where a step is extrapolated. The optimizer's are of bfloat16
# products, where a CPU has fast ones; else the model's stands for both.
MODEL_EFFICIENCY = 0.65
OPTIMIZER_EFFICIENCY = 2.0


@dataclass(frozen=True)
class Estimate:
    """Of one lane: parameters; FLOPs a step (model, optimizer); bytes at the peak.

    `fixed`: weights (and their bfloat16 casts), gradients, optimizer state, temporaries of the
    largest update. `activations`: of the whole batch at once; `recomputed`: where every block
    keeps its input alone.
    """

    parameters: int
    model_flops: float
    optimizer_flops: float
    fixed: int
    activations: int
    recomputed: int

    @property
    def memory(self) -> int:
        """Of the whole batch at once."""
        return self.fixed + self.activations

    @property
    def flops(self) -> dict[str, float]:
        """Of a step, as records name them."""
        return {
            "model_flops_per_step": self.model_flops,
            "optimizer_flops_per_step": self.optimizer_flops,
        }


@dataclass(frozen=True)
class Fit:
    """How a run fits a device: examples a backward pass, whether blocks are recomputed; bytes."""

    micro_batch: int
    recompute: bool
    memory: int


def fit(
    cost: Estimate, batch: int, room: float, micro_batch: int | None, recompute: bool | None
) -> Fit | None:
    """The fewest micro-batches that fit into `room` bytes; recomputing only where all else fails.

    `micro_batch`, `recompute`: what the suite fixes. None where nothing fits.
    """
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    for again in (False, True) if recompute is None else (recompute,):
        kept = cost.recomputed if again else cost.activations
        for size in sizes if micro_batch is None else [min(micro_batch, batch)]:
            memory = cost.fixed + kept * size // batch
            if memory <= room:
                return Fit(size, again, memory)
    return None


@dataclass(frozen=True)
class Share:
    """What each of `processes` that train at once has of a device, and how a run fits into it."""

    processes: int
    threads: int
    fit: Fit | None = None


@dataclass(frozen=True)
class Speed:
    """Seconds a lane of one training step and of one evaluation batch.

    `lanes` of them train together, in each of `processes`.
    """

    lanes: int
    step: float
    evaluation: float
    processes: int = 1

    def run(self, spec: RunSpec) -> float:
        """Seconds of a whole run."""
        return spec.steps * self.step + spec.eval_batches * self.evaluation

    @property
    def shared(self) -> float:
        """Seconds a step, where all processes train."""
        return self.step / self.processes


def estimate(spec: RunSpec, data: Data) -> Estimate:
    """Count without allocating. Raises InputError where the model cannot be built."""
    params = describe_params(spec, data)
    optimizer = registry.load_spec("optimizer", spec.optimizer)
    with torch.device("meta"):
        model = build(spec, data, spec.width)
        x, y = _batch(spec, data)
        saved: dict[StorageWeakRef, int] = {}
        own = {StorageWeakRef(p.untyped_storage()) for p in model.parameters()}

        entered = _Blocks(model)

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if (reference := StorageWeakRef(storage)) not in own and not attention.open:
                saved[reference] = storage.nbytes()
                entered.see(reference)
            return tensor

        with FlopCounterMode(display=False) as model_flops:
            hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
            with _Attention(keep) as attention, hooks:
                loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
            loss.backward()
        lr = torch.tensor(1.0)
        state_bytes = 0
        with FlopCounterMode(display=False) as optimizer_flops, torch.no_grad():
            for p in params if vectorises(spec) else ():
                rule = rules.made(spec.optimizer["name"], optimizer, p, spec.hp)
                w = torch.empty(1, *p.shape)
                state = rules.init_state(rule, w)
                state_bytes += sum(s.numel() * 4 for s in state.values())
                rules.update(rule, w, state, w, Step(0, lr, lr, lr))
    count = sum(math.prod(p.shape) for p in params)
    if not vectorises(spec):
        state_bytes = 8 * count  # a torch optimizer does not say; Adam's two buffers
    largest = max(math.prod(p.shape) for p in params)
    shrink = 2 if spec.precision == "bfloat16" else 1
    inside = sum(saved[reference] for reference in entered.inside)
    outside = sum(saved.values()) - inside
    recomputed = outside + entered.inputs + inside / max(1, entered.count)
    return Estimate(
        count,
        model_flops.get_total_flops(),
        optimizer_flops.get_total_flops(),
        fixed=(8 if shrink == 1 else 10) * count + state_bytes + 4 * 4 * largest,
        activations=int(sum(saved.values()) / shrink),
        recomputed=int((recomputed if entered.count else outside) / shrink),
    )


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


def _batch(spec: RunSpec, data: Data) -> tuple[Tensor, Tensor]:
    if isinstance(data, Tokens):
        x = torch.zeros(spec.batch, context_of(spec), dtype=torch.long)
        return x, x
    return torch.zeros(spec.batch, *data.dims["in_shape"]), torch.zeros(
        spec.batch, dtype=torch.long
    )


def memory_of(device: torch.device) -> int:
    """Bytes of the device: the whole card, or the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure(
    spec: RunSpec,
    data: Data,
    device: torch.device,
    lanes: int,
    how: Fit | None = None,
    *,
    seconds: float = 0.0,
    ready: Callable[[], object] = lambda: None,
) -> Speed:
    """Time training steps, at least two and for `seconds`, and evaluation batches, likewise.

    `ready` is called after a first step, before the clock starts; on a GPU after a first evaluation
    too, for its kernels are loaded and chosen at the first call.
    """
    if device.type == "cuda":
        seconds = max(seconds, CUDA_SECONDS)
    unit = [spec.point(spec.log2_lr - i / 8, spec.seed) for i in range(lanes)]
    running = Lanes(
        [replace(s, eval_batches=2) for s in unit],
        data,
        device,
        micro_batch=how.micro_batch if how else None,
        recompute=how.recompute if how else False,
        drawn=False,
    )
    running.gradients(0)
    running.update(0)
    if device.type == "cuda":
        running.evaluate()
    _synchronise(device)
    ready()

    def step(t: int) -> None:
        running.gradients(t % spec.steps)
        running.update(t % spec.steps)

    took = _each(step, 2, seconds, device), _each(lambda _: running.evaluate(), 1, seconds, device)
    return Speed(lanes, took[0] / lanes, took[1] / 2 / lanes)


def _each(call: Callable[[int], object], least: int, seconds: float, device: torch.device) -> float:
    """Seconds of a call, over at least `least` of them and `seconds`."""
    began, done = time.perf_counter(), 0
    while done < least or time.perf_counter() - began < seconds:
        done += 1
        call(done)
    _synchronise(device)
    return (time.perf_counter() - began) / done


def calibrate(
    spec: RunSpec,
    data: Data,
    device: torch.device,
    shares: Sequence[Share] = (Share(1, 1),),
    together: Callable[[Share, int], Speed] | None = None,
) -> Speed:
    """The fastest number of lanes for this unit, found by doubling until it stops paying, and of
    processes: those of the first share, whose threads are set, or of a later one. Later ones are
    timed where a step is long on CPU.

    `together`: the speed at a share and a number of lanes where all its processes train at once,
    which is what a run sees. A step too heavy to time on CPU is extrapolated from FLOPs and the
    matrix-product rate, at the first share.
    """
    first = shares[0]
    cost = estimate(spec, data)
    flops = cost.model_flops + cost.optimizer_flops
    if device.type == "cpu" and flops > SLOW_STEP_FLOPS:
        rate = matmul_rate(device)
        model = cost.model_flops / (MODEL_EFFICIENCY * rate)
        fast = bfloat16_rows(device) is not None
        efficiency = OPTIMIZER_EFFICIENCY if fast else MODEL_EFFICIENCY
        step = model + cost.optimizer_flops / (efficiency * rate)
        return Speed(1, step, model / 3, first.processes)
    best = _measured(spec, data, device, 1, first.fit)
    if best is None:
        raise InputError(
            f"width {spec.width}: one run does not fit in the memory of {device}",
            "a smaller width fits, or micro_batch = 1, recompute = true in the suite",
        )
    budget = 0.6 * memory_of(device) / first.processes
    long = device.type == "cpu" and best.step > LONG_STEP
    parts = first.fit is not None and first.fit.micro_batch < spec.batch
    one = long or parts or not vectorises(spec)
    lanes = 4
    while not one and lanes <= 64 and lanes * cost.memory < budget:
        found = _measured(spec, data, device, lanes)
        if found is None or found.step > WORTH * best.step:
            break
        again = _measured(spec, data, device, best.lanes, first.fit)  # was it a slow moment?
        best = min(best, again or best, key=lambda speed: speed.step)
        if found.step > WORTH * best.step:
            break
        best = found
        lanes *= 2
    if together is None:
        return replace(best, processes=first.processes)
    best = together(first, best.lanes)
    return _fewer(best, shares, together) if long else best


def _fewer(best: Speed, shares: Sequence[Share], together: Callable[[Share, int], Speed]) -> Speed:
    """The speed at the share from which on the next does not pay, or cannot be timed.

    `best` is that of the first.
    """
    for now, later in pairwise(shares):
        try:
            found = together(later, 1)
        except InputError:  # a run would end so too
            break
        if found.shared > WORTH * best.shared:
            break
        best = min(best, together(now, 1), key=lambda speed: speed.shared)  # a slow moment?
        if found.shared > WORTH * best.shared:
            break
        best = found
    return best


def _measured(
    spec: RunSpec, data: Data, device: torch.device, lanes: int, how: Fit | None = None
) -> Speed | None:
    """`measure`, None where the device's memory is too small. It is given back for the workers."""
    try:
        return measure(spec, data, device, lanes, how=how)
    except torch.OutOfMemoryError:
        return None
    finally:
        if device.type == "cuda":
            release()


def matmul_rate(device: torch.device, n: int = 1024) -> float:
    """FLOP/s of a float32 matrix product of size n on this device and these threads."""
    a = torch.randn(n, n, device=device)
    torch.matmul(a, a)
    _synchronise(device)
    began = time.perf_counter()
    for _ in range(3):
        torch.matmul(a, a)
    _synchronise(device)
    return 3 * 2 * n**3 / (time.perf_counter() - began)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
