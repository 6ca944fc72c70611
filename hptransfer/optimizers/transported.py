"""Transported Scion: gradients at a point ahead of X, so that the momentum does not lag."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from hptransfer.errors import InputError
from hptransfer.geometry.polar import PolarMethod, ProductDtype
from hptransfer.optimizers.rules import Stack, State, Step
from hptransfer.optimizers.scion import (
    LMO,
    RADII,
    Ball,
    NormName,
    Polar,
    Start,
    Table,
    VectorName,
    lmo_rule,
)
from hptransfer.spec import Param

REVISION = {"transported_scion": 3}
GROUPS = {"transported_scion": RADII}
DECAY_RATES = {"transported_scion": ("beta",)}
LIMITS = {
    "beta": (0.0, 0.9999),
    "transport": (0.0, 1.0),
    "kappa_cap": (0.0, 1e6),
    "radius_input": (1e-6, 1e6),
    "radius_hidden": (1e-6, 1e6),
    "radius_output": (1e-6, 1e6),
    "guard": (0.0, 1.0),
    "polar_steps": (0, 50),
    "transported_scion.constrained.log2_lr": (-30.0, 0.0),
}


TransportSchedule = Literal["constant", "decay"]
Store = Literal["displacement", "recompute"]


@dataclass(frozen=True)
class Transported:
    """Scion with gradients at Y = X + s kappa (X - X_prev); the weights hold Y.

    At s = 1 and a locally constant Hessian, m' = beta m + (1-beta) g(Y) averages gradients as if
    all came from X if (1-beta) kappa = beta W. W is the total weight of the gradients in m: 1 after
    a first-gradient start, 1 - beta^t after t gradients from a zero start. So kappa is
    beta/(1-beta) or beta(1-beta^t)/(1-beta), at most `kappa_cap`; with `kappa_warmup` it grows
    linearly over the first 2/(1-beta) steps. The schedule "decay" has
    s = transport (1 - lr_next/lr_peak), and 0 while the lr rises. `store`: keep the last
    displacement, or rebuild it from the momentum by a second lmo.
    Source: Zhang & Lin 2026, arXiv:2605.18528 (iteration, s = 1). Ours: the start factors, cap and
    warm-up of kappa, the strength s and its schedule, and the constrained form.
    """

    batched: ClassVar[bool] = True
    scion: LMO
    transport: float
    transport_schedule: TransportSchedule
    kappa_cap: float
    kappa_warmup: bool
    store: Store

    def init_weight(self, generator: Generator) -> Tensor:
        return self.scion.init_weight(generator)

    def init_state(self, w: Tensor) -> State:
        """m: momentum; ahead: s kappa, so Y = X + ahead u; weight: W, only with a zero start.

        u: last displacement of X. With store "recompute", lr of the last step in its place:
        u = lr rho lmo(m).
        """
        every = tuple(range(-len(self.scion.p.shape), 0))
        scalar = torch.zeros_like(w.sum(dim=every, keepdim=True))
        state = {"m": torch.zeros_like(w), "ahead": scalar}
        if self.store == "displacement":
            state["u"] = torch.zeros_like(w)
        else:
            state["lr"] = scalar.clone()
        if self.scion.start == "zero":
            state["weight"] = scalar.clone()
        return state

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        return self.advance(g, state, w, step, self.scion.beta)

    def advance(
        self, g: Tensor, state: State, w: Tensor, step: Step, beta_next: float | Tensor
    ) -> tuple[Tensor, State]:
        """`update` for a beta that changes: the average of the next step decides where Y lies."""
        u_prev = self._displacement(state)
        x = w - state["ahead"] * u_prev
        m = self.scion.momentum(g, state, step)
        u = self.scion.displacement(m, x, step)
        new: State = {"m": m, **self._placed(state, u, step, beta_next)}
        return torch.addcmul(w, u, 1 + new["ahead"]).sub_(state["ahead"] * u_prev), new

    def update_(self, g: Stack, state: State, w: Stack, step: Step) -> None:
        """`update` in place with the same bits, in about half as many passes over memory."""
        back, was_ahead = self._displacement(state), state["ahead"]
        self.scion.momentum_(g, state, step)
        u = self.scion.free_(state["m"], step.lr)
        state |= self._placed(state, u, step, self.scion.beta)
        steps = 1 + state["ahead"]
        for own, move, behind, was, to_y in zip(w, u, back, was_ahead, steps, strict=True):
            behind.mul_(was)
            if self.scion.constrained:
                move.sub_(step.lr * (own - behind))
            own.addcmul_(move, to_y).sub_(behind)

    def _placed(self, state: State, u: Tensor, step: Step, beta_next: float | Tensor) -> State:
        """The part of the state that places Y after X has moved by u."""
        place: State = {}
        weight: Tensor | float = 1.0
        if "weight" in state:
            beta = self.scion.beta
            weight = place["weight"] = beta * state["weight"] + (1 - beta)
        ahead = self.strength(step) * self.kappa(step, beta_next, weight)
        place["ahead"] = torch.zeros_like(state["ahead"]) + ahead
        if self.store == "displacement":
            place["u"] = u
        else:
            place["lr"] = torch.zeros_like(place["ahead"]) + step.lr
        return place

    def readout(self, w: Tensor, state: State) -> Tensor:
        return w - state["ahead"] * self._displacement(state)

    def _displacement(self, state: State) -> Tensor:
        return state["u"] if "u" in state else self.scion.free(state["m"], state["lr"])

    def kappa(self, step: Step, beta_next: float | Tensor, weight: float | Tensor) -> Tensor:
        """How many displacements ahead of X the next gradient lies at full strength; 0-d."""
        exact = torch.zeros_like(step.lr) + beta_next / (1 - beta_next) * weight
        kappa = torch.clamp(exact, max=self.kappa_cap)
        if not self.kappa_warmup:
            return kappa
        fraction = torch.zeros_like(step.lr) + (step.t + 1) * (1 - beta_next) / 2
        return kappa * torch.clamp(fraction, max=1.0)

    def strength(self, step: Step) -> Tensor | float:
        """s of the next gradient, between 0 and `transport`."""
        if self.transport_schedule == "constant":
            return self.transport
        decayed = self.transport * (1 - step.lr_next / step.lr_peak)
        return torch.where(step.lr_next > step.lr, torch.zeros_like(decayed), decayed)

    def settings(self, lr: float) -> dict[str, float | str]:
        """The values of `LMO.settings`, and the strength of the transport."""
        return {
            **self.scion.settings(lr),
            "transport": self.transport,
            "transport_schedule": self.transport_schedule,
        }


def transported_scion(
    p: Param,
    *,
    beta: float = 0.9,
    transport: float = 0.5,
    transport_schedule: TransportSchedule = "decay",
    kappa_cap: float = 1e6,
    kappa_warmup: bool = False,
    constrained: bool = False,
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: NormName = "auto",
    hidden: NormName = "spectral",
    output: NormName = "sign",
    vector: VectorName = "bias_rms",
    guard: float = 0.0,
    start: Start = "zero",
    store: Store = "displacement",
    polar: PolarMethod = "polar_express",
    polar_dtype: ProductDtype = "float32",
    polar_steps: int = 0,
) -> Transported:
    """Transported Scion: gradients ahead of X, read at X; by default plain Scion at a constant lr.

    At a constant lr the default `transport_schedule`, "decay", gives strength 0; "constant" does
    not. lr and other fields as in `scion_unconstrained`; with `constrained` as in `scion`, where X
    stays in its ball and Y may leave it. The paper's iteration is transport = 1 with the schedule
    "constant". Ours: the default strength, which grows to 0.5 as the lr decays, and the cap and the
    warm-up of kappa = beta/(1-beta). `store = "recompute"` takes a second lmo in place of a buffer.
    Raises InputError for "recompute" with `constrained`.
    Source: Zhang & Lin 2026, arXiv:2605.18528 (iteration); strength and schedule: ours.
    """
    if constrained and store == "recompute":
        raise InputError(
            "transported_scion: got store 'recompute' with constrained, "
            "allowed there: 'displacement'",
            "a constrained displacement depends on X too, so the momentum alone does not give it",
        )
    balls = Ball(input, radius_input), Ball(hidden, radius_hidden), Ball(output, radius_output)
    table = Table(*balls, vector, guard, Polar(polar, polar_dtype, polar_steps))
    scion = lmo_rule(p, table, beta, constrained, start)
    return Transported(scion, transport, transport_schedule, kappa_cap, kappa_warmup, store)
