"""Muon: orthogonalised momentum on hidden matrices, AdamW on everything else."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from hptransfer.geometry.polar import PolarMethod, ProductDtype, polar
from hptransfer.optimizers.adamw import Adam, adamw, adamw_mup, start_text
from hptransfer.optimizers.rules import (
    Stack,
    State,
    Step,
    as_matrix,
    average,
    average_,
    descend,
    from_matrix,
    gaussian,
)
from hptransfer.spec import Param

REVISION = {"muon": 3, "muon_sp": 3}
GROUPS = {"muon": {"aux.lr": "aux_lr"}, "muon_sp": {"aux.lr": "aux_lr"}}
DECAY_RATES = {
    "muon": ("beta", "aux_beta1", "aux_beta2"),
    "muon_sp": ("beta", "aux_beta1", "aux_beta2"),
}
LIMITS = {
    "beta": (0.0, 0.9999),
    "weight_decay": (0.0, 100.0),
    "polar_steps": (0, 50),
    "aux_lr": (1e-9, 64.0),
    "aux_beta1": (0.0, 0.9999),
    "aux_beta2": (0.0, 0.99999),
    "init_std": (0.0, 10.0),
}


Scaling = Literal["original", "spectral", "match_rms_adamw"]


@dataclass(frozen=True)
class Orthogonal:
    """W <- (1 - lr decay) W - lr * scale * polar(Nesterov momentum).

    A convolution is flattened to (C_out, C_in k k). Fused matrices each have their own factor.
    Source: Jordan 2024 (Muon): `buf.lerp_(g, 1 - beta)`, `g.lerp(buf, beta)`.
    """

    batched: ClassVar[bool] = True
    p: Param
    beta: float
    weight_decay: float
    scale: float
    init_std: float
    nesterov: bool
    method: PolarMethod
    dtype: ProductDtype
    steps: int

    def init_weight(self, generator: Generator) -> Tensor:
        return gaussian(self.p, self.init_std, generator)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        m = average(state["m"], g, self.beta)
        ahead = average(m, g, self.beta) if self.nesterov else m
        matrix = polar(as_matrix(self.p, ahead), self.method, self.dtype, self.steps)
        d = from_matrix(self.p, matrix)
        return descend(w, d, step.lr * self.scale, step.lr * self.weight_decay), {"m": m}

    def update_(self, g: Stack, state: State, w: Stack, step: Step) -> None:
        """`update` in place with the same bits, in about half as many passes over memory."""
        m = state["m"]
        ahead = torch.empty_like(m) if self.nesterov else None
        average_(m, g, self.beta, ahead)
        averaged = as_matrix(self.p, m if ahead is None else ahead)
        matrix = polar(averaged, self.method, self.dtype, self.steps)
        shrinkage, size = 1 - step.lr * self.weight_decay, -step.lr * self.scale
        decays = bool(shrinkage != 1)
        for own, d in zip(w, from_matrix(self.p, matrix), strict=True):
            if decays:
                own.mul_(shrinkage)
            own.addcmul_(d, size)

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr; `decay`: relative shrinkage per step."""
        return {
            "direction": "polar",
            "lr": lr * self.scale,
            "beta": self.beta,
            "nesterov": float(self.nesterov),
            "decay": lr * self.weight_decay,
            "init": start_text(self.p, self.init_std),
        }


def muon(
    p: Param,
    *,
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
) -> Orthogonal | Adam:
    """Muon on hidden matrices (their lr is tuned); muP-AdamW at a fixed lr elsewhere.

    lr: operator norm of an update of a square matrix. `scaling`: "original" is
    sqrt(max(1, d_out/d_in)), "spectral" sqrt(d_out/d_in), "match_rms_adamw" 0.2 sqrt(max(d_out,
    d_in)). `polar`: "jordan" is the published polynomial with 5 steps. `polar_steps`: 0 for the
    default number of the method. AdamW without decay moves biases and gains. `aux_lr` is the peak
    of the same schedule. Ours: muP for the auxiliary AdamW, the value of `aux_lr`, and the hidden
    init of variance 1/fan_in.
    Source: Jordan 2024 (Muon); Liu et al. 2025, arXiv:2502.16982 (match_rms_adamw).
    """
    if p.role != "hidden":
        aux = adamw_mup(p, beta1=aux_beta1, beta2=aux_beta2, weight_decay=0.0)
        return replace(aux, lr_fixed=aux_lr)
    scale, std = _scale(p, scaling), p.d_in**-0.5
    return Orthogonal(p, beta, weight_decay, scale, std, nesterov, polar, polar_dtype, polar_steps)


def muon_sp(
    p: Param,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    scaling: Scaling = "original",
    polar: PolarMethod = "polar_express",
    polar_dtype: ProductDtype = "float32",
    polar_steps: int = 0,
    aux_lr: float = 0.00390625,
    aux_beta1: float = 0.9,
    aux_beta2: float = 0.95,
    init_std: float = 0.02,
) -> Orthogonal | Adam:
    """Muon's plain recipe, a control: auxiliary AdamW and init in the standard parametrization.

    lr and fields as in `muon`. The auxiliary lr is the same at every width, so the logits drift.
    Source: Jordan 2024 (Muon); the value of the auxiliary lr is ours.
    """
    if p.role != "hidden":
        aux = adamw(p, beta1=aux_beta1, beta2=aux_beta2, weight_decay=0.0, init_std=init_std)
        return replace(aux, lr_fixed=aux_lr)
    scale = _scale(p, scaling)
    return Orthogonal(
        p, beta, weight_decay, scale, init_std, nesterov, polar, polar_dtype, polar_steps
    )


def _scale(p: Param, scaling: Scaling) -> float:
    match scaling:
        case "original":
            return math.sqrt(max(1.0, p.d_out / p.d_in))
        case "spectral":
            return math.sqrt(p.d_out / p.d_in)
        case _:
            return 0.2 * math.sqrt(max(p.d_out, p.d_in))
