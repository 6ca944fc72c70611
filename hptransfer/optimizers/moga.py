"""MOGA: steepest descent in mean-normalised norms, row by row or column by column."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, Tensor

from hptransfer.geometry.norms import MeanNorm, colnorm, sign
from hptransfer.geometry.norms import moga_col as column_norm
from hptransfer.geometry.norms import moga_row as row_norm
from hptransfer.optimizers.adamw import mup_std, start_text
from hptransfer.optimizers.rules import (
    State,
    Step,
    as_matrix,
    average,
    descend,
    from_matrix,
    gaussian,
    matrix_shape,
)
from hptransfer.spec import Param

REVISION = {"moga_row": 1, "moga_col": 1, "moga_official": 1}
DECAY_RATES = {
    "moga_row": ("beta1", "beta2"),
    "moga_col": ("beta1", "beta2"),
    "moga_official": ("beta",),
}
LIMITS = {
    "beta": (0.0, 0.9999),
    "beta1": (0.0, 0.9999),
    "beta2": (0.0, 0.9999),
    "weight_decay": (0.0, 100.0),
    "base_factor": (1e-6, 1e6),
}


EmbeddingNorm = Literal["colnorm", "sign"]
Power = Literal["1", "1.5", "2", "3", "inf"]


@dataclass(frozen=True)
class MOGA:
    """W <- (1 - lr decay) W + lr c lmo(beta2 M + (1-beta2) G), then M <- beta1 M + (1-beta1) G.

    The look-ahead beta2 M + (1-beta2) G uses the old M; beta1 = beta2 makes it a plain average.
    c is `base_factor`.
    Source: Xu, Li, Lu 2026, arXiv:2603.09952 (update).
    """

    batched: ClassVar[bool] = True
    p: Param
    norm: MeanNorm
    direction: str
    beta1: float
    beta2: float
    weight_decay: float
    base_factor: float = 1.0

    def init_weight(self, generator: Generator) -> Tensor:
        return gaussian(self.p, self._std, generator)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        ahead = average(state["m"], g, self.beta2)
        m = average(state["m"], g, self.beta1)
        d = from_matrix(self.p, self.norm.lmo(as_matrix(self.p, ahead)))
        return descend(w, d, -step.lr * self.base_factor, step.lr * self.weight_decay), {"m": m}

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr.

        `lr` includes the base factor and the width factor of the direction. `decay`: relative
        shrinkage per step.
        """
        return {
            "direction": self.direction,
            "lr": lr * self.base_factor * self.norm.factor(matrix_shape(self.p)),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "decay": lr * self.weight_decay,
            "init": start_text(self.p, self._std),
        }

    @property
    def _std(self) -> float:
        return mup_std(self.p, "zero")


def _rule(
    param: Param,
    matrices: MeanNorm,
    direction: str,
    embedding: EmbeddingNorm,
    beta1: float,
    beta2: float,
    weight_decay: float,
) -> MOGA:
    """The norm by role. Vectors have no decay, because it would draw gains to 0."""
    if param.role == "vector":
        return MOGA(param, sign(one_hot=True), "sign", beta1, beta2, 0.0)
    if param.embedding:
        tokens = colnorm(one_hot=True) if embedding == "colnorm" else sign(one_hot=True)
        return MOGA(param, tokens, embedding, beta1, beta2, weight_decay)
    return MOGA(param, matrices, direction, beta1, beta2, weight_decay)


def moga_row(
    param: Param,
    *,
    p: Power = "2",
    embedding: EmbeddingNorm = "colnorm",
    beta1: float = 0.95,
    beta2: float = 0.9,
    weight_decay: float = 0.1,
) -> MOGA:
    """MOGA with row normalisation: (p, mean) -> (inf, mean), with a width-free lr.

    W <- W - lr d_in^(-1/p) sign(M)|M|^(p-1) / ||row||_p^(p-1), M the look-ahead average. p = 1 is
    Sign/d_in, p = 2 is RowNorm, and p = inf takes the first largest entry of every row. Embeddings:
    ColNorm or Sign; vectors: sign. lr: (p, mean) -> (inf, mean) operator norm of an update. Ours:
    beta1 and beta2 (near Muon's Nesterov momentum, 0.95 and 0.95^2), the decay (none on vectors)
    and the init (muP's, with zero output).
    Source: Xu, Li, Lu 2026, arXiv:2603.09952.
    """
    return _rule(param, row_norm(p), f"row p={p}", embedding, beta1, beta2, weight_decay)


def moga_col(
    param: Param,
    *,
    q: Literal["2", "3", "inf"] = "2",
    embedding: EmbeddingNorm = "colnorm",
    beta1: float = 0.95,
    beta2: float = 0.9,
    weight_decay: float = 0.1,
) -> MOGA:
    """MOGA with column normalisation: (1, mean) -> (q, mean), with a width-free lr.

    W <- W - lr (d_out^(1/q)/d_in) sign(M)|M|^(q*-1) / ||column||_{q*}^(q*-1), 1/q + 1/q* = 1, M the
    look-ahead average. q = 2 is ColNorm, q = inf is Sign/d_in. Embeddings: ColNorm or Sign;
    vectors: sign. lr: (1, mean) -> (q, mean) operator norm of an update. Ours: beta1 and beta2
    (near Muon's Nesterov momentum, 0.95 and 0.95^2), the decay (none on vectors) and the init
    (muP's, with zero output).
    Source: Xu, Li, Lu 2026, arXiv:2603.09952.
    """
    return _rule(param, column_norm(q), f"column q={q}", embedding, beta1, beta2, weight_decay)


def moga_official(
    param: Param,
    *,
    p: Power = "2",
    base_factor: float = 20.0,
    beta: float = 0.95,
    weight_decay: float = 0.1,
) -> MOGA:
    """MOGA with the constants of its authors' code, where no width factor scales the output layer.

    M <- beta M + (1-beta) G without Nesterov. Hidden weights: W <- W - lr base_factor d_in^(-1/p)
    row/||row||, each of fused matrices alone. Output weights: the same rows without base_factor and
    d_in^(-1/p), so the RMS -> inf norm of an update is lr sqrt(d_in) at p = 2. Embeddings and
    vectors: W <- W - lr sign(M). Decay lr weight_decay, none on vectors. lr: change per element of
    an embedding; lr base_factor is that of hidden weights in `moga_row`, which is 0.2 at the
    authors' 1e-2 for GPT-2 small. Their schedule is 10% warm-up, then a cosine down to 0.1 of the
    peak; the cosine here ends at 0. Ours: the init (muP's, with zero output), tied weights as
    output weights (their code unties them), dense inputs and convolutions as hidden weights.
    Source: Xu, Li, Lu 2026, arXiv:2603.09952; constants: the code ruihanxx/rownorm, c002d5a.
    """
    if param.role == "vector":
        return MOGA(param, sign(one_hot=True), "sign", beta, beta, 0.0)
    if param.embedding:
        return MOGA(param, sign(one_hot=True), "sign", beta, beta, weight_decay)
    direction = f"row p={p}"
    if param.role == "output":
        return MOGA(param, row_norm(p, one_hot=True), direction, beta, beta, weight_decay)
    return MOGA(param, row_norm(p), direction, beta, beta, weight_decay, base_factor)
