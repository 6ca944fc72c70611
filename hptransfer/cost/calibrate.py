"""Which number of lanes and of processes is the fastest, by timing."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch

from hptransfer.cost import machine
from hptransfer.cost.count import Cost
from hptransfer.cost.placement import Placement
from hptransfer.cost.speed import Speed, extrapolated, matmul_rate, time_steps
from hptransfer.errors import InputError, Note, cause
from hptransfer.geometry.processor import fast_bfloat16
from hptransfer.train.memory import release
from hptransfer.train.prepare import Prepared, own_parts

SLOW_STEP_FLOPS = 5e11  # a heavier step on CPU is extrapolated, for timing it takes too long
# Seconds of a step from which on a CPU gains nothing by lanes, and may gain by more threads.
LONG_STEP = 0.05
MOST_LANES = 64
WORTH = 0.9  # lanes or threads must save a tenth, or noise would choose their number

Alone = Callable[[int], Speed | None]
"""Speed of so many lanes where nothing else trains; None where they do not fit."""
Together = Callable[[Placement, int], Speed]
"""Speed of so many lanes in every process of a placement at once. InputError where it fails."""


def calibrate(
    prepared: Prepared,
    cost: Cost,
    device: torch.device,
    placements: Sequence[Placement] = (Placement(),),
    together: Together | None = None,
    lanes: int | None = None,
) -> Speed:
    """The fastest number of lanes, and of processes among the placements, by `choose`.

    `lanes`: the user's choice, which is then the only number that is timed. A step too heavy to
    time on CPU is extrapolated at the first placement. A model or an optimizer of somebody's own
    that fails in several lanes trains in one, with a Note. Raises InputError where one run does not
    fit, and where the chosen lanes fail.
    """
    first = placements[0]
    if device.type == "cpu" and cost.model_flops + cost.optimizer_flops > SLOW_STEP_FLOPS:
        fast = fast_bfloat16(device)
        return extrapolated(cost, matmul_rate(device), first.processes, fast_bfloat16=fast)
    spec = prepared.spec
    whole = first.micro_batch is None or first.micro_batch >= spec.batch
    several = whole and prepared.vectorises
    budget = 0.6 * machine.memory_of(device) / first.processes

    def alone(lanes: int) -> Speed | None:
        return _timed_alone(prepared, device, lanes, first)

    def tried(lanes: int) -> Speed | None:
        return alone(lanes) if lanes == 1 else _unless_it_fails(prepared, lanes, alone)

    if lanes is not None and lanes > 1 and prepared.vectorises and not first.recompute:
        speed = _of_chosen(prepared, lanes, alone, together, first)
    else:
        speed = choose(
            placements,
            tried,
            together,
            fits=lambda n: several and lanes is None and n * cost.memory < budget,
            long_step=LONG_STEP if device.type == "cpu" else float("inf"),
        )
    if speed is None:
        raise InputError(
            f"width {spec.width}: one run does not fit in the memory of {device}",
            "a smaller width fits, or micro_batch = 1, recompute = true in the suite",
        )
    return speed


def _of_chosen(
    prepared: Prepared, lanes: int, alone: Alone, together: Together | None, first: Placement
) -> Speed | None:
    """The speed of so many lanes at the first placement; half as many where they do not fit."""
    while True:
        try:
            speed = alone(lanes)
        except Exception as error:
            if isinstance(error, InputError) or not own_parts(prepared.spec):
                raise
            raise InputError(
                f"{_own(prepared)}: {lanes} lanes fail ({cause(error)})",
                "1 lane trains one run at a time",
                cures=("lanes",),
            ) from error
        if speed is not None:
            if together is None:
                return replace(speed, processes=first.processes)
            return together(first, lanes)
        if lanes == 1:
            return None
        lanes //= 2


def _unless_it_fails(prepared: Prepared, lanes: int, alone: Alone) -> Speed | None:
    """The speed of so many lanes; None, with a Note, where a part of somebody's own fails."""
    try:
        return alone(lanes)
    except Exception as error:
        if isinstance(error, InputError) or not own_parts(prepared.spec):
            raise
        text = f"{_own(prepared)}: trains one run at a time, for several lanes fail"
        warnings.warn(Note(f"{text} ({cause(error)})"), stacklevel=2)
        return None


def _own(prepared: Prepared) -> str:
    return " or ".join(f"{kind} {name!r}" for kind, name in own_parts(prepared.spec).items())


def choose(
    placements: Sequence[Placement],
    alone: Alone,
    together: Together | None,
    *,
    fits: Callable[[int], bool],
    long_step: float = LONG_STEP,
) -> Speed | None:
    """The fastest of what is timed; None where one lane does not fit.

    A short step: lanes that `fits` allows, doubled while that pays, at the first placement. A step
    above `long_step` seconds: one lane, and the next placement while that pays. `together` gives
    the final numbers, for processes that train side by side slow each other down; None where other
    runs train or the device has one process.
    """
    first = placements[0]
    one = alone(1)
    if one is None:
        return None
    long = one.step > long_step
    best = one if long else _more_lanes(one, alone, fits)
    if together is None:
        return replace(best, processes=first.processes)
    best = together(first, best.lanes)
    return _fewer_processes(best, placements, together) if long else best


def _more_lanes(best: Speed, alone: Alone, fits: Callable[[int], bool]) -> Speed:
    """The last number of lanes that pays; `best` is the speed of one lane."""
    lanes = 4
    while lanes <= MOST_LANES and fits(lanes):
        more = alone(lanes)
        if more is None or not _pays(more, best, "step"):
            break
        best = _faster(best, alone(best.lanes) or best, "step")  # was it a slow moment?
        if not _pays(more, best, "step"):
            break
        best = more
        lanes *= 2
    return best


def _fewer_processes(best: Speed, placements: Sequence[Placement], together: Together) -> Speed:
    """The last placement that pays and can be timed; `best` is the speed at the first."""
    for now, later in pairwise(placements):
        try:
            fewer = together(later, 1)
        except InputError:  # a run would end so too
            break
        if not _pays(fewer, best, "shared"):
            break
        best = _faster(best, together(now, 1), "shared")  # was it a slow moment?
        if not _pays(fewer, best, "shared"):
            break
        best = fewer
    return best


Seconds = Literal["step", "shared"]


def _pays(candidate: Speed, best: Speed, seconds: Seconds) -> bool:
    return getattr(candidate, seconds) <= WORTH * getattr(best, seconds)


def _faster(one: Speed, other: Speed, seconds: Seconds) -> Speed:
    return min(one, other, key=lambda speed: getattr(speed, seconds))


def _timed_alone(
    prepared: Prepared, device: torch.device, lanes: int, placement: Placement
) -> Speed | None:
    """`time_steps`, None where the device's memory is too small. It gives the memory back."""
    try:
        return time_steps(prepared, device, lanes, placement)
    except torch.OutOfMemoryError:
        return None
    finally:
        if device.type == "cuda":
            release()
