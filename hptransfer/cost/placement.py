"""Where a run is placed: processes at once, threads, examples per backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from hptransfer.cost.count import Cost

USABLE = 0.9  # part of the memory that runs may fill


@dataclass(frozen=True)
class Placement:
    """Where a unit trains: in one of `processes` that train at once, on `threads` cores.

    `micro_batch`: examples per backward pass, None for the whole batch. `recompute`: the backward
    pass computes the activations of the blocks again. `memory`: bytes of one lane.
    """

    processes: int = 1
    threads: int = 1
    micro_batch: int | None = None
    recompute: bool = False
    memory: int = 0


def place(
    cost: Cost,
    batch: int,
    room: float,
    *,
    processes: int = 1,
    threads: int = 1,
    micro_batch: int | None = None,
    recompute: bool | None = None,
) -> Placement | None:
    """The placement with the fewest backward passes whose memory is at most `room` bytes.

    It recomputes only where nothing else fits. `micro_batch`, `recompute`: as the suite fixes them,
    None where it does not. None where nothing fits.
    """
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    for again in (False, True) if recompute is None else (recompute,):
        kept = cost.recomputed if again else cost.activations
        for size in sizes if micro_batch is None else [min(micro_batch, batch)]:
            memory = cost.fixed + kept * size // batch
            if memory <= room:
                return Placement(processes, threads, size, again, memory)
    return None


def room(memory: float, processes: int) -> float:
    """Bytes for each process."""
    return USABLE * memory / processes


def counts(processes: int) -> list[int]:
    """So many processes, half as many, and so on down to one."""
    halved = [processes]
    while halved[-1] > 1:
        halved.append(halved[-1] // 2)
    return halved


def placements(
    cost: Cost,
    batch: int,
    processes: Sequence[int],
    *,
    cores: int,
    memory: float,
    micro_batch: int | None = None,
    recompute: bool | None = None,
) -> list[Placement]:
    """One placement per number of `processes`, in their order, on a machine with `memory` bytes.

    Numbers with which a run does not fit are dropped, and so are those with which it must recompute
    where another needs not. Empty where nothing fits.
    """
    tried = [
        place(
            cost,
            batch,
            room(memory, count),
            processes=count,
            threads=max(1, cores // count),
            micro_batch=micro_batch,
            recompute=recompute,
        )
        for count in processes
    ]
    fitting = [placement for placement in tried if placement is not None]
    return [placement for placement in fitting if not placement.recompute] or fitting
