"""The gradient of a run is clipped by its norm over all parameters, or not at all."""

from dataclasses import replace

import pytest
import torch

from hptransfer.datasets import Unread
from hptransfer.errors import InputError
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve
from hptransfer.train.groups import Group
from units import ladder, lanes, spec


@pytest.mark.parametrize("n", [1, 3])
def test_each_lane_is_clipped_by_its_own_norm_as_torch_clips(n: int) -> None:
    unit = ladder(spec("adamw", "gpt", clip=0.5), n)
    running = lanes(unit, dtype=torch.float64)
    running.gradients(0)
    for group in running.groups:
        for g in group.g if n > 1 else ():
            g.mul_(torch.tensor([1e-3, 1.0, 50.0]).view(n, *(1,) * (g.ndim - 1)))
    before = [
        {
            k: (g.g[i] if n == 1 else g.g[i][lane]).clone()
            for g in running.groups
            for i, k in enumerate(g.names)
        }
        for lane in range(n)
    ]
    running._clip(0.5)
    for lane in range(n):
        fakes = {k: torch.nn.Parameter(torch.zeros_like(g)) for k, g in before[lane].items()}
        for k, fake in fakes.items():
            fake.grad = before[lane][k]
        torch.nn.utils.clip_grad_norm_(fakes.values(), 0.5)
        for group in running.groups:
            for i, k in enumerate(group.names):
                ours = group.g[i] if n == 1 else group.g[i][lane]
                # torch divides by norm + 1e-6
                torch.testing.assert_close(ours, fakes[k].grad, rtol=3e-6, atol=0)


def test_a_parameter_without_dimensions_is_clipped_lane_by_lane() -> None:
    running = lanes(ladder(spec("adamw", "mlp"), 2))
    scalar = Group(running.groups[0].p, ["scale"], torch.zeros(1, 2), torch.zeros(1, 2), {})
    scalar.g = torch.tensor([[4.0, 0.5]])
    running.groups = [scalar]
    running._clip(1.0)
    assert scalar.g.tolist() == [[1.0, 0.5]]


def test_clipping_a_zero_gradient_leaves_it_zero() -> None:
    running = lanes([spec("adamw", "mlp")])
    running.gradients(0)
    gradients = [g.zero_() for group in running.groups for g in group.g]
    running._clip(1.0)
    assert gradients and not any(g.any() for g in gradients)


@pytest.mark.parametrize("n", [1, 2])
def test_clipping_is_refused_before_a_step_where_the_gradient_holds_the_momentum(n: int) -> None:
    unit = [replace(run, clip=1.0) for run in ladder(spec("scion_light", "mlp"), n)]
    with pytest.raises(InputError, match="'scion_light' keeps its momentum in the gradient"):
        lanes(unit)


def test_a_suite_may_not_clip_gradients_that_hold_the_momentum() -> None:
    light = {"scion_light": {"lr": "2^-4..2^-3"}}
    changes = {"clip": 1.0, "optimizers": light, "negative_control": "", "expect": {}}
    with pytest.raises(InputError) as caught:
        resolve(load_suite("mlp_width", changes), Unread("0" * 64))
    said = "optimizers.scion_light.clip: got 1, allowed: 0 to 0 for scion_light"
    assert str(caught.value).endswith(said)
    assert caught.value.hint == "optimizers.scion_light.clip = 0 holds for this optimizer alone"
    own = {"scion_light": {"lr": "2^-4..2^-3", "clip": 0.0}}
    resolve(load_suite("mlp_width", {**changes, "optimizers": own}), Unread("0" * 64))
