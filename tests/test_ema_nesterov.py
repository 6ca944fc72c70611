"""EMA-Nesterov: its recursion, the phases without a shift, and X and Y kept apart."""

import pytest
import torch
from torch import Tensor

from hptransfer.optimizers.ema_nesterov import ema_nesterov
from hptransfer.optimizers.rules import init_state, readout
from hptransfer.spec import Param
from units import (
    EMBEDDING,
    HIDDEN,
    OUTPUT,
    VECTOR,
    M,
    at,
    lanes,
    random,
    records,
    spec,
    stepped,
    weights,
)

TOTAL, PEAK = 40, 0.1
FIRST, BELOW = 8, 0.26
RATES = [PEAK * (1 - t / TOTAL) for t in range(TOTAL + 1)]


class PlainMuon:
    """Muon on a hidden matrix; AdamW without decay at a rate of its own elsewhere."""

    def __init__(self, p: Param) -> None:
        self.p = p
        self.m = self.v = torch.zeros(p.shape, dtype=torch.float64)

    def step(self, y: Tensor, g: Tensor, t: int) -> Tensor:
        if self.p.role == "hidden":
            self.m = 0.95 * self.m + 0.05 * g
            u, _, vh = torch.linalg.svd(0.95 * self.m + 0.05 * g, full_matrices=False)
            return y - RATES[t] * (12 / 8) ** 0.5 * u @ vh
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.95 * self.v + 0.05 * g * g
        m, v = self.m / (1 - 0.9 ** (t + 1)), self.v / (1 - 0.95 ** (t + 1))
        lr = 2**-7 * RATES[t] / PEAK / (M if self.p.role == "output" else 1)
        return y - lr * m / (v.sqrt() + 1e-12)


@pytest.mark.parametrize("p", [HIDDEN, EMBEDDING, OUTPUT, VECTOR], ids=lambda p: p.name)
def test_ema_nesterov_follows_a_plain_loop_that_holds_x(p: Param) -> None:
    rule = ema_nesterov(p, polar="svd", gamma=0.9, off_first=FIRST, off_below=BELOW)
    w, target = random(1, *p.shape, seed=8), random(*p.shape, seed=9)
    state = init_state(rule, w)
    inner = PlainMuon(p)
    x, d = w[0].clone(), torch.zeros(p.shape, dtype=torch.float64)
    furthest = 0.0
    for t in range(TOTAL):
        on = t >= FIRST and RATES[t] / PEAK >= BELOW
        y = x + (0.6 * RATES[t] / PEAK if on else 0.0) * d
        torch.testing.assert_close(w[0], y, rtol=0, atol=1e-12)
        torch.testing.assert_close(readout(rule, w, state)[0], x, rtol=0, atol=1e-12)
        furthest = max(furthest, (y - x).abs().max().item())
        noise = 0.3 * random(*p.shape, seed=100 + t)
        before, x = x, inner.step(y, torch.tanh(y - target) + noise, t)
        d = 0.9 * d + 0.1 * (x - before)
        g = torch.tanh(w - target) + noise
        w, state = rule.update(g, state, w, at(t, RATES[t], RATES[t + 1], PEAK))
    torch.testing.assert_close(readout(rule, w, state)[0], x, rtol=0, atol=1e-12)
    assert furthest > 1e-4


@pytest.mark.parametrize("model", ["gpt", "mlp"])
def test_without_a_shift_ema_nesterov_is_muon(model: str) -> None:
    plain = stepped([spec("muon", model)], dtype=torch.float64)
    for hp in ({"lookahead": 0.0}, {"off_first": 50}):
        still = stepped([spec("ema_nesterov", model, hp=hp)], dtype=torch.float64)
        still.read_out()
        for name, w in weights(plain).items():
            torch.testing.assert_close(weights(still)[name], w, rtol=0, atol=1e-9)
    moving = stepped([spec("ema_nesterov", model)], dtype=torch.float64)
    assert not torch.equal(plain.losses, moving.losses)


def shifts(schedule: str, warmup: float, off_first: int, off_below: float) -> list[float]:
    """b of the gradient of every step, of a run of 8 steps."""
    hp = {"off_first": off_first, "off_below": off_below}
    run = spec("ema_nesterov", "mlp", steps=8, schedule=schedule, warmup=warmup, hp=hp)
    running = lanes([run], dtype=torch.float64)
    found = []
    for t in range(8):
        aheads = [group.state["ahead"].flatten() for group in running.groups]
        assert torch.cat(aheads).unique().numel() == 1  # Y is one point of the network
        found.append(aheads[0][0].item())
        running.gradients(t)
        running.update(t)
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup", "off_first", "off_below", "expected"),
    [
        ("linear", 0.0, 0, 0.0, [0, 7, 6, 5, 4, 3, 2, 1]),
        ("linear", 0.0, 3, 0.0, [0, 0, 0, 5, 4, 3, 2, 1]),
        ("linear", 0.0, 0, 0.5, [0, 7, 6, 5, 4, 0, 0, 0]),
        ("linear", 0.5, 0, 0.0, [0, 0, 0, 0, 8, 6, 4, 2]),
        ("constant", 0.0, 3, 0.5, [0, 0, 0, 8, 8, 8, 8, 8]),
    ],
)
def test_the_shift_follows_the_lr_and_is_off_early_late_and_while_the_lr_rises(
    schedule: str, warmup: float, off_first: int, off_below: float, expected: list[int]
) -> None:
    found = shifts(schedule, warmup, off_first, off_below)
    assert found == pytest.approx([0.6 * n / 8 for n in expected], abs=1e-12)


@pytest.mark.parametrize("n", [1, 3])
def test_a_run_is_evaluated_at_x_and_never_at_y(n: int) -> None:
    run = spec("ema_nesterov", "mlp", schedule="constant", log2_lr=-2.0)
    unit = [run.point(run.log2_lr - i, 0) for i in range(n)]
    running = stepped(unit)
    at_y = running.evaluate()
    for group in running.groups:
        group.w.sub_(group.state["ahead"] * group.state["d"])
    at_x = running.evaluate()
    given = torch.tensor([record.loss for record in records(unit)])
    torch.testing.assert_close(given, at_x, rtol=1e-5, atol=0)
    assert ((at_y - at_x).abs() > 1e-4).all()


def test_lanes_may_differ_in_gamma_and_in_every_field_of_the_shift() -> None:
    run = spec("ema_nesterov", "mlp")
    for key, values in (
        ("gamma", (0.0, 0.9)),
        ("lookahead", (0.0, 1.0)),
        ("off_below", (0.0, 0.6)),
    ):
        unit = [run.point(run.log2_lr, 0, **{key: value}) for value in values]
        together = stepped(unit, dtype=torch.float64)
        together.read_out()
        for lane, one in enumerate(unit):
            alone = stepped([one], dtype=torch.float64)
            alone.read_out()
            for name, w in weights(alone).items():
                torch.testing.assert_close(weights(together, lane)[name], w, rtol=0, atol=1e-9)
        first, second = (weights(together, lane)["head.weight"] for lane in (0, 1))
        assert (first - second).abs().max() > 1e-6
