"""The coordinate check on small models: its measure, which changes nothing in a run."""

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from hptransfer.analysis import slopes
from hptransfer.datasets import spread
from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.train import coords
from hptransfer.train.coords import probe
from hptransfer.train.lanes import Lanes
from units import CPU, OPTIMIZERS, data_for, digits, lanes, spec, stepped, weights

WIDTHS = (16, 32, 64, 128, 256)


# An optimizer with another point to evaluate than its weights, as schedule-free ones have.
SWAP = """
import torch

class Swap(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, shift: float = 0.3):
        super().__init__(params, {"lr": lr, "shift": shift})
        self.training = True

    @torch.no_grad()
    def move(self, sign, key, of):
        for group in self.param_groups:
            for p in group["params"]:
                p += sign * group[key] * of(p)

    def step(self):
        assert self.training
        self.move(-1, "lr", lambda p: p.grad)

    def eval(self):
        if self.training:
            self.move(-1, "shift", torch.ones_like)
        self.training = False

    def train(self):
        if not self.training:
            self.move(1, "shift", torch.ones_like)
        self.training = True
"""


def measured(
    label: str,
    run: RunSpec,
    *,
    widths: tuple[int, ...] = WIDTHS,
    seeds: tuple[int, ...] = (0,),
    **options: Any,
) -> list[coords.Measured]:
    data = data_for(run.model["name"])
    return list(coords.measure(label, run, data, widths, seeds, CPU, **options))


def frame(*runs: coords.Measured) -> pd.DataFrame:
    return pd.DataFrame([row for run in runs for row in run.rows])


def test_plain_adamw_fails_the_gate_and_scion_passes_it() -> None:
    runs = [
        found
        for label, log2_lr in (("adamw", -8.0), ("scion", -6.0))
        for found in measured(
            label, spec(label, "mlp", steps=5, batch=16, log2_lr=log2_lr), seeds=(0, 1, 2)
        )
    ]
    found = slopes.judge(slopes.by_layer(frame(*runs)), controls=["adamw"])
    assert [v.verdict for v in found] == ["fails", "passes"], [v.sentence for v in found]
    assert not any(v.indicative for v in found)
    assert slopes.as_expected(found)


def test_the_logits_of_mogas_public_code_move_more_the_wider_they_are() -> None:
    runs = [
        found
        for label, log2_lr in (("moga_official", -9.0), ("moga_row", -4.0))
        for found in measured(
            label, spec(label, "mlp", steps=5, batch=16, log2_lr=log2_lr), seeds=(0, 1, 2)
        )
    ]
    found = slopes.judge(slopes.by_layer(frame(*runs)), controls=["moga_official"])
    assert [v.verdict for v in found] == ["fails", "passes"], [v.sentence for v in found]
    assert "that of logits, width^(0.4" in found[0].sentence


@pytest.mark.parametrize("model", ["gpt", "mlp"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_probing_leaves_a_run_as_it_was_bit_for_bit(optimizer: str, model: str) -> None:
    run = spec(optimizer, model)
    alone, watched = stepped([run]), lanes([run])
    for t in range(run.steps):
        probe(watched)
        watched.gradients(t)
        watched.update(t)
    probe(watched)
    assert torch.equal(alone.losses, watched.losses)
    for name, w in weights(alone).items():
        assert torch.equal(weights(watched)[name], w), name
    for one, other in zip(alone.groups, watched.groups, strict=True):
        for key, value in one.state.items():
            assert torch.equal(other.state[key], value), key


def outputs(running: Lanes) -> dict[str, Tensor]:
    return probe(running)[0]


def test_a_transported_run_is_watched_at_x() -> None:
    run = spec("transported_scion", "mlp", hp={"transport_schedule": "constant"}, eval_examples=4)
    ahead, at_x = stepped([run], 3), stepped([run], 3)
    at_x.read_out()
    assert probe(ahead)[1] == at_x.evaluate().item()
    assert probe(ahead)[1] != ahead.evaluate().item()


def test_a_torch_optimizer_that_swaps_its_weights_trains_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "swap.py"
    path.write_text(SWAP)
    run = spec(f"{path}:Swap", "mlp", eval_examples=4)
    alone, watched = stepped([run], 3), stepped([run], 2)
    at_training, (_, at_evaluation) = watched.evaluate().item(), probe(watched)
    assert at_evaluation != at_training
    assert watched.evaluate().item() == at_training
    watched.gradients(2)
    watched.update(2)
    for name, w in weights(alone).items():
        assert torch.equal(weights(watched)[name], w), name


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("mlp", ["first", "second", "logits"]),
        (
            "gpt",
            ["embedding", *(f"blocks.0.{n}" for n in ("q", "k", "v", "o", "up", "down")), "logits"],
        ),
    ],
)
def test_every_layer_is_watched_in_the_order_of_the_forward_pass(
    model: str, wanted: list[str]
) -> None:
    assert list(outputs(lanes([spec("scion", model)]))) == wanted


def test_what_is_measured_is_the_rms_of_the_output_and_of_its_change() -> None:
    run, data = spec("adamw", "mlp", steps=6, batch=16), digits()
    at = spread(run.batch, len(data.y_heldout))
    x = torch.from_numpy(data.x_heldout[at]).flatten(1)
    h = [x @ weights(stepped([run], t))["first.weight"].mT for t in (0, 5, 6)]
    [_, found] = measured("adamw", run, widths=(8, 16), zero_head=False)
    first = [row for row in found.rows if row.layer == "first"]
    assert [(row.when, row.step) for row in first] == [("init", 0), ("gate", 5), ("late", 6)]
    for row, now in zip(first, h, strict=True):
        assert row.rms == pytest.approx(now.square().mean().sqrt().item(), rel=1e-6)
        assert row.change == pytest.approx((now - h[0]).square().mean().sqrt().item(), rel=1e-6)
    assert {(row.optimizer, row.width, row.log2_lr) for row in found.rows} == {("adamw", 16, -8.0)}


def test_every_width_has_the_batches_of_its_seed_and_all_runs_one_probe_batch() -> None:
    run = spec("scion", "mlp", steps=5)
    found = measured("scion", run, widths=(16, 8), seeds=(0, 3))
    assert [(one.width, one.seed) for one in found] == [(8, 0), (8, 3), (16, 0), (16, 3)]
    again = measured("scion", run, widths=(8, 32), seeds=(3,))
    assert again[0] == found[1]


@pytest.mark.parametrize("model", ["gpt", "mlp"])
def test_every_head_starts_at_zero_unless_the_optimizers_own_start_is_asked_for(model: str) -> None:
    run = spec("scion", model, steps=5)
    for zero_head in (True, False):
        [found, _] = measured("scion", run, widths=(16, 32), zero_head=zero_head)
        start = {row.layer: row.rms for row in found.rows if row.when == "init"}
        assert (start.pop("logits") == 0) == zero_head
        assert all(start.values())


def test_a_head_that_is_the_embedding_too_keeps_its_start() -> None:
    run = spec("scion", "gpt", steps=5, model_fields={"tied": True})
    [found, _] = measured("scion", run, widths=(16, 32))
    start = {row.layer: row.rms for row in found.rows if row.when == "init"}
    assert start["embedding"] > 0
    assert start["logits"] > 0


def test_an_output_that_no_layer_gives_is_watched_beside_the_layers() -> None:
    running = lanes([spec("scion", "mlp")])
    model = running.model
    whole = model.forward
    model.forward = lambda x: 2 * whole(x)
    found = outputs(running)
    assert list(found) == ["first", "second", "head", "logits"]
    assert torch.equal(found["logits"], 2 * found["head"])


def test_an_output_that_is_overwritten_later_is_kept_as_it_came() -> None:
    running = lanes([spec("scion", "mlp")])
    model: Any = running.model
    model.forward = lambda x: model.head(torch.relu_(model.first(x.flatten(1))))
    assert (outputs(running)["first"] < 0).any()


def test_no_hook_stays_behind() -> None:
    running = lanes([spec("scion", "gpt")])
    probe(running)
    assert not any(module._forward_hooks for module in running.model.modules())


def test_a_run_that_diverges_is_infinite_in_every_layer_from_then_on() -> None:
    [found, _] = measured("adamw", spec("adamw", "mlp", steps=6, log2_lr=120.0), widths=(8, 16))
    for row in found.rows:
        infinite = (math.isinf(row.rms), math.isinf(row.change))
        assert infinite == (row.when != "init", row.when != "init")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": (8,)}, "widths: got 8, needs at least two that differ"),
        ({"widths": (8, 8)}, "widths: got 8, 8, needs at least two that differ"),
        ({"widths": ()}, "widths: got none, needs at least two that differ"),
        ({"gate_steps": 7}, "steps: got 6, needs at least the 7 of the gate"),
    ],
)
def test_what_gives_no_slope_or_no_gate_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        measured("scion", spec("scion", "mlp"), **options)
