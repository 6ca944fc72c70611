"""Lanes: runs that differ in scalar hyperparameters or seed, trained as one vectorised run."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint

from hptransfer.errors import InputError
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, Stack, State, Step
from hptransfer.spec import Param, RunSpec
from hptransfer.train import inits
from hptransfer.train.batches import Batches
from hptransfer.train.build import Data, blocks, in_dtype, placed
from hptransfer.train.foreign import Foreign, own_init
from hptransfer.train.groups import Group, gradient_of, grouped, regrouped, separate
from hptransfer.train.prepare import Prepared, prepare
from hptransfer.train.schedule import lr_factor

CONSTANTS_SEED = 0  # of buffers and frozen parameters, which the lanes of a unit share


class Moment(NamedTuple):
    """`t`: a step; `now`, `then`: lr in it and in the next, over the peak lr.

    Numbers, or tensors without axes in a step that a GPU replays.
    """

    t: int | Tensor
    now: float | Tensor
    then: float | Tensor


class Lanes:
    """The weights, gradients and optimizer states of a unit, and its pure training step.

    `prepared`: the first run prepared; it is prepared here by default. `micro_batch`: examples per
    backward pass, all by default. `recompute`: one lane keeps the inputs of its blocks alone and
    computes the rest again in the backward pass. `drawn`: False starts the weights from any numbers
    of a like size, where only time counts. One lane runs without vmap, on tensors without a lane
    axis.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        data: Data,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        micro_batch: int | None = None,
        recompute: bool = False,
        prepared: Prepared | None = None,
        drawn: bool = True,
    ) -> None:
        self.specs = specs
        self.spec = specs[0]
        self.device = device
        self.dtype = dtype
        self.single = len(specs) == 1
        self.micro_batch = min(micro_batch or self.spec.batch, self.spec.batch)
        prepared = prepare(self.spec, data) if prepared is None else prepared
        self.optimizer = cast("Callable[..., Rule]", prepared.optimizer)  # unless `foreign`
        self.static = {k: v for k, v in self.spec.hp.items() if not isinstance(v, float)}
        self.hp = {
            k: self._hyperparameter([spec.hp[k] for spec in specs])
            for k, v in self.spec.hp.items()
            if isinstance(v, float)
        }
        self.lr = self._per_lane([spec.lr for spec in specs])
        self.recompute = recompute and self.single
        self.model = self._model(prepared)
        takes_lanes = self._takes_lanes(prepared)
        draw = self._group if takes_lanes else self._own_init(prepared)
        groups = grouped(prepared.params, len(specs), device)
        self._draws = (
            inits.drawn(specs, self.optimizer, groups, device, dtype)
            if drawn and takes_lanes
            else None
        )
        self.groups = [draw(alike) for alike in groups]
        self._draws = None
        self.leaves = self._leaves()
        self.foreign = (
            None if takes_lanes else Foreign(prepared, self.spec, self.model, self.leaves)
        )
        self.losses = torch.zeros(len(specs), self.spec.steps, device=device)
        self.batches = Batches(specs, data, device, dtype)

    def _model(self, prepared: Prepared) -> torch.nn.Module:
        seed = CONSTANTS_SEED if prepared.vectorises else self.spec.seed
        model = in_dtype(placed(prepared.build, self.spec, seed, self.device), self.dtype)
        for block in blocks(model) if self.recompute else ():
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        return model

    def _takes_lanes(self, prepared: Prepared) -> bool:
        """Whether the optimizer could train several lanes. Raises InputError where it has to."""
        if prepared.vectorises:
            return True
        if not self.single:
            raise InputError(
                f"{self.spec.optimizer['name']!r} is a torch.optim.Optimizer, which trains one run",
                "train one run at a time: 1 lane",
                cures=("lanes",),
            )
        return False

    def _per_lane(self, values: list[float]) -> Tensor:
        scalars = torch.tensor(values, dtype=self.dtype, device=self.device)
        return scalars[0] if self.single else scalars

    def _hyperparameter(self, values: list[float]) -> Tensor | float:
        """A number where one lane trains on a GPU: a fused kernel takes no tensor for it."""
        if self.single and self.device.type != "cpu":
            return torch.tensor(values[0], dtype=self.dtype).item()
        return self._per_lane(values)

    def _any_weights(self, alike: list[Param]) -> Tensor:
        lanes = () if self.single else (len(self.specs),)
        size = (len(alike), *lanes, *alike[0].shape)
        return torch.randn(size, dtype=self.dtype, device=self.device) / alike[0].d_in ** 0.5

    def _group(self, alike: list[Param]) -> Group:
        w = self._any_weights(alike) if self._draws is None else next(self._draws).contiguous()
        rule = rules.made(self.spec.optimizer["name"], self.optimizer, alike[0], self.spec.hp)
        if self.spec.clip > 0 and rules.keeps_gradient(rule, alike[0]):
            raise self._unclippable()

        def start(w: Tensor) -> State:
            return rules.init_state(rule, w)

        state = start(w) if self.single else vmap(start, 1, 1)(w)
        return Group(alike[0], [p.name for p in alike], w, self._no_gradient(w), state)

    def _no_gradient(self, w: Tensor) -> Stack:
        return [] if self.single else torch.zeros_like(w)

    def _own_init(self, prepared: Prepared) -> Callable[[list[Param]], Group]:
        """Groups that start where the model's constructor puts them."""
        drawn = own_init(prepared, self.spec.seed)

        def group(alike: list[Param]) -> Group:
            w = torch.stack([drawn[p.name] for p in alike]).to(self.device, self.dtype)
            return Group(alike[0], [p.name for p in alike], w, self._no_gradient(w), {})

        return group

    def _leaves(self) -> dict[str, Tensor]:
        """Views of the groups, one per parameter; those of lanes add their gradients to Group.g."""
        leaves: dict[str, Tensor] = {}
        own = dict(self.model.named_parameters())
        for group in self.groups:
            for i, name in enumerate(group.names):
                if self.single:
                    leaf: Tensor = own[name]
                    leaf.data = group.w[i]
                else:
                    own[name].data = group.w[i, 0]
                    leaf = group.w[i].detach().requires_grad_()
                    leaf.grad = group.g[i]
                leaves[name] = leaf
        return leaves

    def loss(self, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch, nats, (); at the model's own weights where none are given."""
        bf16 = self.spec.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = functional_call(self.model, weights, (x,)) if weights else self.model(x)
        logits = logits.to(self.dtype).flatten(0, -2)
        return F.cross_entropy(logits, y.flatten())

    def _lane_losses(self, x: Tensor, y: Tensor, shared: bool) -> Tensor:
        if self.single:
            return self.loss({}, x, y)
        data_dim = None if shared else 0
        return vmap(self.loss, in_dims=(0, data_dim, data_dim))(self.leaves, x, y)

    def gradients(self, t: int) -> None:
        """Mean gradient of step t into `Group.g`; its losses are kept."""
        self.losses[:, t] = self.accumulate(*self.batches.train(t))

    def accumulate(self, x: Tensor, y: Tensor, shared: bool) -> Tensor:
        """Mean gradient of a batch into `Group.g`, micro-batch by micro-batch; losses, (lanes,)."""
        free = [group for group in self.groups if not group.carried]
        for group in free:
            if isinstance(group.g, Tensor):
                group.g.zero_()
                continue
            group.g = []
            for name in group.names:  # the backward pass then need not add to anything
                self.leaves[name].grad = None
        axis = 0 if shared else 1
        total = torch.zeros(len(self.specs), device=self.device, dtype=self.dtype)
        for xs, ys in zip(
            x.split(self.micro_batch, axis), y.split(self.micro_batch, axis), strict=True
        ):
            losses = self._lane_losses(xs, ys, shared) * (xs.shape[axis] / self.spec.batch)
            losses.sum().backward()
            if self.single:
                separate(self.leaves.values())
            total += losses.detach()
        for group in free:
            if not isinstance(group.g, Tensor):
                group.g = [gradient_of(self.leaves[name]) for name in group.names]
        return total

    def _again(self, t: int) -> Tensor:
        """The gradients of step t at the weights as they are, and its loss, ()."""
        with torch.enable_grad():
            losses = self.accumulate(*self.batches.train(t))
        if self.spec.clip > 0:
            self._clip(self.spec.clip)
        return losses[0]

    def update(self, t: int) -> None:
        """One optimizer step on every group, in place."""
        self.move(Moment(t, lr_factor(self.spec, t), lr_factor(self.spec, t + 1)))

    @torch.no_grad()
    def move(self, moment: Moment, state_in_place: bool = False) -> None:
        """One optimizer step on every group; `state_in_place`: the states keep their memory."""
        if self.spec.clip > 0:
            self._clip(self.spec.clip)
        t, now, then = moment
        if self.foreign is not None:
            self.foreign.step(float(now), partial(self._again, int(t)))
            return

        def one(
            hp: dict[str, Tensor | float], lr: Tensor, g: Tensor, state: State, w: Tensor, p: Param
        ) -> tuple[Tensor, State]:
            rule = self.optimizer(p, **hp, **self.static)
            return rules.update(rule, g, state, w, Step(t, lr * now, lr * then, lr))

        for group in self.groups:
            before = dict(group.state)
            if self.single:
                rule = self.optimizer(group.p, **self.hp, **self.static)
                step = Step(t, self.lr * now, self.lr * then, self.lr)
                group.state = rules.update_(rule, group.g, group.state, group.w, step)
            else:
                assert isinstance(group.g, Tensor)
                run = vmap(partial(one, p=group.p), in_dims=(0, 0, 1, 1, 1), out_dims=1)
                w, group.state = run(self.hp, self.lr, group.g, group.state, group.w)
                group.w.copy_(w)
            kept = group.state.pop("gradient", None)
            if kept is not None:
                if self.spec.clip > 0:
                    raise self._unclippable()
                self._carry(group, kept)
            if state_in_place:
                for key, value in group.state.items():
                    if before[key] is not value:
                        before[key].copy_(value)
                group.state = before

    def _unclippable(self) -> InputError:
        name = self.spec.optimizer["name"]
        return InputError(
            f"{name!r} keeps its momentum in the gradient, which clipping would scale", "clip = 0"
        )

    def _carry(self, group: Group, kept: Tensor) -> None:
        """Let the next gradient be added to what the optimizer kept."""
        if isinstance(group.g, Tensor):
            group.g.copy_(kept)
        else:
            group.g = kept
            for name, gradient in zip(group.names, kept, strict=True):
                self.leaves[name].grad = gradient
        group.carried = True

    def _clip(self, limit: float) -> None:
        """g <- g min(1, limit / ||g||), the norm over all parameters of a lane."""
        gradients = [g for group in self.groups for g in group.g]
        if self.single:
            norm = torch.nn.utils.get_total_norm(gradients)
            scale = torch.clamp(limit / norm, max=1.0)
            for g in gradients:
                g.mul_(scale)
            return
        norms = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=-1) for g in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        scale = torch.clamp(limit / norm, max=1.0)
        for g in gradients:
            g.mul_(scale.view(-1, *(1 for _ in g.shape[1:])))

    def finite(self, t: int) -> Tensor:
        """Which lanes had a finite loss in every step up to and including t; bool, (lanes,)."""
        return self.losses[:, : t + 1].isfinite().all(dim=1)

    @torch.no_grad()
    def read_out(self) -> None:
        """Move the weights to the point that is evaluated: X, where they held a transported Y."""
        if self.foreign is not None:
            self.foreign.read_out()
            return

        def one(hp: dict[str, Tensor | float], w: Tensor, state: State, p: Param) -> Tensor:
            return rules.readout(self.optimizer(p, **hp, **self.static), w, state)

        for group in self.groups:
            read = partial(one, p=group.p)
            run = read if self.single else vmap(read, in_dims=(0, 1, 1), out_dims=1)
            group.w.copy_(run(self.hp, group.w, group.state))

    def snapshot(self) -> dict[str, Any]:
        """What training goes on from: weights as they are (Y if transported), every state."""
        return {
            "losses": self.losses,
            "groups": [
                {
                    "names": group.names,
                    "w": group.w,
                    "state": group.state,
                    "g": group.g if group.carried else None,
                }
                for group in self.groups
            ],
            "foreign": self.foreign.state() if self.foreign is not None else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from `snapshot`, in place, also where another device had grouped otherwise."""
        self.losses.copy_(saved["losses"])
        for group in self.groups:
            alike = (loaded for loaded in saved["groups"] if loaded["names"] == group.names)
            loaded = next(alike, None) or regrouped(group.names, saved["groups"])
            group.w.copy_(loaded["w"])
            group.state = {k: value.to(self.device) for k, value in loaded["state"].items()}
            if loaded["g"] is not None:
                self._carry(group, loaded["g"].to(self.device))
        if self.foreign is not None:
            self.foreign.restore(saved["foreign"])

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Mean loss over the held-out examples, nats; (lanes,). Call after `read_out`."""
        total = torch.zeros(len(self.specs), device=self.device, dtype=self.dtype)
        count = self.spec.eval_examples
        for x, y in self.batches.heldout(count, self.micro_batch):
            total += self._lane_losses(x, y, shared=True) * (len(x) / count)
        return total
