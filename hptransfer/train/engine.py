"""train(unit) -> Progress, Snapshot, RunRecord: the training loop. No files, no printing."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hptransfer.errors import InputError
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.train import memory, snapshots
from hptransfer.train.build import Data
from hptransfer.train.counting import counted_step
from hptransfer.train.environment import device_name, environment
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared, StepFlops, load_data, prepare
from hptransfer.train.replay import Steps

__all__ = [
    "Data",
    "Progress",
    "Restarted",
    "Snapshot",
    "Unsaved",
    "configure",
    "device_name",
    "environment",
    "load_data",
    "pick_device",
    "train",
]

CURVE_POINTS = 50
SNAPSHOT_SECONDS = 120.0


@dataclass(frozen=True)
class Progress:
    """Step reached by a unit, and the best training loss among its lanes."""

    keys: tuple[str, ...]
    step: int
    steps: int
    loss: float
    alive: int


@dataclass(frozen=True)
class Snapshot:
    """A mid-run state of a unit, weights as trained on (Y if transported); `write` saves it."""

    key: str
    step: int
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Restarted:
    """The unit of this run could not go on from its snapshot and starts anew; `reason`: why."""

    spec: RunSpec
    reason: str


@dataclass(frozen=True)
class Unsaved:
    """The unit of this run keeps no snapshots and would start anew; `reason`: why."""

    spec: RunSpec
    reason: str


def configure(threads: int) -> None:
    """Set up this process: threads, freed memory kept, denormals flushed (they slow a lane that
    diverges)."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    memory.keep_freed_memory()


def pick_device(name: str) -> torch.device:
    """`auto | cpu | cuda[:i]` -> device. Raises InputError where it is not there.

    float32 is float32 on a GPU too: cuDNN would round convolutions to 10 bits.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"got {name!r}, allowed: auto, cpu, cuda, cuda:0, ...", option="device")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(
                f"{name}: torch sees no CUDA device",
                "use the device cpu",
                option="device",
                cures=("device",),
            )
        index = name.removeprefix("cuda").removeprefix(":")
        if index and int(index) >= torch.cuda.device_count():
            raise InputError(
                f"{name}: not there",
                f"torch sees {torch.cuda.device_count()} device(s)",
                option="device",
            )
    return torch.device(name)


def train(
    unit: Unit,
    data: Data,
    device: torch.device,
    *,
    resume: Path | None = None,
    micro_batch: int | None = None,
    recompute: bool = False,
    prepared: Prepared | None = None,
    snapshot_seconds: float = SNAPSHOT_SECONDS,
) -> Iterator[Progress | Snapshot | Restarted | RunRecord]:
    """Train runs that differ only in scalar hyperparameters or seed as lanes of one run.

    Yields Progress about 50 times, a Snapshot every `snapshot_seconds`, and a RunRecord per lane at
    the end; Restarted first, where `resume` cannot be used. A unit is prepared here by default, and
    its first step is counted where its FLOPs are not known, which makes that step a few times as
    long. With too little CUDA memory the unit is split in two; one lane that does not fit raises
    InputError.
    """
    prepared = prepare(unit.spec, data) if prepared is None else prepared
    how = {"micro_batch": micro_batch, "recompute": recompute, "prepared": prepared}
    lanes_of = partial(Lanes, data=data, device=device, **how)
    yield from _split_to_fit(unit, lanes_of, device, prepared.flops, resume, snapshot_seconds)


def _split_to_fit(
    unit: Unit,
    lanes_of: Callable[[tuple[RunSpec, ...]], Lanes],
    device: torch.device,
    flops: StepFlops | None,
    resume: Path | None,
    snapshot_seconds: float,
) -> Iterator[Progress | Snapshot | Restarted | RunRecord]:
    """Train a unit, or its halves one after the other where the device's memory is too small."""
    try:
        yield from _train(unit, lanes_of, device, flops, resume, snapshot_seconds)
        return
    except torch.OutOfMemoryError:
        if unit.lanes == 1:
            raise InputError(
                f"width {unit.spec.width}: one run does not fit in the memory of {device}",
                "a smaller width fits, or micro_batch = 1, recompute = true in the suite",
            ) from None
    # Outside the except clause, for the exception holds the frames and so the unit's tensors.
    memory.release()
    for part in unit.halves():
        yield from _split_to_fit(part, lanes_of, device, flops, None, snapshot_seconds)


def _train(
    unit: Unit,
    lanes_of: Callable[[tuple[RunSpec, ...]], Lanes],
    device: torch.device,
    flops: StepFlops | None,
    resume: Path | None,
    snapshot_seconds: float,
) -> Iterator[Progress | Snapshot | Restarted | RunRecord]:
    spec = unit.spec
    if device.type == "cuda":
        memory.release()
    peak = memory.watch_peak(device)
    began = time.perf_counter()
    lanes, first, spent, reason = _resumed(partial(lanes_of, unit.runs), resume)
    if reason:
        yield Restarted(spec, reason)
    saved = time.perf_counter()
    every = max(1, spec.steps // CURVE_POINTS)
    steps = spec.steps
    running = Steps(lanes)
    for t in range(first, spec.steps):
        if flops is None:
            flops = counted_step(lanes, t)
        else:
            running.step(t)
        if (t + 1) % every == 0 or t + 1 == spec.steps:
            progress = _progress(unit, lanes, t)
            yield progress
            if not progress.alive:
                lanes.losses[:, t + 1 :] = torch.inf
                steps = t + 1
                break
            if time.perf_counter() - saved > snapshot_seconds and t + 1 < spec.steps:
                elapsed = spent + time.perf_counter() - began
                yield Snapshot(unit.key, t + 1, snapshots.writer(lanes, t + 1, elapsed))
                saved = time.perf_counter()
    lanes.read_out()
    final = lanes.evaluate().tolist()
    seconds = spent + time.perf_counter() - began
    assert flops is not None  # a snapshot is never one of the last step
    ends = list(zip(lanes.specs, final, lanes.losses.cpu(), strict=True))
    recomputed = lanes.recompute
    env = environment(device, unit.lanes, lanes.micro_batch)
    env |= {"recompute": recomputed, "graph": running.graph}
    del lanes, running  # before the peak is read
    if recomputed:
        memory.release()  # blocks that are recomputed refer to themselves
    whole = flops.of_run(steps, spec.evaluations)
    cost = _UnitCost(seconds / len(ends), whole, peak(), flops, env)
    yield from (_record(*end, cost) for end in ends)


def _resumed(make: Callable[[], Lanes], resume: Path | None) -> tuple[Lanes, int, float, str]:
    """Lanes, the steps they have made, the seconds these took, and why a snapshot was not used."""
    lanes = make()
    if resume is None:
        return lanes, 0, 0.0, ""
    try:
        return lanes, *snapshots.restore(lanes, resume), ""
    except snapshots.UnusableError as error:
        reason = f"its snapshot {error}"
    del lanes  # before the next ones are made: both may not fit
    return make(), 0, 0.0, reason


def _progress(unit: Unit, lanes: Lanes, t: int) -> Progress:
    """After step t. The one thing in a step that waits for a GPU."""
    losses = lanes.losses[:, : t + 1].cpu()
    alive = losses.isfinite().all(dim=1)
    best = losses[alive, t].min().item() if alive.any() else float("inf")
    return Progress(unit.keys, t + 1, unit.spec.steps, best, int(alive.sum()))


@dataclass(frozen=True)
class _UnitCost:
    """Seconds and FLOPs of a run, peak bytes of its unit, FLOPs of a step, and the `env`."""

    seconds: float
    flops: float
    peak_memory: int
    step_flops: StepFlops
    env: dict[str, Any]


def _record(spec: RunSpec, loss: float, history: Tensor, cost: _UnitCost) -> RunRecord:
    """`history`: the training loss of every step."""
    done = bool(history.isfinite().all()) and abs(loss) < float("inf") and loss == loss
    return RunRecord(
        spec=spec,
        status="done" if done else "diverged",
        loss=loss if done else float("inf"),
        loss_init=history[0].item(),
        train_loss=history[-max(1, len(history) // 10) :].mean().item(),
        train_mean=history.mean().item(),
        curve=_curve(history),
        seconds=cost.seconds,
        flops=cost.flops,
        peak_memory=cost.peak_memory,
        env=cost.env,
        finished=time.time(),
        probes=cost.step_flops.to_json(),
    )


def _curve(history: Tensor) -> list[list[float]]:
    """[step, mean training loss since the last point], about 50 points."""
    every = max(1, len(history) // CURVE_POINTS)
    chunks = history.split(every)
    return [
        [min((i + 1) * every, len(history)), chunk.mean().item()] for i, chunk in enumerate(chunks)
    ]
