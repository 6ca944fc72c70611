"""The learning rate of a step, as a share of its peak."""

import math

from hptransfer.spec import RunSpec


def lr_factor(spec: RunSpec, t: int) -> float:
    """lr_t / lr of a run."""
    return schedule_factor(spec.schedule, spec.warmup, spec.steps, t)


def schedule_factor(schedule: str, warmup: float, steps: int, t: int) -> float:
    """lr_t / lr: linear warm-up, then the schedule down to 0 at t = steps (or constant)."""
    rising = round(warmup * steps)
    if t < rising:
        return (t + 1) / rising
    done = min(1.0, (t - rising) / (steps - rising)) if steps > rising else 1.0
    match schedule:
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case _:
            return 1.0
