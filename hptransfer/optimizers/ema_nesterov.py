"""EMA-Nesterov on Muon: gradients ahead of X along an average of its displacements."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from hptransfer.geometry.polar import PolarMethod, ProductDtype
from hptransfer.optimizers import rules
from hptransfer.optimizers.adamw import Adam
from hptransfer.optimizers.muon import Orthogonal, Scaling, muon
from hptransfer.optimizers.rules import State, Step, average
from hptransfer.spec import Param

REVISION = {"ema_nesterov": 1}
GROUPS = {"ema_nesterov": {"aux.lr": "aux_lr"}}
DECAY_RATES = {"ema_nesterov": ("gamma", "beta", "aux_beta1", "aux_beta2")}
LIMITS = {
    "gamma": (0.0, 0.9999),
    "lookahead": (0.0, 1.0),
    "off_first": (0, 1_000_000_000),
    "off_below": (0.0, 1.0),
    "beta": (0.0, 0.9999),
    "weight_decay": (0.0, 100.0),
    "polar_steps": (0, 50),
    "aux_lr": (1e-9, 64.0),
    "aux_beta1": (0.0, 0.9999),
    "aux_beta2": (0.0, 0.99999),
}


@dataclass(frozen=True)
class Ahead:
    """X' = A(Y) with Y = X + b D, then D <- gamma D + (1-gamma) (X' - X); the weights hold Y.

    A is a step of `inner` from Y with the gradient at Y. X' - X includes the shift b D, because X
    never moves back. b = lookahead lr/lr_peak; b is 0 before step `off_first`, while the lr rises,
    and where the lr is below `off_below` of its peak.
    Source: Yau et al. 2026, arXiv:2605.25395.
    """

    batched: ClassVar[bool] = True
    inner: Orthogonal | Adam
    gamma: float
    lookahead: float
    off_first: int
    off_below: float

    def init_weight(self, generator: Generator) -> Tensor:
        return self.inner.init_weight(generator)

    def init_state(self, w: Tensor) -> State:
        """d: D; ahead: b, so Y = X + b D; the others are those of `inner`."""
        every = tuple(range(-len(self.inner.p.shape), 0))
        ahead = torch.zeros_like(w.sum(dim=every, keepdim=True))
        return {**rules.init_state(self.inner, w), "d": torch.zeros_like(w), "ahead": ahead}

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        own = {key: value for key, value in state.items() if key not in ("d", "ahead")}
        x, own = self.inner.update(g, own, w, step)
        moved = torch.addcmul(x - w, state["d"], state["ahead"])
        d = average(state["d"], moved, self.gamma)
        ahead = torch.zeros_like(state["ahead"]) + self.strength(step)
        return torch.addcmul(x, d, ahead), {**own, "d": d, "ahead": ahead}

    def readout(self, w: Tensor, state: State) -> Tensor:
        return w - state["ahead"] * state["d"]

    def strength(self, step: Step) -> Tensor:
        """b of the next gradient; 0-d."""
        share = step.lr_next / step.lr_peak
        begun = torch.zeros_like(share) + step.t + 1 >= self.off_first
        on = begun & (step.lr_next <= step.lr) & (share >= self.off_below)
        return torch.where(on, self.lookahead * share, torch.zeros_like(share))

    def settings(self, lr: float) -> dict[str, float | str]:
        """The values of the inner rule, and those of the lookahead."""
        return {
            **self.inner.settings(lr),
            "gamma": self.gamma,
            "lookahead": self.lookahead,
            "off_first": float(self.off_first),
            "off_below": self.off_below,
        }


def ema_nesterov(
    p: Param,
    *,
    gamma: float = 0.99,
    lookahead: float = 0.6,
    off_first: int = 50,
    off_below: float = 0.25,
    beta: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    scaling: Scaling = "original",
    polar: PolarMethod = "polar_express",
    polar_dtype: ProductDtype = "float32",
    polar_steps: int = 0,
    aux_lr: float = 0.0078125,
    aux_beta1: float = 0.9,
    aux_beta2: float = 0.95,
) -> Ahead:
    """EMA-Nesterov on Muon: gradients ahead of X along an average of displacements, read at X.

    Every parameter is shifted by `lookahead` lr/lr_peak times the average, whose decay is `gamma`.
    lr and the fields from `beta` on are those of `muon`. A run of fewer than `off_first` steps is
    Muon. Gamma and lookahead are those of the record of 3,125 steps in modded-nanogpt (track 3, May
    2026), where the shift was on from step 500 until 750 before the end. Ours: `off_first` and
    `off_below`, in place of those, for runs of about 300 steps and a linear decay; no shift while
    the lr rises; the muP rows of `muon`.
    Source: Yau et al. 2026, arXiv:2605.25395; base method: Jordan 2024 (Muon).
    """
    inner = muon(
        p,
        beta=beta,
        nesterov=nesterov,
        weight_decay=weight_decay,
        scaling=scaling,
        polar=polar,
        polar_dtype=polar_dtype,
        polar_steps=polar_steps,
        aux_lr=aux_lr,
        aux_beta1=aux_beta1,
        aux_beta2=aux_beta2,
    )
    return Ahead(inner, gamma, lookahead, off_first, off_below)
