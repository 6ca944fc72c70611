"""AdamW in the standard parametrization and in muP."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from hptransfer.optimizers.rules import State, Step, gaussian
from hptransfer.spec import Param

REVISION = {"adamw": 1, "adamw_mup": 1}
LIMITS = {
    "beta1": (0.0, 0.9999),
    "beta2": (0.0, 0.99999),
    "eps": (0.0, 1.0),
    "weight_decay": (0.0, 100.0),
    "init_std": (0.0, 10.0),
}


@dataclass(frozen=True)
class Adam:
    """W <- (1 - lr decay) W - lr lr_multiplier m_hat / (sqrt(v_hat) + eps), `lr` per element.

    `decay` already holds every multiplier: torch's coupled form lr * lr_multiplier * weight_decay.
    `lr_fixed` replaces the tuned lr as the peak of the same schedule.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, Alg. 2.
    """

    p: Param
    beta1: float
    beta2: float
    eps: float
    decay: float
    init_std: float
    lr_multiplier: float = 1.0
    lr_fixed: float | None = None

    def init_weight(self, generator: Generator) -> Tensor:
        return gaussian(self.p, self.init_std, generator)

    def init_state(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "v": torch.zeros_like(w)}

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        m = self.beta1 * state["m"] + (1 - self.beta1) * g
        v = self.beta2 * state["v"] + (1 - self.beta2) * g * g
        m_scale = 1 / (1 - self.beta1 ** (step.t + 1))
        v_scale = 1 / (1 - self.beta2 ** (step.t + 1))
        lr = step.lr if self.lr_fixed is None else self.lr_fixed * step.lr / step.lr_peak
        move = m * m_scale / ((v * v_scale).sqrt() + self.eps)
        return w * (1 - lr * self.decay) - lr * self.lr_multiplier * move, {"m": m, "v": v}

    def readout(self, w: Tensor, state: State) -> Tensor:
        return w


def adamw(
    p: Param,
    *,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    init_std: float = 0.02,
) -> Adam:
    """AdamW in the standard parametrization (SP): one lr, every weight N(0, 0.02^2).

    lr: change per element and step. Betas and decay as in GPT practice.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; Radford et al. 2019 (init).
    """
    return Adam(p, beta1, beta2, eps, weight_decay, init_std)


def adamw_mup(
    p: Param,
    *,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-12,
    weight_decay: float = 0.1,
    output_init: Literal["zero", "small"] = "zero",
) -> Adam:
    """AdamW in muP: hidden and output lr/m, m = fan_in / base fan_in, decay times m.

    lr: change per element and step at the base width. `output_init`: zero, or variance
    base_fan_in / fan_in^2. eps is small because it does not shrink with the gradients.
    Source: Yang et al. 2022, arXiv:2203.03466, Table 8.
    """
    fan_in, m = p.d_in, p.m
    match p.role:
        case "input" | "vector":
            std, lr_multiplier, decay_multiplier = (1.0 if p.embedding else fan_in**-0.5), 1.0, 1.0
        case "hidden":
            std, lr_multiplier, decay_multiplier = fan_in**-0.5, 1 / m, m
        case "output":
            std = 0.0 if output_init == "zero" else p.base_d_in**0.5 / fan_in
            lr_multiplier, decay_multiplier = 1 / m, m
    decay = lr_multiplier * decay_multiplier * weight_decay
    return Adam(p, beta1, beta2, eps, decay, std, lr_multiplier)
