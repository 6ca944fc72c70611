"""The optimizers of hptransfer in a training loop of your own, as real `torch.optim.Optimizer`s.

    base = Model(width=64)                                 # the same model at the base width
    hptransfer.optim.init_(model, "scion", base=base)
    optimizer = hptransfer.optim.optimizer(model, "scion", lr=2**-4, base=base)
    schedule = hptransfer.optim.scheduler(optimizer, steps=1000)

The weights that these give are those of the suites, step for step.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, Step, generator_for
from hptransfer.spec import Param
from hptransfer.train.build import params
from hptransfer.train.groups import grouped
from hptransfer.train.prepare import is_torch_optimizer
from hptransfer.train.schedule import schedule_factor

__all__ = [
    "RuleOptimizer",
    "init_",
    "optimizer",
    "scheduler",
]


def optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    base: nn.Module | None = None,
    roles: Mapping[str, str] | None = None,
    **hp: Any,
) -> "RuleOptimizer":
    """An optimizer of `hptransfer list optimizers` (or `file.py:name`) over a model's parameters.

    `lr`: its peak; schedulers of torch change it. `base`: the same model at the width where the
    learning rate has its own meaning (muP's base width), on any device, also meta; without it the
    model's own shapes count, and `roles` (or the model's `roles()`) must name every parameter.
    `hp`: its other hyperparameters. Raises InputError for a wrong name, value or role.
    """
    part, factory = _part(name)
    given = _hp(part, hp)
    described = _params(model, base, roles)
    return RuleOptimizer(dict(model.named_parameters()), described, factory, lr, given)


def init_(
    model: nn.Module,
    name: str,
    *,
    seed: int = 0,
    base: nn.Module | None = None,
    roles: Mapping[str, str] | None = None,
    **hp: Any,
) -> nn.Module:
    """Fill a model's parameters in place as this optimizer's runs begin, and return it.

    Each weight depends on `seed` and its name alone. Arguments as in `optimizer`.
    """
    part, factory = _part(name)
    given = _hp(part, hp)
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for p in _params(model, base, roles):
            tensors[p.name].copy_(factory(p, **given).init_weight(generator_for(seed, p.name)))
    return model


def scheduler(
    optimizer: "RuleOptimizer", *, steps: int, schedule: str = "linear", warmup: float = 0.0
) -> LambdaLR:
    """The learning-rate schedule of a suite: warm-up over a fraction of the steps, then decay.

    It tells a transported optimizer the next step's learning rate too. With another scheduler the
    transport strength of the schedule "decay" lags one step behind.
    """
    factor = partial(schedule_factor, schedule, warmup, steps)
    optimizer.lr_factor = factor
    return LambdaLR(optimizer, factor)


class RuleOptimizer(torch.optim.Optimizer):
    """Moves parameters by the rules of an optimizer function; make it with `optimizer`.

    One parameter group for each role and shape; `lr` and every real hyperparameter can be changed
    in the groups. Transported methods train at Y: call `eval()` before an evaluation or a
    checkpoint to have X in the weights, and `train()` before going on. ScionLight keeps its
    momentum in the gradients, so `zero_grad` leaves them alone, and a checkpoint has to hold them.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        described: list[Param],
        factory: Callable[..., Rule],
        lr: float,
        hp: Mapping[str, Any],
    ) -> None:
        device = next(iter(tensors.values())).device
        groups = grouped(described, 1, device)
        self.kinds = [alike[0] for alike in groups]
        self.names = [[p.name for p in alike] for alike in groups]
        self.factory = factory
        self.static = {k: v for k, v in hp.items() if not isinstance(v, float)}
        self.real = [k for k, v in hp.items() if isinstance(v, float)]
        self.lr_factor: Callable[[int], float] | None = None
        self._keeps_gradient = False
        # The states of a group in one tensor each, of which `state` holds the views.
        self._stacks: dict[int, tuple[rules.State, list[Any]]] = {}  # by group
        defaults = {"lr": lr, "t": 0, "evaluating": False, **{k: hp[k] for k in self.real}}
        listed = [{"params": [tensors[p.name] for p in alike]} for alike in groups]
        super().__init__(listed, defaults)
        self.peak = lr

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on the gradients; parameters without one stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            if group["evaluating"]:
                raise RuntimeError("the weights hold X for evaluation: call optimizer.train()")
            moving = [p for p in group["params"] if p.grad is not None]
            if moving:
                self._move(index, moving)
                group["t"] += 1
        return loss

    def _move(self, index: int, moving: list[Tensor]) -> None:
        group = self.param_groups[index]
        rule = self._rule(group, self.kinds[index], moving[0])
        state = self._state(rule, index, moving)
        g = [p.grad for p in moving if p.grad is not None]
        peak, now = (moving[0].new_full((), float(x)) for x in (self.peak, group["lr"]))
        then = now if self.lr_factor is None else peak * self.lr_factor(group["t"] + 1)
        held, _ = self._stacks.get(index, (None, []))
        known = dict(state) if state is held else {}  # whose views the parameters have
        state = rules.update_(rule, g, state, moving, Step(group["t"], now, then, peak))
        kept = state.pop("gradient", None)
        self._stacks[index] = state, [self.state[p] for p in moving]
        views = {k: value.unbind() for k, value in state.items() if value is not known.get(k)}
        for i, p in enumerate(moving):
            if views:
                self.state[p].update({key: value[i] for key, value in views.items()})
            if kept is not None and p.grad is not None:
                p.grad.copy_(kept[i])
                self._keeps_gradient = True

    def _rule(self, group: dict[str, Any], kind: Param, like: Tensor) -> Rule:
        real = {k: like.new_full((), group[k]) for k in self.real}
        return self.factory(kind, **real, **self.static)

    def _state(self, rule: Rule, index: int, moving: list[Tensor]) -> rules.State:
        held, owners = self._stacks.get(index, ({}, []))
        if len(owners) == len(moving) and all(
            self.state[p] is own for p, own in zip(moving, owners, strict=True)
        ):
            return held
        fresh = rules.init_state(rule, torch.stack(moving))
        if not any(self.state[p] for p in moving):
            return fresh
        keys = next(self.state[p] for p in moving if self.state[p])
        return {
            key: torch.stack([self.state[p].get(key, fresh[key][i]) for i, p in enumerate(moving)])
            for key in keys
        }

    @torch.no_grad()
    def eval(self) -> None:
        """Put the point to evaluate, X, into the weights; Y is kept for `train()`."""
        for index, group in enumerate(self.param_groups):
            if group["evaluating"]:
                continue
            moved = [p for p in group["params"] if self.state[p]]
            if moved:
                w = torch.stack(moved)
                rule = self._rule(group, self.kinds[index], w)
                x = rules.readout(rule, w, self._state(rule, index, moved))
                for i, p in enumerate(moved):
                    self.state[p]["trained_at"] = p.clone()
                    p.copy_(x[i])
            group["evaluating"] = True

    @torch.no_grad()
    def train(self) -> None:
        """Put the point where gradients are taken back into the weights, bit for bit."""
        for group in self.param_groups:
            if group["evaluating"]:
                for p in group["params"]:
                    if "trained_at" in self.state[p]:
                        p.copy_(self.state[p].pop("trained_at"))
            group["evaluating"] = False

    def keep_gradients(self) -> None:
        """Say, after loading a checkpoint of ScionLight, that the gradients hold its momentum."""
        self._keeps_gradient = True

    def zero_grad(self, set_to_none: bool = True) -> None:
        if not self._keeps_gradient:
            super().zero_grad(set_to_none)


def _part(name: str) -> tuple[registry.Part, Callable[..., Rule]]:
    part = registry.describe("optimizer", name)
    factory = registry.load("optimizer", name)
    if is_torch_optimizer(factory):
        raise InputError(f"{name!r} is a torch.optim.Optimizer already", "use it as it is")
    return part, factory


def _hp(part: registry.Part, given: Mapping[str, Any]) -> dict[str, Any]:
    return part.resolve(dict(given), f"optimizer {part.name!r}")


def _params(
    model: nn.Module, base: nn.Module | None, roles: Mapping[str, str] | None
) -> list[Param]:
    try:
        return params(model, base or model, base or model, roles)
    except InputError as error:
        if base is not None:
            raise
        raise InputError(
            str(error), f"give base, the same model at the base width; or {error.hint}"
        ) from None
