"""Contract tests on an optimizer, a model or a data set: `hptransfer validate TARGET`."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.testing import datasets, models, optimizers
from hptransfer.testing.common import BrokenError, OutOfTimeError, limited
from hptransfer.train.prepare import is_torch_optimizer

__all__ = [
    "KINDS",
    "Check",
    "kind_of",
    "validate",
]

KINDS = ("optimizer", "model", "dataset")
"""What has a contract."""


@dataclass(frozen=True)
class Check:
    """One clause of a contract and whether it holds; `detail` says what was seen."""

    name: str
    passed: bool
    detail: str = ""


def kind_of(target: str) -> str:
    """What a target is: a name of ours, else by its first argument.

    That is p of a rule, width of a model, model of a function that builds torch optimizers; a data
    set needs none.

    Raises InputError where it is none of the three.
    """
    for kind in KINDS:
        if target in registry.names(kind):
            return kind
    if ":" not in target:
        known = [name for kind in KINDS for name in registry.names(kind)]
        raise InputError(
            f"validate: unknown name {target!r}",
            registry.suggest(target, known) or "give file.py:name or package.module:name",
        )
    loaded = registry.load("optimizer", target)
    if is_torch_optimizer(loaded):
        return "optimizer"
    if isinstance(loaded, type) and issubclass(loaded, nn.Module):
        return "model"
    if not callable(loaded):
        raise InputError(f"validate: {target} is a {type(loaded).__name__}", "name a function")
    arguments = list(inspect.signature(loaded).parameters.values())
    if arguments and arguments[0].name == "width":
        return "model"
    if not arguments or all(a.default is not a.empty for a in arguments):
        return "dataset"
    if arguments[0].annotation in (int, "int"):
        raise InputError(
            f"validate: {target} takes {arguments[0].name!r} first",
            "a model takes `width` first, and an optimizer `p`; or say of which kind it is",
            cures=("kind",),
        )
    return "optimizer"


def validate(
    target: str,
    kind: str | None = None,
    width: int = 64,
    *,
    seconds: float = math.inf,
    begins: Callable[[str], object] = str,
) -> Iterator[Check]:
    """Run the contract of a target, one Check after the other.

    `width`: of the narrower model that a model's contract builds. `seconds`: after these a clause
    is given up and fails; in another thread than the main one there is no limit. `begins` is called
    with the name of each clause that begins. Raises InputError for a target that cannot be found or
    read.
    """
    kind = kind or kind_of(target)
    part = registry.describe(kind, target)
    clauses = {
        "optimizer": optimizers.clauses,
        "model": models.clauses,
        "dataset": datasets.clauses,
    }[kind]
    for name, clause in clauses(part, target, width):
        begins(name)
        try:
            with limited(seconds):
                detail = clause()
        except OutOfTimeError:
            yield Check(name, False, f"took longer than {seconds:g} s")
        except InputError as error:
            yield Check(name, False, f"{error} ({error.hint})" if error.hint else str(error))
        except BrokenError as error:
            yield Check(name, False, str(error))
        except Exception as error:  # the target's own bug, which is what is looked for
            yield Check(name, False, f"{type(error).__name__}: {error}".split("\n")[0])
        else:
            yield Check(name, True, detail or "")
