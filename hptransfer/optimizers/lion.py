"""Lion: the sign of an interpolation between the gradient and its average."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from hptransfer.optimizers.adamw import start_text
from hptransfer.optimizers.rules import State, Step, average, descend, gaussian
from hptransfer.spec import Param

REVISION = {"lion": 1}
DECAY_RATES = {"lion": ("beta1", "beta2")}
LIMITS = {
    "beta1": (0.0, 0.9999),
    "beta2": (0.0, 0.9999),
    "weight_decay": (0.0, 100.0),
    "init_std": (0.0, 10.0),
}


@dataclass(frozen=True)
class Lion:
    """W <- (1 - lr decay) W - lr sign(beta1 m + (1-beta1) g), then m <- beta2 m + (1-beta2) g.

    Source: Chen et al. 2023, arXiv:2302.06675, Alg. 2.
    """

    batched: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    p: Param
    beta1: float
    beta2: float
    weight_decay: float
    init_std: float

    def init_weight(self, generator: Generator) -> Tensor:
        return gaussian(self.p, self.init_std, generator)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        d = average(state["m"], g, self.beta1).sign()
        m = average(state["m"], g, self.beta2)
        return descend(w, d, step.lr, step.lr * self.weight_decay), {"m": m}

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr; `decay`: relative shrinkage per step."""
        return {
            "direction": "sign",
            "lr": lr,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "decay": lr * self.weight_decay,
            "init": start_text(self.p, self.init_std),
        }


def lion(
    p: Param,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
    init_std: float = 0.02,
) -> Lion:
    """Lion in the standard parametrization: sign updates, decoupled decay.

    lr: change per element and step. Betas and decay are the defaults of the published code. The
    init, N(0, 0.02^2), follows GPT practice.
    Source: Chen et al. 2023, arXiv:2302.06675, Alg. 2.
    """
    return Lion(p, beta1, beta2, weight_decay, init_std)
