"""AdamW in the standard parametrization, with a scaled embedding lr, and in muP."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.optim.adamw import adamw as adamw_step

from hptransfer.optimizers.rules import Stack, State, Step, average, descend, gaussian
from hptransfer.spec import Param

REVISION = {"adamw": 1, "adamw_emb": 1, "adamw_mup": 2}
GROUPS = {"adamw_emb": {"embedding.lr_ratio": "embedding_lr_ratio"}}
DECAY_RATES = {
    "adamw": ("beta1", "beta2"),
    "adamw_emb": ("beta1", "beta2"),
    "adamw_mup": ("beta1", "beta2"),
}
LIMITS = {
    "embedding_lr_ratio": (1e-6, 1e6),
    "beta1": (0.0, 0.9999),
    "beta2": (0.0, 0.99999),
    "eps": (0.0, 1.0),
    "weight_decay": (0.0, 100.0),
    "init_std": (0.0, 10.0),
}


OutputInit = Literal["zero", "small"]


@dataclass(frozen=True)
class Adam:
    """W <- (1 - lr decay) W - lr lr_multiplier m_hat / (sqrt(v_hat) + eps), `lr` per element.

    `decay` includes all multipliers; in torch's form of the decay it is lr_multiplier times the
    group's weight_decay. `lr_fixed` replaces the tuned lr as the peak of the same schedule.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, Alg. 2.
    """

    batched: ClassVar[bool] = True
    fused: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
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
        m = average(state["m"], g, self.beta1)
        v = average(state["v"], g * g, self.beta2)
        lr = self._lr(step)
        # m_hat / (sqrt(v_hat) + eps); scalars take the bias corrections and save passes over memory
        root = (1 - self.beta2 ** (step.t + 1)) ** 0.5
        d = m / v.sqrt().add_(self.eps * root)
        size = lr * self.lr_multiplier * root / (1 - self.beta1 ** (step.t + 1))
        return descend(w, d, size, lr * self.decay), {"m": m, "v": v}

    def update_(self, g: Stack, state: State, w: Stack, step: Step) -> None:
        """`update` in place: torch's fused kernel passes over memory once."""
        lr = self._lr(step) * self.lr_multiplier
        seen = torch.zeros((), device=w[0].device) + step.t  # for a GPU no copy from the CPU
        adamw_step(
            *(list(w), list(g), list(state["m"]), list(state["v"]), []),
            [seen.clone() for _ in w],  # which the kernel counts up
            fused=True,
            amsgrad=False,
            beta1=float(self.beta1),
            beta2=float(self.beta2),
            lr=float(lr) if lr.device.type == "cpu" else lr.float(),  # no wait for a GPU
            weight_decay=float(self.decay) / float(self.lr_multiplier),
            eps=float(self.eps),
            maximize=False,
        )

    def _lr(self, step: Step) -> Tensor:
        if self.lr_fixed is None:
            return step.lr
        return self.lr_fixed * step.lr / step.lr_peak

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr; `decay`: relative shrinkage per step."""
        peak = lr if self.lr_fixed is None else self.lr_fixed
        return {
            "direction": "adam",
            "lr": peak * self.lr_multiplier,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "eps": self.eps,
            "decay": peak * self.decay,
            "init": start_text(self.p, self.init_std),
        }


def start_text(p: Param, std: float) -> str:
    """The init of `gaussian(p, std, ...)` in words."""
    if p.role == "vector":
        return "ones" if p.gain else "zeros"
    return f"normal {std:.6g}" if std else "zeros"


def mup_std(p: Param, output_init: OutputInit) -> float:
    """Standard deviation of muP's init: 1 for one-hot input, else 1/sqrt(fan_in).

    Output weights: 0, or sqrt(base fan_in)/fan_in. A tied weight counts as the output layer's and
    starts small, because at zero all tokens would have the same embedding; that is ours.
    Source: Yang et al. 2022, arXiv:2203.03466, Table 8.
    """
    match p.role:
        case "output":
            zero = output_init == "zero" and not p.tied
            return 0.0 if zero else p.base_d_in**0.5 / p.d_in
        case "input" if p.embedding:
            return 1.0
        case _:
            return p.d_in**-0.5


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

    lr: change per element and step. Betas and decay follow GPT practice. Gains start at 1.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; Radford et al. 2019 (init).
    """
    return Adam(p, beta1, beta2, eps, weight_decay, init_std)


def adamw_emb(
    p: Param,
    *,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    init_std: float = 0.02,
    embedding_lr_ratio: float = 1.0,
) -> Adam:
    """AdamW (SP) with the embedding's lr times the width multiplier d / base d.

    lr: change per element and step; `embedding_lr_ratio` times that for embeddings at the base
    width (ours; 1 is the source's). A tied embedding is an output layer and keeps the lr. Ours:
    lr * decay of an embedding and eps are those of `adamw`, so that the two optimizers differ in
    this lr alone.
    Source: arXiv:2605.21486 (most of muP's gain over SP lies in the embedding's lr).
    """
    lr_multiplier = embedding_lr_ratio * p.m_out if p.embedding else 1.0
    return Adam(p, beta1, beta2, eps, weight_decay, init_std, lr_multiplier)


def adamw_mup(
    p: Param,
    *,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-12,
    weight_decay: float = 0.1,
    output_init: OutputInit = "zero",
) -> Adam:
    """AdamW in muP: hidden and output lr/m, m = fan_in / base fan_in, decay times m.

    lr: change per element and step at the base width. `output_init`: zero, or variance
    base_fan_in / fan_in^2; a tied weight always takes the latter (ours). Gradients shrink with the
    width and eps does not, so eps is small. For hidden weights it is divided by m and by the depth
    over the base depth.
    Source: Yang et al. 2022, arXiv:2203.03466, Table 8; eps: Dey et al. 2025, arXiv:2505.01618.
    """
    match p.role:
        case "input" | "vector":
            lr_multiplier, decay_multiplier = 1.0, 1.0
        case "hidden":
            lr_multiplier, decay_multiplier = 1 / p.m, p.m
            eps = eps / (p.m * p.depth_m)
        case "output":
            lr_multiplier, decay_multiplier = 1 / p.m, p.m
    decay = lr_multiplier * decay_multiplier * weight_decay
    return Adam(p, beta1, beta2, eps, decay, mup_std(p, output_init), lr_multiplier)
