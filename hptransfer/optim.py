"""The optimizers of hptransfer as `torch.optim.Optimizer`s, for a training loop of your own.

    base = Model(width=64)                                 # the same model at the base width
    hptransfer.optim.init_(model, "scion", base=base)
    optimizer = hptransfer.optim.optimizer(model, "scion", lr=2**-4, base=base)
    schedule = hptransfer.optim.scheduler(optimizer, steps=1000)

Their weights equal those of the suites, step for step.
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
from hptransfer.train.groups import gradient_of, grouped
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

    `lr`: the peak; a scheduler of torch scales it. `base`: the same model at the base width of muP,
    where m = 1, on any device, meta included. Without `base` m is 1 here, and `roles` (or a
    method `roles()` of the model) must name every parameter. `hp`: further hyperparameters.
    Raises InputError for a wrong name, value or role.
    """
    part, factory = _part(name)
    hp = _hp(part, hp)
    parameters = _params(model, base, roles, frozen=True)  # they may thaw
    return RuleOptimizer(dict(model.named_parameters()), parameters, factory, lr, hp)


def init_(
    model: nn.Module,
    name: str,
    *,
    seed: int = 0,
    base: nn.Module | None = None,
    roles: Mapping[str, str] | None = None,
    **hp: Any,
) -> nn.Module:
    """Fill a model's parameters in place with the init of this optimizer, and return the model.

    Each weight depends on `seed` and its name alone. A frozen parameter, which takes no gradient,
    stays as it is. Arguments and errors as in `optimizer`.
    """
    part, factory = _part(name)
    hp = _hp(part, hp)
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for p in _params(model, base, roles):
            tensors[p.name].copy_(factory(p, **hp).init_weight(generator_for(seed, p.name)))
    return model


def scheduler(
    optimizer: "RuleOptimizer", *, steps: int, schedule: str = "linear", warmup: float = 0.0
) -> LambdaLR:
    """The learning-rate schedule of a suite: warm-up over a fraction of the steps, then decay.

    `schedule`: "linear", "constant" or "cosine". `warmup`: fraction of `steps`. Transported
    optimizers need the lr of the next step too, and this scheduler gives it to them. With another
    scheduler the transport strength of the schedule "decay" lags one step behind.
    """
    factor = partial(schedule_factor, schedule, warmup, steps)
    optimizer.lr_factor = factor
    return LambdaLR(optimizer, factor)


class RuleOptimizer(torch.optim.Optimizer):
    """Moves parameters by the rules of an optimizer function; `optimizer` builds one.

    It has one parameter group per role and shape. You may change `lr` and every real-valued
    hyperparameter in a group. Transported methods train at Y: call `eval()` before an evaluation or
    a checkpoint, which puts X into the weights, and `train()` afterwards. ScionLight keeps its
    momentum in the gradients, so `zero_grad` does not clear them, and a checkpoint has to hold
    them.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        parameters: list[Param],
        factory: Callable[..., Rule],
        lr: float,
        hp: Mapping[str, Any],
    ) -> None:
        device = next(iter(tensors.values())).device
        groups = grouped(parameters, 1, device)
        self.kinds = [alike[0] for alike in groups]
        self.names = [[p.name for p in alike] for alike in groups]
        self.factory = factory
        self.static = {k: v for k, v in hp.items() if not isinstance(v, float)}
        self.real = [k for k, v in hp.items() if isinstance(v, float)]
        self.lr_factor: Callable[[int], float] | None = None
        self._keeps_gradient = False
        # By group: each entry of its state as one tensor (k, *shape). `state` holds views of them.
        self._stacks: dict[int, tuple[rules.State, list[Any]]] = {}
        defaults = {"lr": lr, "t": 0, "evaluating": False, **{k: hp[k] for k in self.real}}
        members = [{"params": [tensors[p.name] for p in alike]} for alike in groups]
        super().__init__(members, defaults)
        self.peak = lr

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a parameter without a gradient stays.

        Returns the value of `closure`. Raises RuntimeError between `eval()` and `train()`.
        """
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
        g = [gradient_of(p) for p in moving]
        peak, now = (moving[0].new_full((), float(x)) for x in (self.peak, group["lr"]))
        then = now if self.lr_factor is None else peak * self.lr_factor(group["t"] + 1)
        stack, _ = self._stacks.get(index, (None, []))
        before = dict(state) if state is stack else {}  # the parameters have views of these
        state = rules.update_(rule, g, state, moving, Step(group["t"], now, then, peak))
        gradient = state.pop("gradient", None)
        self._stacks[index] = state, [self.state[p] for p in moving]
        views = {k: value.unbind() for k, value in state.items() if value is not before.get(k)}
        for i, p in enumerate(moving):
            if views:
                self.state[p].update({key: value[i] for key, value in views.items()})
            if gradient is not None and p.grad is not None:
                p.grad.copy_(gradient[i])
                self._keeps_gradient = True

    def _rule(self, group: dict[str, Any], kind: Param, like: Tensor) -> Rule:
        # a fused kernel takes numbers, which a GPU would be waited for
        on_cpu = like.device.type == "cpu"
        real = {k: like.new_full((), group[k]) if on_cpu else group[k] for k in self.real}
        return self.factory(kind, **real, **self.static)

    def _state(self, rule: Rule, index: int, moving: list[Tensor]) -> rules.State:
        stack, owners = self._stacks.get(index, ({}, []))
        if len(owners) == len(moving) and all(
            self.state[p] is own for p, own in zip(moving, owners, strict=True)
        ):
            return stack
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
        """Put the point to evaluate, X, into the weights, and keep Y for `train()`."""
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
        """Put the point of the gradients, Y, back into the weights with the same bits."""
        for group in self.param_groups:
            if group["evaluating"]:
                for p in group["params"]:
                    if "trained_at" in self.state[p]:
                        p.copy_(self.state[p].pop("trained_at"))
            group["evaluating"] = False

    def keep_gradients(self) -> None:
        """Call this after you load a checkpoint of ScionLight: its gradients hold the momentum."""
        self._keeps_gradient = True

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, except where they hold the momentum (ScionLight)."""
        if not self._keeps_gradient:
            super().zero_grad(set_to_none)


def _part(name: str) -> tuple[registry.Part, Callable[..., Rule]]:
    part = registry.describe("optimizer", name)
    factory = registry.load("optimizer", name)
    if is_torch_optimizer(factory):
        raise InputError(f"{name!r} is a torch.optim.Optimizer already", "use it as it is")
    return part, factory


def _hp(part: registry.Part, values: Mapping[str, Any]) -> dict[str, Any]:
    return part.resolve(dict(values), f"optimizer {part.name!r}")


def _params(
    model: nn.Module,
    base: nn.Module | None,
    roles: Mapping[str, str] | None,
    *,
    frozen: bool = False,
) -> list[Param]:
    try:
        return params(model, base or model, base or model, roles, frozen=frozen)
    except InputError as error:
        if base is not None:
            raise
        raise InputError(
            str(error), f"give base, the same model at the base width; or {error.hint}"
        ) from None
