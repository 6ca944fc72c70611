"""Steps that a GPU replays: equal to steps that Python makes."""

import pytest
import torch

from hptransfer.spec import RunSpec
from hptransfer.train.lanes import Lanes, Moment
from hptransfer.train.replay import EAGER_STEPS, Steps, replayable
from hptransfer.train.schedule import lr_factor
from units import MODELS, OPTIMIZERS, data_for, octaves_apart, spec, tokens, weights

CPU = torch.device("cpu")
STEPS = EAGER_STEPS + 4


def unit_of(optimizer: str, model: str, lanes: int) -> list[RunSpec]:
    return octaves_apart(spec(optimizer, model, batch=16, steps=STEPS), tuple(range(lanes)))


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_moment_of_tensors_moves_as_one_of_numbers(optimizer: str, lanes: int) -> None:
    unit = unit_of(optimizer, "gpt", lanes)
    ends = []
    for tensors in (False, True):
        running = Lanes(unit, tokens(), CPU, dtype=torch.float64)
        for t in range(STEPS):
            running.gradients(t)
            if tensors and t:
                factors = (lr_factor(unit[0], step) for step in (t, t + 1))
                known = [dict(group.state) for group in running.groups]
                moment = Moment(*(torch.tensor(x, dtype=torch.float64) for x in (t, *factors)))
                running.move(moment, state_in_place=True)
                for group, state in zip(running.groups, known, strict=True):
                    assert all(group.state[key] is value for key, value in state.items())
            else:
                running.update(t)
        ends.append(running)
    for lane in range(lanes):
        for name, w in weights(ends[0], lane).items():
            torch.testing.assert_close(weights(ends[1], lane)[name], w, rtol=0, atol=1e-12)


def test_a_cpu_replays_nothing() -> None:
    running = Lanes(unit_of("adamw", "gpt", 1), tokens(), CPU)
    assert not replayable(running)
    assert not Steps(running).graph


@pytest.mark.gpu
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_replayed_steps_equal_steps_that_python_makes(
    optimizer: str, model: str, lanes: int
) -> None:
    unit = unit_of(optimizer, model, lanes)
    ends = []
    for graph in (False, True):
        device = torch.device("cuda")
        running = Lanes(unit, data_for(model), device, dtype=torch.float64)
        steps = Steps(running)
        steps.graph = graph and steps.graph
        for t in range(STEPS):
            steps.step(t)
        assert steps.graph == (graph and not any(group.carried for group in running.groups))
        running.read_out()
        ends.append((running, running.evaluate()))
    (eager, loss), (replayed, other) = ends
    torch.testing.assert_close(other, loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(replayed.losses, eager.losses, rtol=1e-9, atol=0)
    for lane in range(lanes):
        for name, w in weights(eager, lane).items():
            torch.testing.assert_close(weights(replayed, lane)[name], w, rtol=0, atol=1e-9)


@pytest.mark.gpu
def test_adamw_in_one_kernel_equals_adamw_in_many() -> None:
    device = torch.device("cuda")
    unit = unit_of("adamw", "gpt", 1)
    fused = Lanes(unit, tokens(), device)
    plain = Lanes(unit, tokens(), CPU)
    for running in (fused, plain):
        for t in range(STEPS):
            running.gradients(t)
            running.update(t)
    for name, w in weights(plain).items():
        torch.testing.assert_close(weights(fused)[name].cpu(), w, rtol=0, atol=2e-5)
