"""The parameters of a user's module as optimizers see them: names without wrappers, and roles."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hptransfer.errors import InputError
from hptransfer.spec import Param
from hptransfer.train.build import params

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Attributes under which a wrapper holds a module: of torch.compile, and of checkpointing.
_INNER = ("_orig_mod", "_checkpoint_wrapped_module")
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True)
class Described:
    """The parameters of a module.

    `tensors`: by name, without those in `left_out`: frozen ones that are no real numbers or whose
    role cannot be seen.
    """

    tensors: Mapping[str, Tensor]
    parameters: list[Param]
    left_out: Mapping[str, Tensor] = field(default_factory=dict)


def described(
    model: nn.Module,
    base: nn.Module | None,
    wider: nn.Module | None,
    roles: Mapping[str, str] | None,
) -> Described:
    """The parameters of a module, whose wrappers leave no trace in the names.

    Frozen parameters count as all others, so that they may be thawed. Raises InputError where the
    role of a parameter that is not frozen is neither said nor to be seen, and for parameters that
    no optimizer of ours moves.
    """
    own = _View(model, "the model")
    base_view = own if base is None else _View(base, "base")
    wider_view = base_view if wider is None else _View(wider, "wider")
    tensors = dict(own.plain)
    _check(tensors)
    for view, argument in ((base_view, "base"), (wider_view, "wider")):
        if missing := [name for name in tensors if name not in dict(view.plain)]:
            raise InputError(
                f"{missing[0]}: not in {argument}",
                f"{argument} is the same model at another width; where something else wraps the "
                "model, give the module inside it",
            )
    said = {} if roles is None else {own.named(name): role for name, role in roles.items()}
    frozen = {name: p for name, p in tensors.items() if not p.requires_grad}
    # Quantised weights, for instance, beside which others are trained.
    coded = {name: p for name, p in frozen.items() if p.dtype not in _REAL}

    def rest(left_out: Mapping[str, Tensor]) -> Described:
        known = {name: p for name, p in tensors.items() if name not in left_out}
        own_roles = {name: role for name, role in said.items() if name not in left_out}
        view = own.without(left_out)
        wanted = None if roles is None else own_roles
        found = params(view, wider_view, base_view, wanted, in_run=False)
        return Described(known, found, left_out)

    try:
        return rest(coded)
    except InputError:
        if frozen.keys() == coded.keys():
            raise
    return rest(frozen)


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError for a parameter that no optimizer of ours moves."""
    if not tensors:
        raise InputError("the model has no parameters", "give the module that holds them")
    for name, p in tensors.items():
        if not p.requires_grad:
            continue
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise InputError(
                f"{name}: has no shape before the first batch", "run one through the model first"
            )
        if p.dtype.is_complex:
            raise InputError(
                f"{name}: is complex ({p.dtype})",
                "keep real and imaginary part as two real parameters (torch.view_as_complex)",
            )
        if p.dtype not in _REAL:
            raise InputError(
                f"{name}: is {p.dtype}, allowed: float16, bfloat16, float32, float64",
                "train in one of these; register what is not trained as a buffer",
            )


class _View(nn.Module):
    """A module as `train.roles` reads it, under the names that it has without its wrappers.

    A stand-in without memory, whose gradient is wanted, takes the place of each parameter: a frozen
    one has a role too.
    """

    def __init__(self, model: object, argument: str) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"{argument} is a {type(model).__name__}, needs a torch.nn.Module",
                "give the module itself, not its parameters",
            )
        self._paths = _plain_paths(model)
        modules = model.named_modules(remove_duplicate=False)
        self._held = [(self._paths[path], module) for path, module in modules]
        self.plain = [(self.named(name), p) for name, p in model.named_parameters()]
        stand_ins: dict[int, nn.Parameter] = {}
        self._params: list[tuple[str, nn.Parameter]] = []
        for name, p in model.named_parameters(remove_duplicate=False):
            if id(p) not in stand_ins and not isinstance(p, nn.parameter.UninitializedParameter):
                shape = torch.empty(tuple(p.shape), device="meta")
                stand_ins[id(p)] = nn.Parameter(shape)
            if id(p) in stand_ins:
                self._params.append((self.named(name), stand_ins[id(p)]))
        inner = dict(self._held)[""]
        if hasattr(inner, "roles"):
            said: Mapping[str, str] = inner.roles()  # type: ignore[operator]
            self.roles = lambda: {self.named(name): role for name, role in said.items()}

    def named(self, name: str) -> str:
        """The name of a parameter without the wrappers on its way."""
        path, _, last = name.rpartition(".")
        plain = self._paths.get(path, path)
        return f"{plain}.{last}" if plain else last

    def without(self, names: Mapping[str, Tensor]) -> "_View":
        """This view where these parameters are none."""
        self._params = [(name, p) for name, p in self._params if name not in names]
        if "roles" in vars(self):
            said = {name: role for name, role in self.roles().items() if name not in names}
            self.roles = lambda: said
        return self

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        seen: set[int] = set()
        for name, p in self._params:
            if not (remove_duplicate and id(p) in seen):
                seen.add(id(p))
                yield name, p

    def named_modules(
        self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module]]:
        seen: set[int] = set()
        for path, module in dict(self._held).items():  # the module inside, not its wrapper
            if not (remove_duplicate and id(module) in seen):
                seen.add(id(module))
                yield path, module


def _plain_paths(model: nn.Module) -> dict[str, str]:
    """Path of each module -> its path without the wrappers on the way.

    Raises InputError for FullyShardedDataParallel, whose parameters have no shapes of their own.
    """
    plain: dict[str, str] = {}
    modules: dict[str, nn.Module] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if type(module).__name__ == "FullyShardedDataParallel":
            raise InputError(
                f"{path or 'the model'}: FullyShardedDataParallel makes vectors of its matrices",
                "shard with torch.distributed.fsdp.fully_shard",
            )
        above, _, last = path.rpartition(".")
        modules[path] = module
        if not path:
            plain[path] = ""
        elif last in _INNER or (last == "module" and isinstance(modules[above], _PARALLEL)):
            plain[path] = plain[above]
        else:
            plain[path] = f"{plain[above]}.{last}" if plain[above] else last
    return plain
