"""What a rule may leave unsaid: its state, and the point at which it is evaluated."""

import pytest
import torch
from torch import Generator, Tensor

from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import State, Step
from units import HIDDEN, at, random


class Least:
    """A rule with what every rule has."""

    def __init__(self, batched: bool) -> None:
        self.batched = batched

    def init_weight(self, generator: Generator) -> Tensor:
        return random(3, 2)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        return w - step.lr * g, {"m": state["m"] + g}


class Own:
    """A rule with a state and a point of its own."""

    def init_weight(self, generator: Generator) -> Tensor:
        return random(2, 3)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        return w, state

    def init_state(self, w: Tensor) -> State:
        return {"n": w + 1}

    def readout(self, w: Tensor, state: State) -> Tensor:
        return w + state["n"]


@pytest.mark.parametrize("batched", [False, True])
def test_a_rule_that_says_nothing_else_has_momentum_and_is_evaluated_at_its_weights(
    batched: bool,
) -> None:
    rule = rules.made("least", lambda p: Least(batched), HIDDEN, {})
    w = random(4, 3, 2)
    state = rules.init_state(rule, w)
    assert {key: value.tolist() for key, value in state.items()} == {"m": (0 * w).tolist()}
    moved, state = rules.update(rule, w, state, w, at(lr=0.5))
    assert torch.equal(state["m"], w)
    assert torch.equal(rules.readout(rule, moved, state), 0.5 * w)


def test_what_a_rule_says_of_its_state_and_its_point_counts() -> None:
    own, w = Own(), random(2, 3)
    state = rules.init_state(own, w)
    assert torch.equal(state["n"], w + 1)
    assert torch.equal(rules.readout(own, w, state), w + w + 1)
