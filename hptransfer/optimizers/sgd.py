"""SGD, normalised SGD and SignSGD, each with momentum."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from hptransfer.geometry.norms import Euclidean
from hptransfer.optimizers.adamw import start_text
from hptransfer.optimizers.rules import (
    State,
    Step,
    as_matrix,
    average,
    descend,
    from_matrix,
    gaussian,
)
from hptransfer.spec import Param

REVISION = {"sgd": 1, "nsgd": 1, "signsgd": 1}
DECAY_RATES = {"sgd": ("momentum",), "nsgd": ("beta",), "signsgd": ("beta",)}
LIMITS = {"momentum": (0.0, 0.9999), "beta": (0.0, 0.9999), "weight_decay": (0.0, 100.0)}


@dataclass(frozen=True)
class Momentum:
    """b <- momentum b + g + decay W, W <- W - lr b (Nesterov: g + decay W + momentum b).

    As in torch.optim.SGD the decay is a part of the gradient, so the momentum averages it too.
    Source: Polyak 1964; Sutskever et al. 2013.
    """

    batched: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    p: Param
    momentum: float
    nesterov: bool
    weight_decay: float

    def init_weight(self, generator: Generator) -> Tensor:
        return gaussian(self.p, _std(self.p), generator)

    def init_state(self, w: Tensor) -> State:
        return {"b": torch.zeros_like(w)}

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        g = g + self.weight_decay * w
        b = self.momentum * state["b"] + g
        move = g + self.momentum * b if self.nesterov else b
        return w - step.lr * move, {"b": b}

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr; `l2`: the decay inside the gradient."""
        return {
            "direction": "gradient",
            "lr": lr,
            "momentum": self.momentum,
            "nesterov": float(self.nesterov),
            "decay": 0.0,
            "l2": self.weight_decay,
            "init": start_text(self.p, _std(self.p)),
        }


@dataclass(frozen=True)
class Normalised:
    """m <- beta m + (1-beta) g, W <- (1 - lr decay) W - lr D(m), D = m/||m||_F or sign(m).

    Source: Cutkosky & Mehta 2020, arXiv:2002.03305; Bernstein et al. 2018, arXiv:1802.04434.
    """

    batched: ClassVar[bool] = True
    p: Param
    by: Literal["frobenius", "sign"]
    beta: float
    weight_decay: float

    @property
    def elementwise(self) -> bool:
        return self.by == "sign"

    def init_weight(self, generator: Generator) -> Tensor:
        return gaussian(self.p, _std(self.p), generator)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        m = average(state["m"], g, self.beta)
        if self.by == "sign":
            d = m.sign()
        else:
            d = -from_matrix(self.p, Euclidean().lmo(as_matrix(self.p, m)))
        return descend(w, d, step.lr, step.lr * self.weight_decay), {"m": m}

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr; `decay`: relative shrinkage per step."""
        return {
            "direction": self.by,
            "lr": lr,
            "beta": self.beta,
            "decay": lr * self.weight_decay,
            "init": start_text(self.p, _std(self.p)),
        }


def _std(p: Param) -> float:
    """Standard deviation of the init (ours): fan_in^(-1/2), and 1 for one-hot input."""
    return 1.0 if p.embedding else p.d_in**-0.5


def sgd(
    p: Param, *, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
) -> Momentum:
    """SGD with momentum, as torch.optim.SGD: no damping, coupled weight decay.

    lr: step along the sum of past gradients, so for a constant gradient it acts like
    lr / (1 - momentum). Ours: the init, N(0, 1/fan_in), and momentum 0.9 (torch's default is 0).
    Source: Polyak 1964; Sutskever et al. 2013 (Nesterov's form).
    """
    return Momentum(p, momentum, nesterov, weight_decay)


def nsgd(p: Param, *, beta: float = 0.9, weight_decay: float = 0.0) -> Normalised:
    """Normalised SGD with momentum, layer by layer: W <- W - lr m / ||m||_F.

    lr: Frobenius norm of an update. Ours: each parameter, and each of several fused matrices, is
    divided by its own norm, where the paper divides by the norm of the whole gradient; the init,
    N(0, 1/fan_in); the decoupled decay.
    Source: Cutkosky & Mehta 2020, arXiv:2002.03305, Alg. 1.
    """
    return Normalised(p, "frobenius", beta, weight_decay)


def signsgd(p: Param, *, beta: float = 0.9, weight_decay: float = 0.0) -> Normalised:
    """SignSGD with momentum (Signum): W <- W - lr sign(m).

    lr: change per element and step. beta = 0 is SignSGD. The init, N(0, 1/fan_in), is ours.
    Source: Bernstein et al. 2018, arXiv:1802.04434, Alg. 2.
    """
    return Normalised(p, "sign", beta, weight_decay)
