"""Which units start now, and on how many threads: a pure function of placements and cores."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from hptransfer.cost.placement import Placement


def start(
    waiting: Sequence[Placement], running: Sequence[Placement], cores: int
) -> list[Placement]:
    """Placements of the units that start now: the first of those `waiting`, in order.

    A unit takes 1 / processes of the device, and units start while the parts add up to one at most.
    A unit starts anyway where nothing runs. None overtakes another. The threads are those of the
    placement plus an equal part of the cores that would be idle.
    """
    taken = sum((_part(placement) for placement in running), Fraction(0))
    starting: list[Placement] = []
    for placement in waiting:
        taken += _part(placement)
        if taken > 1 and (running or starting):
            break
        starting.append(placement)
    idle = max(0, cores - sum(placement.threads for placement in (*running, *starting)))
    started: list[Placement] = []
    for i, placement in enumerate(starting):
        extra = idle // (len(starting) - i)
        idle -= extra
        started.append(replace(placement, threads=placement.threads + extra))
    return started


def _part(placement: Placement) -> Fraction:
    """Part of the device that one process of a placement takes."""
    return Fraction(1, placement.processes)
