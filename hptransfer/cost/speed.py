"""How fast a run goes: seconds per step and per evaluation, measured or extrapolated."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from hptransfer.cost.count import Cost
from hptransfer.cost.placement import Placement
from hptransfer.spec import RunSpec
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared
from hptransfer.train.replay import Steps

CUDA_SECONDS = 0.2  # a GPU's step is too short for a clock that stops after two
# Parts of the float32 matrix-product rate that an extrapolated step reaches. The optimizer's is
# that of bfloat16 products, where the processor has fast ones; else the model's stands for both.
MODEL_EFFICIENCY = 0.65
OPTIMIZER_EFFICIENCY = 2.0


@dataclass(frozen=True)
class Speed:
    """Seconds per lane of one training step and of one evaluation batch.

    `lanes` of them train together in each of `processes`, all of which train at once.
    """

    lanes: int
    step: float
    evaluation: float
    processes: int = 1

    def run(self, spec: RunSpec) -> float:
        """Seconds of a whole run."""
        return spec.steps * self.step + spec.evaluations * self.evaluation

    @property
    def shared(self) -> float:
        """Seconds per step of any run, where all processes train."""
        return self.step / self.processes


def extrapolated(cost: Cost, rate: float, processes: int, *, fast_bfloat16: bool) -> Speed:
    """One lane's speed from its FLOPs and the matrix-product rate in FLOP/s."""
    model = cost.model_flops / (MODEL_EFFICIENCY * rate)
    efficiency = OPTIMIZER_EFFICIENCY if fast_bfloat16 else MODEL_EFFICIENCY
    step = model + cost.optimizer_flops / (efficiency * rate)
    return Speed(1, step, model / 3, processes)


def time_steps(
    prepared: Prepared,
    device: torch.device,
    lanes: int,
    placement: Placement,
    *,
    seconds: float = 0.0,
    ready: Callable[[], object] = lambda: None,
) -> Speed:
    """Time at least two training steps and one evaluation, each for at least `seconds`.

    `ready` is called after the first steps, before the clock starts. On a GPU an evaluation comes
    first too, for the first call of a kernel loads it.
    """
    if device.type == "cuda":
        seconds = max(seconds, CUDA_SECONDS)
    spec = prepared.spec
    runs = [spec.point(spec.log2_lr - i / 8, spec.seed) for i in range(lanes)]
    running = Lanes(
        [replace(run, eval_examples=2 * run.batch) for run in runs],
        prepared.data,
        device,
        prepared=prepared,
        micro_batch=placement.micro_batch,
        recompute=placement.recompute,
        drawn=False,
    )
    steps = Steps(running)
    for t in range(steps.practice):
        steps.step(t % spec.steps)
    if device.type == "cuda":
        running.evaluate()
    _synchronise(device)
    ready()

    training = _mean_seconds(lambda t: steps.step(t % spec.steps), 2, seconds, device)
    evaluation = _mean_seconds(lambda _: running.evaluate(), 1, seconds, device)
    return Speed(lanes, training / lanes, evaluation / 2 / lanes)


def _mean_seconds(
    call: Callable[[int], object], least: int, seconds: float, device: torch.device
) -> float:
    """Mean seconds of at least `least` calls, which take at least `seconds` together."""
    began, done = time.perf_counter(), 0
    while done < least or time.perf_counter() - began < seconds:
        done += 1
        call(done)
    _synchronise(device)
    return (time.perf_counter() - began) / done


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
