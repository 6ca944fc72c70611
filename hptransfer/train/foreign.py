"""Torch optimizers of somebody else as the optimizer of a run: one lane, the model's own init."""

import ast
import inspect
import textwrap
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from hptransfer.errors import InputError, broken
from hptransfer.optimizers.rules import generator_for
from hptransfer.registry.imports import lacking
from hptransfer.spec import RunSpec
from hptransfer.train.prepare import Prepared, takes_model

LR_FACTOR = "lr_factor"  # in `by_role`: a group's lr over the run's
REST = "rest"  # in `by_role`: the roles that it does not name
_KINDS = "docs/zoo.md says which kinds of optimizer cannot run, and why"
_CALLED = (
    "a class is called with all parameters, lr and its own defaults; by_role gives roles groups of "
    "their own, and build names a function of the model that calls it otherwise"
)


def own_init(prepared: Prepared, seed: int) -> dict[str, Tensor]:
    """The weights as the model's constructor draws them under a seed, on the CPU."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        model = prepared.build()
    return {name: p.detach() for name, p in model.named_parameters()}


@runtime_checkable
class _OfTorch(Protocol):
    """What a run asks of a torch optimizer."""

    param_groups: list[dict[str, Any]]

    def step(self, closure: Any = None) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Foreign:
    """The optimizers of a run, one or several that share its parameters between them.

    `weights`: parameter name -> the model's parameter, whose data is a view of the run's weights.
    What an optimizer draws from torch's generators depends on the run's seed alone. Raises
    InputError where the optimizer refuses the parameters, or is of a kind that cannot run.
    """

    def __init__(
        self, prepared: Prepared, spec: RunSpec, model: nn.Module, weights: Mapping[str, Tensor]
    ) -> None:
        self._name: str = spec.optimizer["name"]
        self._views = [(leaf, leaf.data) for leaf in weights.values()]
        devices = {torch.device("cpu"), *(leaf.device for leaf in weights.values())}
        seed = generator_for(spec.seed, "optimizer").initial_seed()
        self._random = {
            str(device): torch.Generator(device).manual_seed(seed).get_state() for device in devices
        }
        with self._at_work("building it failed", _CALLED):
            self.optimizers = _built(prepared, spec, model, weights)
        self._takes_closure = [_needs_closure(type(each)) for each in self.optimizers]
        if any(self._takes_closure) and len(self.optimizers) > 1:
            raise InputError(
                f"optimizer {self._name!r}: one of several takes a closure, which would move "
                "between their gradients and their steps",
                "return one optimizer",
            )
        self._peaks = [[float(g["lr"]) for g in each.param_groups] for each in self.optimizers]
        self.train()

    def step(self, factor: float, again: Callable[[], Tensor]) -> None:
        """One step on the gradients that the parameters hold.

        `factor`: lr over its peak. `again`: computes loss and gradients anew, for a closure. Raises
        InputError where it fails on finite numbers.
        """
        try:
            with self._at_work("a step failed"):
                self._step(factor, again)
        except InputError:
            if all(_finite(view) and _finite(leaf.grad) for leaf, view in self._views):
                raise
            for _, view in self._views:  # it had diverged, and a decomposition takes no NaN
                view.fill_(torch.nan)
        self._settle()

    def _step(self, factor: float, again: Callable[[], Tensor]) -> None:
        for optimizer, closure, peaks in zip(
            self.optimizers, self._takes_closure, self._peaks, strict=True
        ):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            if closure:
                optimizer.step(again)
            else:
                optimizer.step()

    def read_out(self) -> None:
        """Swap in the point to evaluate, where the optimizer trains at another (schedule-free)."""
        self._swap("eval")

    def train(self) -> None:
        """The inverse of `read_out`, and what such an optimizer asks for before its first step."""
        self._swap("train")

    def state(self) -> dict[str, Any]:
        """What training goes on from, beside the weights."""
        with self._at_work("its state_dict() failed"):
            states = [each.state_dict() for each in self.optimizers]
        return {"optimizers": states, "random": self._random}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from `state`."""
        with self._at_work("its load_state_dict() failed"):
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        self._random.update(saved["random"])
        self.train()

    def _swap(self, method: str) -> None:
        with self._at_work(f"its {method}() failed"):
            for optimizer in self.optimizers:
                swap = getattr(optimizer, method, None)
                if callable(swap):
                    swap()
        self._settle()

    def _settle(self) -> None:
        """Let the run's weights be the model's again, where an optimizer put a new tensor there."""
        for leaf, view in self._views:
            if leaf.data_ptr() != view.data_ptr():
                view.copy_(leaf.data)
                leaf.data = view

    @contextmanager
    def _at_work(self, failed: str, hint: str = _KINDS) -> Generator[None]:
        """Whatever the optimizer raises here is wrong input; its random numbers are its own."""
        cuda = [device for device in self._random if device != "cpu"]
        with torch.random.fork_rng(devices=cuda):
            torch.set_rng_state(self._random["cpu"])
            for device in cuda:
                torch.cuda.set_rng_state(self._random[device], device)
            try:
                yield
            except (InputError, torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except ModuleNotFoundError as error:
                raise lacking(f"optimizer {self._name!r}", error.name or str(error)) from None
            except Exception as error:
                raise self._refused(failed, error, hint) from None
            self._random["cpu"] = torch.get_rng_state()
            for device in cuda:
                self._random[device] = torch.cuda.get_rng_state(device)

    def _refused(self, failed: str, error: Exception, hint: str) -> InputError:
        what = f"optimizer {self._name!r}: {failed}"
        if "grad_fn" in str(error):
            return InputError(
                f"{what}: it takes second derivatives of the loss (create_graph), and the "
                "gradients of a run keep no graph",
                _KINDS,
            )
        if traceback.extract_tb(error.__traceback__)[-1].filename == __file__:  # the call itself
            return InputError(f"{what}: {error}", hint)
        return broken(what, error, hint)


def _finite(tensor: Tensor | None) -> bool:
    return tensor is None or bool(tensor.isfinite().all())


def _built(
    prepared: Prepared, spec: RunSpec, model: nn.Module, weights: Mapping[str, Tensor]
) -> list[_OfTorch]:
    """The optimizers, checked. Raises InputError where they cannot train a run."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.hp.items()}
    make = cast("Callable[..., object]", prepared.optimizer)
    name = spec.optimizer["name"]
    if hasattr(make, "fused_backward"):
        raise InputError(
            f"optimizer {name!r}: it steps inside a backward pass of its own (fused_backward)",
            _KINDS,
        )
    given = model if takes_model(make) else _grouped(prepared, weights)
    made = make(given, lr=spec.lr, **fields)
    built = list(made) if isinstance(made, list | tuple) else [made]
    _check(name, built, weights)
    return cast("list[_OfTorch]", built)


def _check(name: str, built: list[object], weights: Mapping[str, Tensor]) -> None:
    """Raises InputError for what is no optimizer, has no lr, or leaves out a parameter."""
    held: set[int] = set()
    for each in built:
        if not isinstance(each, _OfTorch):  # some wrappers inherit from nothing
            raise InputError(
                f"optimizer {name!r}: gave a {type(each).__name__}",
                "it returns a torch.optim.Optimizer, or a list of several",
            )
        if not all("lr" in group for group in each.param_groups):
            raise InputError(
                f"optimizer {name!r}: it has no learning rate to transfer: its groups hold no lr",
                _KINDS,
            )
        held |= {id(p) for group in each.param_groups for p in group["params"]}
    for parameter, leaf in weights.items():
        if id(leaf) not in held:
            raise InputError(
                f"optimizer {name!r}: {parameter} is in none of its groups, and would not train",
                "give every parameter of the model to one of its groups",
            )


def _grouped(
    prepared: Prepared, weights: Mapping[str, Tensor]
) -> Iterable[Tensor] | list[dict[str, Any]]:
    """All parameters, or the groups of `by_role`: one for each role that it names, one of the
    rest."""
    by_role = prepared.spec.optimizer.get("by_role", {})
    if not by_role:
        return weights.values()
    members: dict[str, list[Tensor]] = {}
    for p in prepared.params:
        members.setdefault(p.role if p.role in by_role else REST, []).append(weights[p.name])
    return [
        {"params": tensors, **group_fields(prepared.spec, role)}
        for role, tensors in members.items()
    ]


def group_fields(spec: RunSpec, role: str) -> dict[str, Any]:
    """The fields of a role's group in a torch optimizer, with its peak lr."""
    by_role: dict[str, dict[str, Any]] = spec.optimizer.get("by_role", {})
    own = dict(by_role.get(role, by_role.get(REST, {})))
    return {"lr": spec.lr * own.pop(LR_FACTOR, 1.0), **own}


def _needs_closure(kind: type[_OfTorch]) -> bool:
    """Whether a step computes the loss itself: its `closure` has no default, or may not be None.

    The second shows in the source alone, as `if closure is None: raise`.
    """
    function = inspect.unwrap(kind.step)
    closure = inspect.signature(function).parameters.get("closure")
    if closure is None or closure.default is closure.empty:
        return closure is not None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source, no such line
        return False
    return any(_refuses_none(node) for node in ast.walk(tree))


def _refuses_none(node: ast.AST) -> bool:
    match node:
        case ast.If(test=test, body=[*_, ast.Raise()]):
            return ast.unparse(test) in ("closure is None", "not closure")
        case ast.Assert(test=test):
            return ast.unparse(test) in ("closure is not None", "closure")
        case _:
            return False
