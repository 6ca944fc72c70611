"""The placement of runs: tables of costs and machines; and the cores of this machine."""

import os

import pytest

from hptransfer.cost import machine
from hptransfer.cost.count import Cost
from hptransfer.cost.placement import Placement, counts, place, placements

COST = Cost(0, 0.0, 0.0, fixed=1000, activations=800, recomputed=80)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (1800, (8, False, 1800)),
        (1799, (4, False, 1400)),
        (1100, (1, False, 1100)),
        (1099, (8, True, 1080)),
        (1070, (4, True, 1040)),
        (1010, (1, True, 1010)),
        (1009, None),
    ],
)
def test_a_run_is_accumulated_first_and_recomputed_only_where_that_is_too_much(
    room: int, expected: tuple[int, bool, int] | None
) -> None:
    assert place(COST, 8, room) == (Placement(1, 1, *expected) if expected else None)


def test_what_the_suite_fixes_is_kept() -> None:
    assert place(COST, 8, 10_000, micro_batch=2) == Placement(1, 1, 2, False, 1200)
    assert place(COST, 8, 10_000, recompute=True) == Placement(1, 1, 8, True, 1080)
    assert place(COST, 8, 1050, micro_batch=8, recompute=False) is None
    assert place(COST, 8, 10_000, micro_batch=64) == Placement(1, 1, 8, False, 1800)


@pytest.mark.parametrize(
    ("processes", "halved"), [(1, [1]), (2, [2, 1]), (6, [6, 3, 1]), (8, [8, 4, 2, 1])]
)
def test_processes_are_halved_down_to_one(processes: int, halved: list[int]) -> None:
    assert counts(processes) == halved


@pytest.mark.parametrize(
    ("processes", "memory", "expected"),
    [
        ([6, 3, 1], 1e9, [(6, 1, 8, False), (3, 2, 8, False), (1, 6, 8, False)]),
        ([2], 1e9, [(2, 3, 8, False)]),
        ([8], 1e9, [(8, 1, 8, False)]),  # more processes than cores
        ([6, 3, 1], 3 * 1800 / 0.9 + 1, [(3, 2, 8, False), (1, 6, 8, False)]),
        (
            [2, 1],
            2 * 1010 / 0.9 + 1,
            [(1, 6, 8, False)],
        ),  # recomputes with two processes, not with one
        ([2, 1], 1010 / 0.9 + 1, [(1, 6, 1, True)]),
        ([2, 1], 1000, []),
    ],
)
def test_a_placement_gives_every_process_its_part_of_cores_and_memory(
    processes: list[int], memory: float, expected: list[tuple[int, int, int, bool]]
) -> None:
    found = placements(COST, 8, processes, cores=6, memory=memory)
    assert [(p.processes, p.threads, p.micro_batch, p.recompute) for p in found] == expected


def test_recomputing_placements_stay_where_all_must_recompute() -> None:
    found = placements(COST, 8, [2, 1], cores=2, memory=1e9, recompute=True)
    assert [placement.processes for placement in found] == [2, 1]


@pytest.mark.parametrize(
    ("there", "cores"),
    [
        ({"process_cpu_count": 3, "sched_getaffinity": {0, 1}, "cpu_count": 8}, 3),
        ({"process_cpu_count": None, "cpu_count": 8}, 1),
        ({"sched_getaffinity": {0, 1}, "cpu_count": 8}, 2),
        ({"cpu_count": 8}, 8),  # macOS before Python 3.13
        ({"cpu_count": None}, 1),
    ],
)
def test_usable_cores_are_those_that_the_system_tells(
    there: dict[str, object], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("process_cpu_count", "sched_getaffinity", "cpu_count"):
        if name in there:
            monkeypatch.setattr(os, name, lambda *_, name=name: there[name], raising=False)
        else:
            monkeypatch.delattr(os, name, raising=False)
    assert machine.usable_cores() == cores
