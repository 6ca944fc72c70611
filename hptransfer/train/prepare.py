"""A run prepared: its parts looked up by name once, its parameters, and the FLOPs of a step."""

import contextlib
import inspect
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from hptransfer import registry
from hptransfer.errors import InputError, Note, broken
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule
from hptransfer.registry import BUILTINS
from hptransfer.spec import Param, RunSpec
from hptransfer.train.build import Data, describe_params, is_own, model_factory


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one lane in a training step.

    `model`: of a forward and a backward pass. `optimizer`: of an update.
    """

    model: float
    optimizer: float

    def of_run(self, steps: int, evaluations: float) -> float:
        """FLOPs of so many steps and evaluation batches.

        A forward pass has a third of a step's FLOPs of the model.
        """
        return steps * (self.model + self.optimizer) + evaluations / 3 * self.model

    def to_json(self) -> dict[str, float]:
        """By the names that records use."""
        return {
            "model_flops_per_step": self.model,
            "optimizer_flops_per_step": self.optimizer,
        }


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run and what its names stand for; it holds for every lane that may share its unit.

    `model` builds the module of a width on the current default device. `optimizer` is a function
    Param, **hp -> Rule, or gives optimizers of torch's kind. `params` are those at the spec's
    width. `flops` is None where only a step shows them.
    """

    spec: RunSpec
    data: Data = field(repr=False)
    model: Callable[[int], nn.Module]
    optimizer: Callable[..., Rule] | type[torch.optim.Optimizer]
    params: tuple[Param, ...]
    flops: StepFlops | None = None

    @property
    def vectorises(self) -> bool:
        """Whether its lanes can share a unit: not under a torch.optim.Optimizer."""
        return not is_torch_optimizer(self.optimizer)

    def rule(self, p: Param) -> Rule:
        """The rule of a parameter. Raises InputError where the optimizer gives none."""
        optimizer = cast("Callable[..., Rule]", self.optimizer)
        return rules.made(self.spec.optimizer["name"], optimizer, p, self.spec.hp)

    def build(self) -> nn.Module:
        """The model at the width of the run, on the current default device."""
        return self.model(self.spec.width)


def prepare(
    spec: RunSpec,
    data: Data,
    *,
    params: Sequence[Param] | None = None,
    flops: StepFlops | None = None,
) -> Prepared:
    """Look up the parts of a run and describe its parameters.

    `params`: the parameters where they are known; they are described on the meta device, which
    loads torch's compiler. Raises InputError where a part cannot be found, the model cannot be
    built, the role of a parameter is neither said nor to be seen, or a run could not be right.
    """
    optimizer = registry.load_spec("optimizer", spec.optimizer)
    model = model_factory(spec, data)
    known = tuple(describe_params(spec, data, model) if params is None else params)
    if params is None and is_own(spec) and not is_torch_optimizer(optimizer):
        _note_starts(spec, model, known)
    return Prepared(spec, data, model, optimizer, known, flops)


def _note_starts(spec: RunSpec, model: Callable[[int], nn.Module], params: Sequence[Param]) -> None:
    """Warn with a Note where the constructor gives a vector another start than a rule does."""
    with torch.random.fork_rng(devices=[]):
        built = model(min(spec.width, spec.base.get("width", spec.width)))
    values = dict(built.named_parameters())
    other = []
    for p in params:
        if p.role != "vector" or (math.prod(p.shape) == 1 and not p.gain):
            continue
        least, most = values[p.name].detach().aminmax()
        if least == most != float(p.gain):  # the same number everywhere is chosen, and not drawn
            other.append(f"{p.name} at {float(most):g} in place of {float(p.gain):g}")
    if other:
        text = f"model {spec.model['name']!r}: its constructor starts {', '.join(other)}"
        rest = "a rule draws every weight, gains start at 1 and biases at 0"
        warnings.warn(Note(f"{text}; {rest}"), stacklevel=3)


def load_data(table: Mapping[str, Any]) -> Data:
    """The data set of a spec or suite: its name and fields."""
    fields = {k: v for k, v in table.items() if k not in ("name", "revision", "sha256")}
    name = table["name"]
    make = registry.load("dataset", name)
    try:
        loaded = make(**fields)
    except Exception as error:
        if isinstance(error, InputError) or name in BUILTINS["dataset"]:
            raise
        what = f"data {name!r}: calling it failed"
        raise broken(what, error, "hptransfer validate checks it") from None
    if not isinstance(loaded, Data):
        raise InputError(
            f"data {name!r}: gave a {type(loaded).__name__}",
            "a data set is a function that returns hptransfer.datasets.Tokens or Examples",
        )
    return loaded


def is_torch_optimizer(part: object) -> bool:
    """Whether an optimizer part is a class of torch's kind, or a function that builds one.

    It then runs through an adaptor.
    """
    return _of_torch(part) or takes_model(part)


def takes_model(part: object) -> bool:
    """Whether an optimizer part builds torch optimizers from the module, its argument `model`."""
    if not (inspect.isfunction(part) or _of_torch(part)):
        return False
    return list(inspect.signature(cast("Callable[..., object]", part)).parameters)[:1] == ["model"]


def _of_torch(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, torch.optim.Optimizer)


def own_parts(spec: RunSpec) -> dict[str, str]:
    """Kind -> name: the model and the optimizer of a run where they are not built in."""
    names = {"model": spec.model["name"], "optimizer": spec.optimizer["name"]}
    return {kind: name for kind, name in names.items() if name not in BUILTINS[kind]}


@contextlib.contextmanager
def foreign_parts(spec: RunSpec) -> Generator[None]:
    """Whatever a run's parts raise here is wrong input where one of them is somebody's own."""
    try:
        yield
    except Exception as error:
        own = [f"{kind} {name!r}" for kind, name in own_parts(spec).items()]
        if isinstance(error, InputError) or not own:
            raise
        what = f"{' or '.join(own)}: a step failed"
        raise broken(what, error, "hptransfer validate checks a part on its own") from None
