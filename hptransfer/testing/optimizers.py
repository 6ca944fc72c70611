"""The contract of an optimizer: a function Param, **hp -> Rule, or one of torch's kind."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from hptransfer import registry
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, Step, generator_for
from hptransfer.registry import Part
from hptransfer.spec import Param
from hptransfer.testing.common import (
    CPU,
    Clause,
    falls,
    require,
    resumes,
    small_spec,
    summary,
    tiny_images,
    tiny_text,
)
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared, is_torch_optimizer, prepare

PARAMS = {  # width 16 over base 8, every kind that a model may hold
    "embedding": Param("embedding", "input", (11, 16), (11, 8), embedding=True),
    "dense input": Param("first", "input", (16, 5), (8, 5)),
    "hidden": Param("hidden", "hidden", (24, 16), (12, 8)),
    "fused qkv": Param("qkv", "hidden", (48, 16), (24, 8), parts=3),
    "stacked experts": Param("experts", "hidden", (3, 24, 16), (3, 12, 8), stacked=1),
    "convolution": Param("conv", "hidden", (16, 16, 3, 3), (8, 8, 3, 3), conv=True),
    "output": Param("head", "output", (10, 16), (10, 8)),
    "tied": Param("tied", "output", (11, 16), (11, 8), tied=True),
    "bias": Param("bias", "vector", (16,), (8,)),
    "gain": Param("gain", "vector", (16,), (8,), gain=True),
}


def clauses(part: Part, target: str, width: int) -> Iterator[Clause]:
    del width
    mlp, gpt = (registry.describe("model", name) for name in ("mlp", "gpt"))
    factory = registry.load("optimizer", target)
    on_images = prepare(small_spec(part, mlp, 32), tiny_images())
    on_text = prepare(small_spec(part, gpt, 32), tiny_text())
    if is_torch_optimizer(factory):
        built: list[Lanes] = []
        yield "is built over a model's parameters", lambda: built.append(_lanes_of(on_images))
        if not built:  # every clause below would fail alike
            return
        yield "moves further at a larger learning rate", lambda: _moves(on_images)
    else:
        yield "says what it is in its first line", lambda: summary(part)
        contract = _RuleContract(part, factory)
        yield "gives a rule for every kind of parameter", contract.gives_rules
        yield "draws finite weights, the same for the same seed", contract.draws
        yield "keeps shapes and leaves its arguments alone", contract.keeps_shapes
        yield "stays finite on a zero gradient", contract.zero
        yield "takes hyperparameters as 0-d tensors", contract.tensors
        yield "moves same-shaped parameters together as alone", contract.stacked
        yield "moves one lane in place as otherwise, where it can", contract.in_place
        yield "moves lanes together as alone (vmap = loop)", contract.lanes
        yield "does not read a parameter's name", contract.nameless
    yield "resumes to the same bytes", lambda: resumes(on_images)
    yield "lowers the loss of an MLP", lambda: falls(on_images)
    yield "lowers the loss of a GPT", lambda: falls(on_text)


def _lanes_of(prepared: Prepared) -> Lanes:
    return Lanes([prepared.spec], prepared.data, CPU, prepared=prepared)


def _moves(prepared: Prepared) -> str:
    """How far the weights move at two learning rates, as one number each.

    In twenty steps, for some wait before they move: RAdam for the fifth, AdaShift for the tenth.
    """
    sizes: list[float] = []
    for log2_lr in (-10.0, -6.0):
        lanes = Lanes([prepared.spec.point(log2_lr, 0)], prepared.data, CPU, prepared=prepared)
        before = [group.w.clone() for group in lanes.groups]
        for t in range(20):
            lanes.gradients(t)
            lanes.update(t)
        moves = [(group.w - w).norm() for group, w in zip(lanes.groups, before, strict=True)]
        sizes.append(torch.stack(moves).norm().item())
    small, large = sizes
    detail = f"{small:.1e} at 2^-10, {large:.1e} at 2^-6"
    require(small > 0, f"twenty steps move nothing: {detail}")
    require(large > small, f"the learning rate does not set the step: {detail}")
    return detail


class _RuleContract:
    """What the engine asks of a function Param, **hp -> Rule."""

    def __init__(self, part: Part, factory: Callable[..., Rule]) -> None:
        self.part = part
        self.factory = factory
        self.hp = dict(part.defaults)

    def _stacks(self, p: Param, k: int = 2) -> tuple[Tensor, Tensor]:
        generator = generator_for(0, p.name)
        g, w = torch.randn(2, k, *p.shape, generator=generator, dtype=torch.float64)
        return g, w

    def _step(self, t: int = 0, lr: float = 0.25) -> Step:
        return Step(t, *(torch.tensor(x, dtype=torch.float64) for x in (lr, lr / 2, 0.5)))

    def _two_steps(self, rule: Rule, g: Tensor, w: Tensor, lr: float = 0.25) -> Tensor:
        state = rules.init_state(rule, w)
        for t in range(2):
            w, state = rules.update(rule, (t + 1) * g, state, w, self._step(t, lr))
        return rules.readout(rule, w, state)

    def _each(self) -> Iterator[tuple[str, Param, Rule]]:
        for name, p in PARAMS.items():
            yield name, p, self.factory(p, **self.hp)

    def gives_rules(self) -> str:
        for name, p in PARAMS.items():
            rule: Any = self.factory(p, **self.hp)  # whatever a plug-in really gives
            require(isinstance(rule, Rule), f"{name}: {type(rule).__name__} is no Rule")
        return ", ".join(PARAMS)

    def draws(self) -> None:
        for name, p, rule in self._each():
            w, again = (rule.init_weight(generator_for(0, p.name)) for _ in range(2))
            require(tuple(w.shape) == p.shape, f"{name}: shape {tuple(w.shape)}, not {p.shape}")
            require(bool(w.isfinite().all()), f"{name}: not finite")
            require(torch.equal(w, again), f"{name}: two draws of one seed differ")

    def keeps_shapes(self) -> None:
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            g0, w0 = g.clone(), w.clone()
            state = rules.init_state(rule, w)
            before = {key: value.clone() for key, value in state.items()}
            moved, after = rules.update(rule, g, state, w, self._step())
            require(moved.shape == w.shape, f"{name}: w became {tuple(moved.shape)}")
            require(torch.equal(g, g0) and torch.equal(w, w0), f"{name}: g or w changed in place")
            require(
                all(torch.equal(state[key], before[key]) for key in before),
                f"{name}: the state changed in place",
            )
            require(
                all(after[key].shape == before[key].shape for key in before if key in after),
                f"{name}: a state's shape changed",
            )
            used = {tensor.untyped_storage().data_ptr() for tensor in (g, w)}
            require(
                not any(kept.untyped_storage().data_ptr() in used for kept in after.values()),
                f"{name}: the state keeps g or w itself, whose memory is used again",
            )
            x = rules.readout(rule, moved, after)
            require(x.shape == w.shape, f"{name}: readout gave {tuple(x.shape)}")
            require(not torch.equal(x, w), f"{name}: a step moved nothing")

    def zero(self) -> None:
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            x = self._two_steps(rule, 0 * g, w)
            require(bool(x.isfinite().all()), f"{name}: not finite")

    def tensors(self) -> None:
        hp = {
            k: torch.tensor(v, dtype=torch.float64) if isinstance(v, float) else v
            for k, v in self.hp.items()
        }
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            self._alike(name, self._two_steps(self.factory(p, **hp), g, w), rule, g, w)

    def _alike(self, name: str, got: Tensor, rule: Rule, g: Tensor, w: Tensor) -> None:
        self._close(name, got, self._two_steps(rule, g, w))

    def _close(self, name: str, got: Tensor, expected: Tensor) -> None:
        difference = (got - expected).abs().max().item()
        require(difference < 1e-7, f"{name}: differs by {difference:.1e}")

    def stacked(self) -> None:
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            alone = [self._two_steps(rule, g[i : i + 1], w[i : i + 1]) for i in range(2)]
            self._close(name, self._two_steps(rule, g, w), torch.cat(alone))

    def in_place(self) -> None:
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            for together in (True, False):
                own, state = w.clone(), rules.init_state(rule, w)
                for t in range(2):
                    given = (t + 1) * g
                    stacks = (given, own) if together else (list(given), list(own))
                    state = rules.update_(rule, stacks[0], state, stacks[1], self._step(t))
                    require(torch.equal(given, (t + 1) * g), f"{name}: changes the gradient")
                moved = rules.readout(rule, own, state)
                self._close(name, moved, self._two_steps(rule, g, w))

    def lanes(self) -> None:
        lrs = torch.tensor([0.25, 0.125], dtype=torch.float64)
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            alone = [self._two_steps(rule, g[i][None], w[i][None], lrs[i].item()) for i in range(2)]

            def lane(g: Tensor, w: Tensor, lr: Tensor, rule: Rule = rule) -> Tensor:
                state = rules.init_state(rule, w[None])
                moved = w[None]
                for t in range(2):
                    step = Step(t, lr, lr / 2, 0 * lr + 0.5)
                    moved, state = rules.update(rule, (t + 1) * g[None], state, moved, step)
                return rules.readout(rule, moved, state)[0]

            self._close(name, vmap(lane)(g, w, lrs), torch.cat(alone))

    def nameless(self) -> None:
        for name, p, rule in self._each():
            g, w = self._stacks(p)
            other = self.factory(replace(p, name="another.weight"), **self.hp)
            self._alike(name, self._two_steps(other, g, w), rule, g, w)
