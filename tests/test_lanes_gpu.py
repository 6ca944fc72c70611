"""Lanes on a GPU: equal to single runs there and on the CPU."""

import pytest
import torch

from hptransfer.train.lanes import Lanes
from units import (
    MODELS,
    OPTIMIZERS,
    data_for,
    octaves_apart,
    spec,
    stepped,
    tokens,
    weights,
)


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lanes_equal_single_runs_on_a_gpu(optimizer: str, model: str) -> None:
    device = torch.device("cuda")
    data = data_for(model)
    unit = octaves_apart(spec(optimizer, model, batch=16, clip=0.5), (0, 0, 7))
    together = Lanes(unit, data, device, dtype=torch.float64)
    singles = [Lanes([run], data, device, dtype=torch.float64) for run in unit]
    on_cpu = stepped(unit, dtype=torch.float64)
    tables = dict(on_cpu.model.named_buffers())  # devices round float32 sines differently
    for running in (together, *singles):
        for name, table in running.model.named_buffers():
            table.copy_(tables[name])
        for t in range(unit[0].steps):
            running.gradients(t)
            running.update(t)
    for lane, alone in enumerate(singles):
        for name, w in weights(alone).items():
            torch.testing.assert_close(weights(together, lane)[name], w, rtol=0, atol=1e-9)
            torch.testing.assert_close(weights(on_cpu, lane)[name], w.cpu(), rtol=0, atol=1e-8)


@pytest.mark.gpu
def test_a_diverging_lane_leaves_the_others_untouched_on_a_gpu() -> None:
    device = torch.device("cuda")
    calm = octaves_apart(spec("scion", "gpt"))
    ends = []
    for unit in (calm, [calm[0], calm[1].point(120.0, 0), calm[2]]):
        running = Lanes(unit, tokens(), device)
        for t in range(6):
            running.gradients(t)
            running.update(t)
        ends.append(running)
    for lane in (0, 2):
        assert torch.equal(ends[0].losses[lane], ends[1].losses[lane])
