"""The optimizers of hptransfer as `torch.optim.Optimizer`s, for a training loop of your own.

    base = Model(width=64)                                 # the same model at the base width
    hptransfer.optim.init_(model, "scion", base=base)
    optimizer = hptransfer.optim.optimizer(model, "scion", lr=2**-4, base=base)
    schedule = hptransfer.optim.scheduler(optimizer, steps=1000)

Their weights equal those of the suites, step for step.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hptransfer import registry
from hptransfer.errors import InputError, quoted, suggest
from hptransfer.optim import shards
from hptransfer.optim.described import Described, described
from hptransfer.optim.rule_optimizer import RuleOptimizer
from hptransfer.optimizers.rules import Rule, generator_for
from hptransfer.train.prepare import is_torch_optimizer
from hptransfer.train.schedule import schedule_factor

__all__ = [
    "RuleOptimizer",
    "init_",
    "optimizer",
    "scheduler",
]

SCHEDULES = ("linear", "constant", "cosine")


def optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    base: nn.Module | None = None,
    wider: nn.Module | None = None,
    roles: Mapping[str, str] | None = None,
    **hp: Any,
) -> RuleOptimizer:
    """An optimizer of `hptransfer list optimizers` (or `file.py:name`) over a model's parameters.

    `model`: also one that DistributedDataParallel, `torch.compile` or `fully_shard` wraps. `lr`:
    the peak; a scheduler of torch scales it. `base`: the same model at the base width of muP,
    where m = 1, on any device, meta included. Without `base` m is 1 here, and `roles` (or a
    method `roles()` of the model) must name every parameter. `wider`: the same model at any other
    width; needed where `model` itself has the base width, at which roles do not show. `hp`:
    further hyperparameters. Raises InputError for a wrong name, value or role, and for parameters
    that cannot be moved: complex ones, and those that are not initialised.
    """
    part, _ = _part(name)
    hp = _hp(part, hp)
    _check_lr(part, lr, hp)
    return RuleOptimizer(_described(model, base, wider, roles), part.address, float(lr), hp)


def init_(
    model: nn.Module,
    name: str,
    *,
    seed: int = 0,
    base: nn.Module | None = None,
    wider: nn.Module | None = None,
    roles: Mapping[str, str] | None = None,
    **hp: Any,
) -> nn.Module:
    """Fill a model's parameters in place with the init of this optimizer, and return the model.

    Each weight depends on `seed` and its name alone. Frozen parameters keep their values. Arguments
    and errors as in `optimizer`.
    """
    part, factory = _part(name)
    hp = _hp(part, hp)
    found = _described(model, base, wider, roles)
    with torch.no_grad():
        for p in found.parameters:
            tensor = found.tensors[p.name]
            if tensor.requires_grad:
                drawn = factory(p, **hp).init_weight(generator_for(seed, p.name))
                shards.write(tensor, drawn.to(tensor.device, tensor.dtype), whole=True)
    return model


def scheduler(
    optimizer: RuleOptimizer, *, steps: int, schedule: str = "linear", warmup: float = 0.0
) -> LambdaLR:
    """The learning-rate schedule of a suite: warm-up over a fraction of the steps, then decay.

    `schedule`: "linear", "constant" or "cosine". `warmup`: fraction of `steps`. Transported
    optimizers need the lr of the next step too, and this scheduler gives it to them. With another
    scheduler the transport strength of the schedule "decay" lags one step behind.
    Raises InputError for a wrong value.
    """
    if schedule not in SCHEDULES:
        allowed = ", ".join(SCHEDULES)
        raise InputError(
            f"schedule: got {quoted(schedule)}, allowed: {allowed}", suggest(schedule, SCHEDULES)
        )
    if type(steps) is not int or steps < 1:
        raise InputError(f"steps: got {quoted(steps)}", "the number of steps, 1 or more")
    if not isinstance(warmup, Real) or not 0 <= warmup <= 1:
        raise InputError(f"warmup: got {quoted(warmup)}", "a fraction of the steps, from 0 to 1")
    made = LambdaLR(optimizer, partial(schedule_factor, schedule, float(warmup), steps))
    optimizer.schedule = made
    return made


def _part(name: str) -> tuple[registry.Part, Callable[..., Rule]]:
    part = registry.describe("optimizer", name)
    factory = registry.load("optimizer", name)
    if is_torch_optimizer(factory):
        raise InputError(f"{name!r} is a torch.optim.Optimizer already", "use it as it is")
    return part, factory


def _hp(part: registry.Part, values: Mapping[str, Any]) -> dict[str, Any]:
    return part.resolve(dict(values), f"optimizer {part.name!r}")


def _check_lr(part: registry.Part, lr: float, hp: dict[str, Any]) -> None:
    """Raises InputError for an lr that is no peak, or outside the limits of the optimizer."""
    if isinstance(lr, bool) or not isinstance(lr, Real):
        kind = type(lr).__name__
        raise InputError(f"lr: got {quoted(lr)} ({kind}), needs a number", "2**-6 for instance")
    if not (math.isfinite(lr) and lr > 0):
        raise InputError(
            f"lr: got {lr}, needs a positive finite number",
            "lr is its peak; a scheduler makes it smaller, down to 0",
        )
    low, high = part.lr_limits(hp) or (-math.inf, math.inf)
    if not low <= math.log2(lr) <= high:
        raise InputError(
            f"lr: got {lr}, allowed: 2^{low:g} to 2^{high:g} for {part.name}",
            "lr is a weight of the new direction there" if high == 0 else "choose one in between",
        )


def _described(
    model: nn.Module,
    base: nn.Module | None,
    wider: nn.Module | None,
    roles: Mapping[str, str] | None,
) -> Described:
    """The parameters of the model. The hint of an error says which module would help."""
    try:
        return described(model, base, wider, roles)
    except InputError as error:
        if base is None and wider is None:
            hint = f"give base, the same model at the base width; or {error.hint}"
        elif wider is None:
            hint = (
                f"{error.hint}; where the model has the width of base, give wider, the same model "
                "at any other width"
            )
        else:
            raise
        raise InputError(str(error), hint) from None
