"""The speed of a run: timed steps, and the choice of lanes and processes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hptransfer.cost import calibrate as calibration
from hptransfer.cost.calibrate import LONG_STEP, SLOW_STEP_FLOPS, Alone, calibrate, choose
from hptransfer.cost.count import Cost, count
from hptransfer.cost.placement import Placement
from hptransfer.cost.speed import Speed, extrapolated, time_steps
from hptransfer.errors import InputError
from hptransfer.train.prepare import prepare
from units import CPU, data_for, lanes, spec, weights

SHORT = LONG_STEP / 10
PLACEMENTS = [Placement(4, 1), Placement(2, 2), Placement(1, 4)]


def looks(steps: dict[int, list[float | None]]) -> tuple[Alone, list[int]]:
    """Answers by number of lanes, one after another, and a log of the questions.

    A step in hundredths of a long one; None stands for too little memory.
    """
    asked: list[int] = []

    def alone(lanes: int) -> Speed | None:
        asked.append(lanes)
        step = steps[lanes].pop(0)
        return None if step is None else Speed(lanes, step * LONG_STEP / 100, 1e-4)

    return alone, asked


def every(lanes: int) -> bool:
    return True


def test_a_step_is_timed_per_lane() -> None:
    run = spec("adamw", "mlp")
    real = time_steps(prepare(run, data_for("mlp")), CPU, 2, Placement())
    assert real.lanes == 2
    assert real.step > 0
    assert real.run(run) == pytest.approx(6 * real.step + 2 * real.evaluation)


@pytest.mark.parametrize(
    ("steps", "fits", "lanes", "asked"),
    [
        # 16 lanes save no tenth
        ({1: [10, 10], 4: [4, 4], 8: [2], 16: [3]}, every, 8, [1, 4, 1, 8, 4, 16]),
        ({1: [10]}, lambda n: n < 4, 1, [1]),
        ({1: [10, 10], 4: [4]}, lambda n: n < 8, 4, [1, 4, 1]),
        ({1: [10, 10], 4: [4, 4], 8: [None]}, every, 4, [1, 4, 1, 8]),
        # one lane was slow, but not at its second timing
        ({1: [10, 5], 4: [6]}, every, 1, [1, 4, 1]),
        ({1: [10, 10], 4: [8.9], 8: [8.5]}, every, 4, [1, 4, 1, 8]),
        ({1: [10], 4: [9.1]}, every, 1, [1, 4]),
        ({1: [None]}, every, None, [1]),
    ],
)
def test_lanes_are_doubled_while_each_saves_a_tenth(
    steps: dict[int, list[float | None]],
    fits: Callable[[int], bool],
    lanes: int | None,
    asked: list[int],
) -> None:
    alone, seen = looks(steps)
    found = choose(PLACEMENTS, alone, None, fits=fits)
    assert (found and found.lanes) == lanes
    assert found is None or found.processes == 4
    assert seen == asked


def test_a_short_step_is_timed_in_all_processes_and_not_with_more_threads() -> None:
    alone, _ = looks({1: [10, 10], 4: [5], 8: [10]})

    def together(placement: Placement, lanes: int) -> Speed:
        assert placement == PLACEMENTS[0]
        return Speed(lanes, 1.0, 2.0, 4)

    found = choose(PLACEMENTS, alone, together, fits=every)
    assert found == Speed(4, 1.0, 2.0, 4)
    assert found is not None and found.shared == 0.25


@pytest.mark.parametrize(
    ("steps", "processes", "asked"),
    [
        ({4: [4.0], 2: [1.9]}, 4, "42"),  # it saves no tenth, so nobody times the rest
        ({4: [4.0, 4.0], 2: [1.7], 1: [0.8]}, 2, "4241"),
        ({4: [4.0, 4.0], 2: [1.7, 1.8], 1: [0.7]}, 1, "42412"),
        ({4: [4.0], 2: []}, 4, "42"),  # the process died
        ({4: [4.0, 3.6], 2: [1.7]}, 4, "424"),  # the first was slow, but not at its second timing
    ],
)
def test_fewer_processes_with_more_threads_are_chosen_where_they_save_a_tenth(
    steps: dict[int, list[float]], processes: int, asked: str
) -> None:
    alone, lanes = looks({1: [200]})
    seen = []

    def together(placement: Placement, lanes: int) -> Speed:
        assert lanes == 1
        seen.append(placement.processes)
        if not steps[placement.processes]:
            raise InputError("timed in 2 workers: its process died")
        return Speed(lanes, steps[placement.processes].pop(0), 1e-4, placement.processes)

    found = choose(PLACEMENTS, alone, together, fits=every)
    assert found is not None
    assert found.processes == processes
    assert "".join(map(str, seen)) == asked
    assert lanes == [1], "a long step takes one lane"


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_too_heavy_to_time_is_extrapolated(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "fast_bfloat16", lambda device: fast)
    cost = Cost(1, SLOW_STEP_FLOPS, 1e10, 1, 1, 1)
    monkeypatch.setattr(calibration, "matmul_rate", lambda device: 1e10)
    monkeypatch.setattr(calibration, "time_steps", None)
    found = calibrate(prepare(spec("scion", "mlp"), data_for("mlp")), cost, CPU, PLACEMENTS)
    assert found == extrapolated(cost, 1e10, 4, fast_bfloat16=fast)
    assert found.lanes == 1
    slower = extrapolated(cost, 1e9, 4, fast_bfloat16=fast)
    assert slower.step < extrapolated(cost, 1e9, 4, fast_bfloat16=False).step or not fast
    assert slower.step == pytest.approx(10 * found.step)
    assert slower.evaluation == pytest.approx(10 * found.evaluation)
    assert found.evaluation < found.step / 3


@pytest.mark.parametrize("part", ["micro_batch", "memory"])
def test_runs_share_a_process_only_with_their_whole_batch_and_where_memory_allows(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(spec("adamw", "mlp", batch=8), data_for("mlp"))
    cost = count(run)

    def fake(run: Any, device: Any, lanes: int, placement: Placement) -> Speed:
        return Speed(lanes, SHORT / lanes, 1e-4)

    monkeypatch.setattr(calibration, "time_steps", fake)
    assert calibrate(run, cost, CPU, [Placement(1, 1, 8)]).lanes == 64
    if part == "micro_batch":
        assert calibrate(run, cost, CPU, [Placement(1, 1, 4)]).lanes == 1
    else:
        monkeypatch.setattr("hptransfer.cost.machine.memory_of", lambda _: 20 * cost.memory)
        assert calibrate(run, cost, CPU, [Placement(1, 1, 8)]).lanes == 8
        assert calibrate(run, cost, CPU, [Placement(2, 1, 8)]).lanes == 4


def test_one_lane_that_does_not_fit_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Speed:
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setattr(calibration, "time_steps", full)
    run = prepare(spec("adamw", "mlp"), data_for("mlp"))
    with pytest.raises(InputError, match="width 16: one run does not fit in the memory of cpu"):
        calibrate(run, count(run), CPU)


def test_where_only_time_counts_no_weight_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The init of a wide model, semi-orthogonal matrices, takes longer than the timed steps."""
    run = spec("scion", "gpt")
    shapes = {name: w.shape for name, w in weights(lanes([run])).items()}

    def init(*_: Any) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("hptransfer.optimizers.scion.LMO.init_weight", init)
    with pytest.raises(AssertionError, match="drawn"):
        lanes([run])
    rough = weights(lanes([run], drawn=False))
    assert {name: w.shape for name, w in rough.items()} == shapes
    for n in (1, 3):
        assert time_steps(prepare(run, data_for("gpt")), CPU, n, Placement()).step > 0
