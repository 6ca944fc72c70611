"""`RuleOptimizer`: the rules of an optimizer function as a `torch.optim.Optimizer`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.optim import shards
from hptransfer.optim.described import Described
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, Step
from hptransfer.spec import Param
from hptransfer.train.groups import grouped

# What the state of a parameter holds beside the state of its rule.
STEP, TRAINED_AT = "step", "trained_at"
_OWN = ("kinds", "names", "address", "static", "real", "schedule", "left_out")


@dataclass
class _Stack:
    """Parameters that moved together, and their state as one tensor (k, *shape) per entry.

    `views`: what `Optimizer.state` holds of it for each of them.
    """

    members: list[Tensor]
    state: rules.State
    views: list[rules.State]


class RuleOptimizer(torch.optim.Optimizer):
    """Moves parameters by the rules of an optimizer function; `optimizer` builds one.

    It has one parameter group per role and shape. You may change `lr` and every real-valued
    hyperparameter in a group; `peak` is the lr that a schedule scales. State and arithmetic are
    float32 at least, whatever the dtype of the parameters. Transported methods train at Y: call
    `eval()` before an evaluation or a checkpoint, which puts X into the weights, and `train()`
    afterwards.
    """

    def __init__(self, found: Described, address: str, lr: float, hp: Mapping[str, Any]) -> None:
        alike: dict[Param, list[str]] = {}
        for p in found.parameters:
            alike.setdefault(replace(p, name=""), []).append(p.name)
        self.kinds = list(alike)
        self.names = list(alike.values())
        self.address = address
        self.static = {k: v for k, v in hp.items() if not isinstance(v, float)}
        self.real = [k for k, v in hp.items() if isinstance(v, float)]
        self.schedule: LambdaLR | None = None
        self.left_out = dict(found.left_out)
        self._built = False
        self._forget()
        defaults = {"lr": lr, "peak": lr, "evaluating": False, **{k: hp[k] for k in self.real}}
        groups = [{"params": [found.tensors[name] for name in own]} for own in self.names]
        super().__init__(groups, defaults)
        self._built = True

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes the schedule along too, for the rules read its next learning rate.
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _OWN}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._built = True
        self._forget()

    def _forget(self) -> None:
        """Build rules and stacks of states anew at the next step."""
        self._stacks: dict[Tensor, _Stack] = {}  # by the first parameter
        self._factory: Callable[..., Rule] | None = None
        self._sizes: dict[tuple[int, torch.device], int] = {}  # parameters that one call moves

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises InputError: a parameter has a role, which only a model tells."""
        if self._built:
            raise InputError(
                "add_param_group: the parameters are those of the model it was built over",
                "build it over the whole model: a parameter that is frozen or has no gradient "
                "stays, and may be thawed",
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, `peak` included; nothing is shared with `state_dict`.

        Raises InputError for the state of another optimizer, ValueError for that of another model.
        """
        for group in state_dict["param_groups"]:
            for key in ("lr", "peak", "evaluating", *self.real):
                if key not in group:
                    raise InputError(
                        f"load_state_dict: its groups have no {key!r}",
                        f"it is the state of another optimizer than {self.address}, or of another "
                        "version of hptransfer",
                    )
        super().load_state_dict(state_dict)
        self._forget()
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for place, p in zip(saved, self._parameters(), strict=True):
            own = self.state.get(p, {})
            for key, value in own.items():
                if not isinstance(value, Tensor):
                    continue
                dtype = value.dtype
                if p.dtype != _working(p) and key not in (STEP, TRAINED_AT):
                    # torch rounds a state to the dtype of its parameter
                    value = state_dict["state"].get(place, own).get(key, value)
                    dtype = _working(p)
                own[key] = value.detach().to(own[key].device, dtype, copy=True)

    def _parameters(self) -> Iterator[Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a parameter without a gradient stays.

        Returns the value of `closure`. Raises RuntimeError between `eval()` and `train()`, and
        InputError for a sparse gradient and for a thawed parameter without a role.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_thawed()
        for index, group in enumerate(self.param_groups):
            if group["evaluating"]:
                raise RuntimeError("the weights hold X for evaluation: call optimizer.train()")
            self._refuse_sparse(index)
            seen: dict[int, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    t = int(self.state[p].get(STEP, 0))
                    seen.setdefault(t, []).append(p)
            for t, moving in seen.items():
                for alike in self._batches(index, moving):
                    self._move(index, alike, t)
        return loss

    def _refuse_thawed(self) -> None:
        for name, p in self.left_out.items():
            if p.requires_grad:
                raise InputError(
                    f"{name}: was frozen when the optimizer was built, and its role is not known",
                    f"build the optimizer with roles = {{{name!r}: ...}}, or before it is frozen",
                )

    def _refuse_sparse(self, index: int) -> None:
        for name, p in zip(self.names[index], self.param_groups[index]["params"], strict=True):
            if p.grad is not None and p.grad.layout is not torch.strided:
                raise InputError(
                    f"{name}: {self.address} does not support sparse gradients",
                    "nn.Embedding(..., sparse=False) gives dense ones",
                )

    def _batches(self, index: int, members: list[Tensor]) -> Iterator[list[Tensor]]:
        """Parameters of a group in lists that one call of their rule moves."""
        if shards.is_sharded(members[0]):
            yield from ([p] for p in members)  # one whole tensor at a time is in memory
            return
        key = index, members[0].device
        if key not in self._sizes:
            kinds = [self.kinds[index]] * len(self.names[index])
            self._sizes[key] = len(grouped(kinds, 1, members[0].device)[0])
        size = self._sizes[key]
        yield from (members[i : i + size] for i in range(0, len(members), size))

    def _move(self, index: int, alike: list[Tensor], t: int) -> None:
        group, dtype = self.param_groups[index], _working(alike[0])
        rule = self._rule(index, alike[0])
        whole = not getattr(rule, "elementwise", False)
        w = [shards.read(p, whole=whole).to(dtype) for p in alike]
        g = [shards.read(cast("Tensor", p.grad), whole=whole).to(dtype) for p in alike]
        now = float(group["lr"])
        lrs = (
            torch.full((), lr, dtype=dtype, device=w[0].device)
            for lr in (now, self._next_lr(index, now), float(group["peak"]))
        )
        state = self._stacked(rule, alike, w, whole)
        before = dict(state)
        # ScionLight keeps its momentum in the gradients, which a loop clears, scales and clips.
        kept = state.pop("gradient", None)
        if kept is not None:
            g = [own + past for own, past in zip(g, kept, strict=True)]
        state = rules.update_(rule, g, state, w, Step(t, *lrs))
        for p, moved in zip(alike, w, strict=True):
            shards.write(p, moved, whole=whole)
        self._keep(alike, state, before, whole)

    def _next_lr(self, index: int, now: float) -> float:
        if self.schedule is None:
            return now
        factor = self.schedule.lr_lambdas[index](self.schedule.last_epoch + 1)
        return float(self.schedule.base_lrs[index]) * factor

    def _rule(self, index: int, like: Tensor) -> Rule:
        if self._factory is None:
            self._factory = cast("Callable[..., Rule]", registry.load("optimizer", self.address))
        group = self.param_groups[index]
        real: dict[str, Any] = {k: group[k] for k in self.real}
        if (
            like.device.type == "cpu"
        ):  # a fused kernel takes numbers, which a GPU would be asked for
            real = {k: torch.full((), x, dtype=_working(like)) for k, x in real.items()}
        return self._factory(self.kinds[index], **real, **self.static)

    def _stacked(
        self, rule: Rule, alike: list[Tensor], w: list[Tensor], whole: bool
    ) -> rules.State:
        """The state of parameters as one tensor per entry, from the last step where it is the same.

        An entry that somebody has set in `state` since counts.
        """
        last = self._stacks.get(alike[0])
        if last is not None and _same(last, alike, self.state):
            return dict(last.state)
        for p in alike:
            self._stacks.pop(p, None)
        states = [
            {
                key: shards.read(value, whole=whole).to(w[0].dtype)
                for key, value in self.state[p].items()
                if key not in (STEP, TRAINED_AT)
            }
            for p in alike
        ]
        if not all(states):
            fresh = rules.init_state(rule, _together(w))
            states = [own or {k: v[i] for k, v in fresh.items()} for i, own in enumerate(states)]
        return {key: _together([own[key] for own in states]) for key in states[0]}

    def _keep(
        self, alike: list[Tensor], state: rules.State, before: rules.State, whole: bool
    ) -> None:
        """Write a stacked state into `state`, where it is another tensor than before."""
        last = self._stacks.get(alike[0])
        views = [{} for _ in alike] if last is None else last.views
        for key, value in state.items():
            if last is None or value is not before.get(key):
                for p, own, entry in zip(alike, views, value.unbind(), strict=True):
                    own[key] = self.state[p][key] = shards.like(p, entry, whole=whole)
        for own in (self.state[p] for p in alike):
            if STEP not in own:
                own[STEP] = torch.zeros(())
            own[STEP].add_(1)
        if not shards.is_sharded(alike[0]):
            self._stacks[alike[0]] = _Stack(alike, state, views)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the point to evaluate, X, into the weights, and keep Y for `train()`."""
        for index, group in enumerate(self.param_groups):
            if group["evaluating"]:
                continue
            group["evaluating"] = True
            moved = [p for p in group["params"] if self.state.get(p)]
            if moved and getattr(self._rule(index, moved[0]), "readout", None) is not None:
                for alike in self._batches(index, moved):
                    self._read_out(index, alike)

    def _read_out(self, index: int, alike: list[Tensor]) -> None:
        rule = self._rule(index, alike[0])
        whole = not getattr(rule, "elementwise", False)
        w = [shards.read(p, whole=whole).to(_working(p)) for p in alike]
        x = rules.readout(rule, _together(w), self._stacked(rule, alike, w, whole))
        for p, point in zip(alike, x, strict=True):
            self.state[p][TRAINED_AT] = p.clone()
            shards.write(p, point, whole=whole)

    @torch.no_grad()
    def train(self) -> None:
        """Put the point of the gradients, Y, back into the weights with the same bits."""
        for group in self.param_groups:
            if group["evaluating"]:
                for p in group["params"]:
                    if TRAINED_AT in self.state.get(p, {}):
                        p.copy_(self.state[p].pop(TRAINED_AT))
            group["evaluating"] = False


def _working(p: Tensor) -> torch.dtype:
    """The dtype in which a parameter is moved."""
    return torch.promote_types(p.dtype, torch.float32)


def _together(tensors: list[Tensor]) -> Tensor:
    """One tensor (k, *shape); of a single one a view, which a rule may move in place."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def _same(last: _Stack, alike: list[Tensor], state: Mapping[Tensor, Mapping[str, Any]]) -> bool:
    """Whether a stack is the state of these parameters still."""
    return len(last.members) == len(alike) and all(
        p is member and all(state[p].get(key) is view for key, view in own.items())
        for p, member, own in zip(alike, last.members, last.views, strict=True)
    )
