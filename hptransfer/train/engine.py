"""train(unit) -> Progress, Snapshot, RunRecord: the training loop. No files, no printing."""

import ctypes
import math
import os
import platform
import re
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from hptransfer import __version__, registry
from hptransfer.errors import InputError
from hptransfer.geometry.processor import bfloat16_rows
from hptransfer.spec import RunRecord, Unit
from hptransfer.train.build import Data, Described
from hptransfer.train.lanes import Lanes, release

CURVE_POINTS = 50
SNAPSHOT_SECONDS = 120.0
SNAPSHOT_FORMAT = 2  # 2: groups name their parameters


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


def load_data(data: dict[str, Any]) -> Data:
    """The data set of a spec or suite: its name and fields."""
    fields = {k: v for k, v in data.items() if k not in ("name", "revision", "sha256")}
    name = data["name"]
    make = registry.load("dataset", name)
    try:
        loaded = make(**fields)
    except Exception as error:
        if isinstance(error, InputError) or name in registry.BUILTINS["dataset"]:
            raise
        what = f"data {name!r}: calling it failed"
        raise registry.broken(what, error, "hptransfer validate checks it") from None
    if not isinstance(loaded, Data):
        raise InputError(
            f"data {data['name']!r}: gave a {type(loaded).__name__}",
            "a data set is a function that returns hptransfer.datasets.Tokens or Examples",
        )
    return loaded


def configure(threads: int) -> None:
    """Process-wide: threads, denormals flushed (they slow a diverging lane), freed memory kept."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc hand freed blocks out again; elsewhere nothing is done.

    Every step frees what the next one allocates. Given back to the system in between, thousands of
    pages a step are mapped and zeroed anew. Parameters: mallopt(3); 32 MiB is glibc's largest
    threshold for blocks that are mapped on their own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if _linux() else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 32 * 2**20)


def return_freed_memory() -> None:
    """Have glibc give what it keeps to the system, for other processes; see malloc_trim(3)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _linux() else None
    if trim is not None:
        trim(0)


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
    described: Described | None = None,
    snapshot_seconds: float = SNAPSHOT_SECONDS,
) -> Iterator[Progress | Snapshot | RunRecord]:
    """Train runs that differ only in scalar hyperparameters or seed as lanes of one run.

    Yields Progress about 50 times, a Snapshot every `snapshot_seconds`, and one RunRecord a lane at
    the end. What is not `described` is found out: the first step is then counted, which takes as
    long as a few. Too little CUDA memory: the unit is split in two; one lane that does not fit
    raises InputError.
    """
    try:
        how = (micro_batch, recompute, described)
        yield from _train(unit, data, device, resume, *how, snapshot_seconds)
        return
    except torch.OutOfMemoryError:
        if unit.lanes == 1:
            raise InputError(
                f"width {unit.spec.width}: one run does not fit in the memory of {device}",
                "a smaller width fits, or micro_batch = 1, recompute = true in the suite",
            ) from None
    # Outside the except clause, for the exception holds the frames and so the unit's tensors.
    release()
    for part in unit.halves():
        yield from train(
            part,
            data,
            device,
            micro_batch=micro_batch,
            recompute=recompute,
            described=described,
            snapshot_seconds=snapshot_seconds,
        )


def _train(
    unit: Unit,
    data: Data,
    device: torch.device,
    resume: Path | None,
    micro_batch: int | None,
    recompute: bool,
    described: Described | None,
    snapshot_seconds: float,
) -> Iterator[Progress | Snapshot | RunRecord]:
    spec = unit.spec
    if device.type == "cuda":
        release()
        torch.cuda.init()  # or the next line refuses a device with a number
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    params, flops = (described.params, described.flops) if described else (None, None)
    lanes = Lanes(
        unit.runs, data, device, micro_batch=micro_batch, recompute=recompute, params=params
    )
    first, spent = (_resume(lanes, resume) if resume else (0, 0.0)) or (0, 0.0)
    keys = unit.keys
    saved = time.perf_counter()
    every = max(1, spec.steps // CURVE_POINTS)
    for t in range(first, spec.steps):
        if flops is None:
            flops = _counted_step(lanes, t)
        else:
            lanes.gradients(t)
            lanes.update(t)
        if (t + 1) % every == 0 or t + 1 == spec.steps:
            seen = lanes.losses[:, : t + 1].cpu()  # the one thing that waits for a GPU
            alive = seen.isfinite().all(dim=1)
            best = seen[alive, t].min().item() if alive.any() else float("inf")
            yield Progress(keys, t + 1, spec.steps, best, int(alive.sum()))
            if not alive.any():
                lanes.losses[:, t + 1 :] = torch.inf
                break
            if time.perf_counter() - saved > snapshot_seconds and t + 1 < spec.steps:
                elapsed = spent + time.perf_counter() - began
                yield Snapshot(unit.key, t + 1, _writer(lanes, t + 1, elapsed, keys))
                saved = time.perf_counter()
    lanes.read_out()
    final = lanes.evaluate().tolist()
    seconds = spent + time.perf_counter() - began
    assert flops is not None  # a snapshot is never one of the last step
    yield from _records(lanes, final, seconds, flops, device)


def _flop_formulas() -> dict[Any, Any]:
    """Where torch's counter is wrong: it skips the CPU kernel of attention, counts the
    recomputation of the CUDA ones, forgets the groups (so the lanes) in a convolution's
    backward pass, and fails on a product that names the dtype of its result."""
    aten = torch.ops.aten

    def forward(*shapes: Any, **_: Any) -> int:
        return sdpa_flop_count(*shapes[:3])

    def backward(*shapes: Any, **_: Any) -> int:
        return 2 * sdpa_flop_count(*shapes[1:4])

    def convolution(*shapes: Any, **_: Any) -> int:
        out, _x, w, *_rest, wanted = shapes  # wanted: gradients of x, of w, of the bias
        return sum(wanted[:2]) * 2 * math.prod(out) * math.prod(w[1:])

    def product(a: Any, b: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(a) * b[-1]

    return {
        aten.bmm: product,
        aten.convolution_backward: convolution,
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        aten._scaled_dot_product_flash_attention_backward: backward,
        aten._scaled_dot_product_efficient_attention_backward: backward,
        aten._scaled_dot_product_cudnn_attention_backward: backward,
    }


def _counted_step(lanes: Lanes, t: int) -> dict[str, float]:
    """One step under torch's FLOP counter; FLOPs a lane and step of the model and the optimizer."""
    with FlopCounterMode(display=False, custom_mapping=_flop_formulas()) as model:
        lanes.gradients(t)
    with FlopCounterMode(display=False, custom_mapping=_flop_formulas()) as optimizer:
        lanes.update(t)
    n = len(lanes.specs)
    return {
        "model_flops_per_step": model.get_total_flops() / n,
        "optimizer_flops_per_step": optimizer.get_total_flops() / n,
    }


def _writer(
    lanes: Lanes, step: int, seconds: float, keys: tuple[str, ...]
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        head = {"format": SNAPSHOT_FORMAT, "keys": keys, "step": step, "seconds": seconds}
        torch.save({**head, **lanes.snapshot()}, path)

    return write


def _resume(lanes: Lanes, path: Path) -> tuple[int, float] | None:
    """Load a snapshot in place; None (start anew) if it is of other runs or another version."""
    saved = torch.load(path, map_location="cpu", weights_only=True)  # no second copy on a GPU
    keys = tuple(spec.key for spec in lanes.specs)
    if saved.get("format") != SNAPSHOT_FORMAT or tuple(saved["keys"]) != keys:
        return None
    lanes.restore(saved)
    return saved["step"], saved["seconds"]


def _records(
    lanes: Lanes, final: list[float], seconds: float, flops: dict[str, float], device: torch.device
) -> Iterator[RunRecord]:
    n = len(lanes.specs)
    env = {**environment(device, n, lanes.micro_batch), "recompute": lanes.recompute}
    evaluations = lanes.spec.eval_batches / 3  # a forward pass is a third of a step's FLOPs
    total = lanes.spec.steps * sum(flops.values()) + evaluations * flops["model_flops_per_step"]
    for spec, loss, history in zip(lanes.specs, final, lanes.losses.cpu(), strict=True):
        done = bool(history.isfinite().all()) and abs(loss) < float("inf") and loss == loss
        yield RunRecord(
            spec=spec,
            status="done" if done else "diverged",
            loss=loss if done else float("inf"),
            loss_init=history[0].item(),
            train_loss=history[-max(1, len(history) // 10) :].mean().item(),
            train_mean=history.mean().item(),
            curve=_curve(history),
            seconds=seconds / n,
            flops=total,
            peak_memory=_peak_memory(device),
            env=env,
            finished=time.time(),
            probes=flops,
        )


def _curve(history: Tensor) -> list[list[float]]:
    """[step, mean training loss since the last point], every steps/50."""
    every = max(1, len(history) // CURVE_POINTS)
    chunks = history.split(every)
    return [
        [min((i + 1) * every, len(history)), chunk.mean().item()] for i, chunk in enumerate(chunks)
    ]


def _peak_memory(device: torch.device) -> int:
    """Bytes: CUDA's allocator peak for this unit; on CPU the peak of the process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@cache
def _git_sha() -> str:
    """Commit of the source, if it runs from a checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return ""
    run = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip()


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "hptransfer": __version__}
    for name in ("torch", "numpy", "optuna", "sympy", "mlxtend", "botocore"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines() if _linux() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _linux() -> bool:
    return Path("/proc/cpuinfo").is_file()


def environment(device: torch.device, lanes: int, micro_batch: int) -> dict[str, Any]:
    """What a record says of where it was made; none of it decides the loss beyond 1e-5."""
    return {
        "versions": _versions(),
        "git": _git_sha(),
        "device": device_name(device),
        "kind": device.type,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "lanes": lanes,
        "micro_batch": micro_batch,
        "bfloat16_rows": bfloat16_rows(device),  # from where `mixed` polar factors are not float32
    }
