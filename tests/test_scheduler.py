"""The units that start now: tables of waiting placements, running ones, and cores."""

import pytest

from hptransfer.cost.placement import Placement
from hptransfer.run import scheduler


def placed(*pairs: tuple[int, int]) -> list[Placement]:
    return [Placement(processes, threads) for processes, threads in pairs]


def started(
    waiting: list[tuple[int, int]], running: list[tuple[int, int]], cores: int
) -> list[int]:
    """The threads of the units that start."""
    found = scheduler.start(placed(*waiting), placed(*running), cores)
    expected = [processes for processes, _ in waiting[: len(found)]]
    assert [placement.processes for placement in found] == expected, "the first, in order"
    return [placement.threads for placement in found]


QUARTER, HALF, WHOLE = (4, 1), (2, 2), (1, 4)  # processes, threads: parts of four cores


@pytest.mark.parametrize(
    ("waiting", "running", "threads"),
    [
        ([], [], []),
        ([QUARTER] * 5, [], [1, 1, 1, 1]),
        ([HALF] * 3, [], [2, 2]),
        ([WHOLE] * 2, [], [4]),
        ([QUARTER, QUARTER, HALF, HALF], [], [1, 1, 2]),
        ([QUARTER] * 2, [HALF], [1, 1]),
        ([HALF], [QUARTER, HALF], []),
        ([WHOLE], [QUARTER], []),
    ],
)
def test_units_start_while_their_parts_are_at_most_the_device(
    waiting: list[tuple[int, int]], running: list[tuple[int, int]], threads: list[int]
) -> None:
    assert started(waiting, running, 4) == threads


def test_no_unit_overtakes_one_that_waits_for_its_part() -> None:
    assert started([HALF, QUARTER], [QUARTER, HALF], 4) == []


NARROW, WIDE = (8, 1), (2, 4)  # of eight cores


@pytest.mark.parametrize(
    ("waiting", "running", "threads"),
    [
        ([WIDE, NARROW, NARROW, NARROW], [], [4, 1, 1, 2]),
        ([NARROW, NARROW, NARROW, WIDE], [], [1, 1, 1, 5]),
        ([NARROW] * 9, [], [1] * 8),
        ([NARROW] * 2, [], [4, 4]),
        ([NARROW, WIDE, WIDE], [], [2, 6]),
        ([WIDE], [], [8]),
        ([NARROW], [(8, 4)], [4]),
        ([NARROW], [(8, 8)], [1]),
        ([NARROW], [(8, 12)], [1]),
    ],
)
def test_idle_cores_are_divided_among_the_units_that_start(
    waiting: list[tuple[int, int]], running: list[tuple[int, int]], threads: list[int]
) -> None:
    assert started(waiting, running, 8) == threads


def test_a_unit_starts_alone_with_more_workers_than_cores() -> None:
    assert started([(3, 1)] * 4, [], 2) == [1, 1, 1]


def test_starting_one_by_one_gives_what_starting_at_once_gives() -> None:
    waiting = placed(WIDE, NARROW, NARROW, NARROW, WIDE)
    at_once = scheduler.start(waiting, [], 8)
    running: list[Placement] = []
    while one := scheduler.start(waiting[len(running) :], running, 8):
        running.append(one[0])
    assert running == at_once


def test_a_unit_keeps_how_it_fits() -> None:
    [found] = scheduler.start([Placement(2, 1, 4, True, 9)], [], 4)
    assert found == Placement(2, 4, 4, True, 9)
