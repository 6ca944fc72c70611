"""A `torch.optim.Optimizer` class as the optimizer of a run: one lane, the model's own init."""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor

from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.train.prepare import Prepared


def own_init(prepared: Prepared, seed: int) -> dict[str, Tensor]:
    """The weights as the model's constructor draws them under a seed, on the CPU."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        model = prepared.build()
    return {name: p.detach() for name, p in model.named_parameters()}


def construct(
    prepared: Prepared, spec: RunSpec, parameters: Iterable[Tensor]
) -> torch.optim.Optimizer:
    """The optimizer of a run over these parameters. Raises InputError where it refuses them."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.hp.items()}
    optimizer = cast("Callable[..., torch.optim.Optimizer]", prepared.optimizer)
    try:
        return optimizer(parameters, lr=spec.lr, **fields)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"optimizer {spec.optimizer['name']!r}: {error}",
            "a torch optimizer is called with all parameters, lr and its own defaults",
        ) from None


def step(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One step at this learning rate, on the gradients that the parameters hold."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


def read_out(optimizer: torch.optim.Optimizer) -> None:
    """Swap in the point to evaluate, where the optimizer trains at another (schedule-free)."""
    swap = getattr(optimizer, "eval", None)
    if callable(swap):
        swap()
