"""Requests to a GPU, on torch's meta device, whose tensors have no values.

As on a GPU, an operation on tensors of two devices raises. A step that reads a value, for which it
would have to wait on a GPU, fails here.
"""

import contextlib
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

import hptransfer.optim
from hptransfer.models.gpt import gpt
from hptransfer.optimizers import adamw
from hptransfer.optimizers.rules import Step
from hptransfer.spec import RunSpec
from hptransfer.train.groups import GROUP_ELEMENTS
from hptransfer.train.lanes import Lanes
from units import KEEPS_GRADIENT, MODELS, OPTIMIZERS, data_for, spec

META = torch.device("meta")


@pytest.fixture(autouse=True)
def autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no autocast."""

    @contextlib.contextmanager
    def same(*_: object, **__: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch, "autocast", same)


def trained(unit: list[RunSpec]) -> Lanes:
    """Two steps, the point to evaluate, and its evaluation."""
    assert META.type not in GROUP_ELEMENTS  # groups parameters as on a GPU
    running = Lanes(unit, data_for(unit[0].model["name"]), META)
    for t in range(2):
        running.gradients(t)
        running.update(t)
    running.read_out()
    running.evaluate()
    return running


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_asks_for_no_value_and_mixes_no_devices(optimizer: str, model: str, n: int) -> None:
    run = spec(optimizer, model, clip=0.0 if optimizer in KEEPS_GRADIENT else 0.5)
    running = trained([run.point(run.log2_lr - i, i % 2) for i in range(n)])
    for group in running.groups:
        assert {group.w.device, *(s.device for s in group.state.values())} == {META}


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("polar", ["polar_express", "jordan"])
@pytest.mark.parametrize("optimizer", ["muon", "scion", "transported_scion"])
def test_nor_do_the_steps_of_wide_matrices(optimizer: str, polar: str, n: int) -> None:
    """From 128 rows on products are in bfloat16; long matrices take the Gram form."""
    run = spec(optimizer, "gpt", width=256, base={"width": 16}, hp={"polar": polar})
    trained([run.point(run.log2_lr - i, 0) for i in range(n)])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nor_does_a_step_in_a_loop_of_ones_own(name: str) -> None:
    with META:
        model, base = (gpt(width, n_layer=1, head_size=8, context=8) for width in (16, 8))
    hptransfer.optim.init_(model, name, base=base)
    optimizer = hptransfer.optim.optimizer(model, name, lr=2**-6, base=base)
    schedule = hptransfer.optim.scheduler(optimizer, steps=3)
    x = torch.zeros(2, 8, dtype=torch.long, device=META)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, -2), x.flatten()).backward()
        optimizer.step()
        schedule.step()
    optimizer.eval()
    assert {p.device for p in model.parameters()} == {META}


@pytest.mark.parametrize("name", ["adamw", "adamw_mup", "muon"])
def test_nor_does_the_fused_kernel_get_a_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no such kernel, so what it is given is looked at."""
    given: list[dict[str, object]] = []
    monkeypatch.setattr(adamw, "adamw_step", lambda *_, **named: given.append(named))
    running = Lanes([spec(name, "gpt")], data_for("gpt"), META)
    running.gradients(0)
    for group in running.groups:
        rule = running.optimizer(group.p, **running.hp, **running.static)
        if getattr(rule, "fused", False):
            assert isinstance(rule, adamw.Adam)
            rule.update_(group.g, group.state, group.w, Step(0, *3 * [running.lr]))
    assert given
    for named in given:
        assert isinstance(named["lr"], torch.Tensor)
        assert all(isinstance(named[key], float) for key in ("beta1", "beta2", "eps"))


def test_a_step_that_does_ask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(self: Lanes, t: int) -> None:
        self.losses[:, t].max().item()

    monkeypatch.setattr(Lanes, "update", waits)
    with pytest.raises(RuntimeError, match="meta"):
        trained([spec("adamw")])
