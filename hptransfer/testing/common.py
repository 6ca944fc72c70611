"""What the contracts share: a small run, tiny data, and how a clause fails."""

import math
import signal
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hptransfer.datasets import Examples, Tokens
from hptransfer.errors import cause
from hptransfer.registry import Part
from hptransfer.spec import RunSpec
from hptransfer.train import snapshots
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared, own_parts

CPU = torch.device("cpu")

Clause = tuple[str, Callable[[], str | None]]


class BrokenError(Exception):
    """A clause that does not hold."""


class OutOfTimeError(BaseException):
    """A clause took too long. No `except Exception` of the target may take it for its own."""


@contextmanager
def limited(seconds: float) -> Generator[None]:
    """Raises OutOfTimeError in the block after so many seconds.

    Outside the main thread, which alone can be interrupted, there is no limit.
    """
    if seconds == math.inf or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def require(condition: bool, detail: str) -> None:
    if not condition:
        raise BrokenError(detail)


def summary(part: Part) -> str:
    require(bool(part.summary), "no docstring")
    return part.summary


def tiny_text(n: int = 3000) -> Tokens:
    """Text in which the next of 61 tokens is mostly (5 token + 3) mod 61."""
    rng = np.random.Generator(np.random.Philox(key=0))
    stream = np.zeros(n, np.uint8)
    jumps, noise = rng.random(n) < 0.2, rng.integers(0, 61, n)
    for i in range(1, n):
        stream[i] = noise[i] if jumps[i] else (int(stream[i - 1]) * 5 + 3) % 61
    return Tokens("tiny_text", stream[: n * 4 // 5], stream[n * 4 // 5 :], 61, "0" * 64)


def tiny_images(n: int = 400) -> Examples:
    """Five classes of 1 x 28 x 28 images, a fixed pattern each, in noise."""
    rng = np.random.Generator(np.random.Philox(key=100))
    patterns = rng.standard_normal((5, 1, 28, 28))
    y = rng.integers(0, 5, n).astype(np.int64)
    x = (patterns[y] + 0.5 * rng.standard_normal((n, 1, 28, 28))).astype(np.float32)
    cut = n * 4 // 5
    return Examples("tiny_images", x[:cut], y[:cut], x[cut:], y[cut:], 5, "0" * 64)


def small_spec(optimizer: Part, model: Part, width: int, **changes: Any) -> RunSpec:
    fields = {
        k: v for k, v in model.defaults.items() if k not in ("vocab", "in_shape", "n_classes")
    }
    if "context" in fields:
        fields["context"] = 8
    spec = RunSpec(
        model={"name": model.name, "revision": model.revision, **fields},
        data={"name": "tiny", "revision": 1, "sha256": "0" * 64},
        optimizer={"name": optimizer.name, "revision": optimizer.revision},
        hp=dict(optimizer.defaults),
        width=width,
        base={"width": width},
        log2_lr=-4.0,
        steps=30,
        batch=16,
        schedule="linear",
        warmup=0.0,
        clip=0.0,
        precision="float32",
        eval_examples=8,
        seed=0,
    )
    return replace(spec, **changes)


def fails_in_lanes(prepared: Prepared) -> str:
    """Why two lanes of a model of somebody's own fail where one does not; "" where they train."""
    run = prepared.spec
    if not own_parts(run):
        return ""
    one, other = run.point(run.log2_lr, 0), run.point(run.log2_lr - 1, 0)
    try:
        lanes = Lanes([one, other], prepared.data, CPU, prepared=prepared)
        lanes.gradients(0)
        lanes.update(0)
    except Exception as error:
        alone = Lanes([one], prepared.data, CPU, prepared=prepared)
        alone.gradients(0)  # else it is no matter of lanes
        alone.update(0)
        return cause(error)
    return ""


def falls(prepared: Prepared) -> str:
    """The loss falls at one learning rate of a coarse grid at least.

    Lanes try the whole grid. Runs that train one after the other end with the first that does it,
    from the middle of the grid outwards.
    """
    spec = prepared.spec
    grid = [spec.point(float(e), 0) for e in range(-13, 1, 2)]
    outwards = sorted(grid, key=lambda point: abs(point.log2_lr - grid[len(grid) // 2].log2_lr))
    together = prepared.vectorises and not fails_in_lanes(prepared)
    units = [grid] if together else [[point] for point in outwards]
    ends: list[float] = []
    first = 0.0
    for unit in units:
        lanes = Lanes(unit, prepared.data, CPU, prepared=prepared)
        for t in range(spec.steps):
            lanes.gradients(t)
            lanes.update(t)
        first = lanes.losses[0, 0].item()
        last = lanes.losses[:, -5:].mean(dim=1).nan_to_num(torch.inf, torch.inf, torch.inf)
        ends.extend(last.tolist())
        if ends[-1] < 0.9 * first:
            break
    best = min(range(len(ends)), key=ends.__getitem__)
    require(
        ends[best] < 0.9 * first,
        f"best of 2^-13..2^-1 in {spec.steps} steps: {first:.3f} -> {ends[best]:.3f}",
    )
    tried = [point for unit in units for point in unit]
    return f"{first:.3f} -> {ends[best]:.3f} at 2^{tried[best].log2_lr:g}"


def resumes(prepared: Prepared) -> str:
    """A run that is stopped half-way and restored from its snapshot ends in the same bytes."""
    runs, data = [prepared.spec], prepared.data
    straight, halted, resumed = (Lanes(runs, data, CPU, prepared=prepared) for _ in range(3))
    for t in range(6):
        straight.gradients(t)
        straight.update(t)
    for t in range(3):
        halted.gradients(t)
        halted.update(t)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot.pt"
        try:
            snapshots.writer(halted, 3, 0.0)(path)
            snapshots.restore(resumed, path)
        except snapshots.UnusableError as error:
            raise BrokenError(f"its snapshot {error}") from None
    for t in range(3, 6):
        resumed.gradients(t)
        resumed.update(t)
    for a, b in zip(straight.groups, resumed.groups, strict=True):
        require(torch.equal(a.w, b.w), f"{a.p.role} {a.p.shape}: weights differ after a resume")
    return "6 steps, stopped at 3"
