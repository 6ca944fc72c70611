"""A `torch.optim.Optimizer` class as the optimizer of a run: one lane, the model's own init."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.train.build import Data, build


def is_torch_optimizer(part: Any) -> bool:
    """Whether an optimizer part is a class of torch's kind; it then runs through this adaptor."""
    return isinstance(part, type) and issubclass(part, torch.optim.Optimizer)


def own_init(spec: RunSpec, data: Data) -> dict[str, Tensor]:
    """The weights as the model's constructor draws them under the run's seed, on the CPU."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(spec.seed)
        model = build(spec, data, spec.width)
    return {name: p.detach() for name, p in model.named_parameters()}


def construct(
    optimizer: type[torch.optim.Optimizer], spec: RunSpec, parameters: Iterable[Tensor]
) -> torch.optim.Optimizer:
    """The optimizer over these parameters. Raises InputError where it refuses them."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.hp.items()}
    try:
        return optimizer(parameters, lr=spec.lr, **fields)  # type: ignore[call-arg]
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
