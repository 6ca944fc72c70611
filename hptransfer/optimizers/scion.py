"""Scion (constrained and not) and transported Scion: a table of norms by role."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from hptransfer.norms import Euclidean, Norm, Spectral, colnorm, rownorm, sign
from hptransfer.optimizers.rules import (
    Rule,
    State,
    Step,
    as_matrix,
    from_matrix,
    matrix_shape,
)
from hptransfer.spec import Param

REVISION = {"scion": 1, "scion_unconstrained": 1, "transported_scion": 1}
LIMITS = {
    "beta": (0.0, 0.9999),
    "radius_input": (1e-6, 1e6),
    "radius_hidden": (1e-6, 1e6),
    "radius_output": (1e-6, 1e6),
    "transport": (0.0, 1.0),
    "scion.log2_lr": (-30.0, 0.0),
}

NormName = Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"]
PolarName = Literal["polar_express", "jordan", "svd"]
PolarDtype = Literal["float32", "mixed"]


@dataclass(frozen=True)
class LMO:
    """d <- beta d + (1-beta) g, then X <- X + lr rho lmo(d), or X <- (1-lr) X + lr rho lmo(d).

    Source: Pethick et al. 2025, arXiv:2502.07529, Alg. 1 (unconstrained) and Alg. 2.
    """

    p: Param
    norm: Norm
    radius: float
    beta: float
    constrained: bool
    start: Literal["zero", "first"]

    def init_weight(self, generator: Generator) -> Tensor:
        """On the norm ball, times the radius; a vector starts at 0."""
        if self.p.role == "vector":
            return torch.zeros(self.p.shape, dtype=torch.float64)
        matrix = self.norm.init(matrix_shape(self.p), generator)
        return self.radius * from_matrix(self.p, matrix)

    def init_state(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w)}

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        m = self.momentum(g, state, step)
        return w + self.displacement(m, w, step), {"m": m}

    def readout(self, w: Tensor, state: State) -> Tensor:
        return w

    def momentum(self, g: Tensor, state: State, step: Step) -> Tensor:
        if step.t == 0 and self.start == "first":
            return g.clone()
        return self.beta * state["m"] + (1 - self.beta) * g

    def displacement(self, m: Tensor, x: Tensor, step: Step) -> Tensor:
        """X_{t+1} - X_t = lr rho lmo(m), minus lr X_t in the constrained form."""
        d = from_matrix(self.p, self.norm.lmo(as_matrix(self.p, m)))
        move = step.lr * self.radius * d
        return move - step.lr * x if self.constrained else move


@dataclass(frozen=True)
class Transported:
    """Scion whose gradients are taken at Y = X + s kappa (X - X_prev); the weights hold Y.

    kappa = beta/(1-beta) after a first-gradient start, beta(1-beta^t)/(1-beta) after a zero start
    with t gradients in the buffer. `decay`: s = transport (1 - lr_next/lr_peak), 0 in a warm-up.
    Source: Zhang & Lin 2026, arXiv:2605.18528 (iteration, s = 1); the start factors, the strength
    s and its schedule are ours.
    """

    scion: LMO
    transport: float
    transport_schedule: Literal["constant", "decay"]

    def init_weight(self, generator: Generator) -> Tensor:
        return self.scion.init_weight(generator)

    def init_state(self, w: Tensor) -> State:
        """m: momentum; u: last displacement of X; ahead: s kappa, so Y = X + ahead u."""
        ahead = torch.zeros_like(w.sum(dim=tuple(range(1, w.ndim)), keepdim=True))
        return {"m": torch.zeros_like(w), "u": torch.zeros_like(w), "ahead": ahead}

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        m = self.scion.momentum(g, state, step)
        u = self.scion.displacement(m, self.readout(w, state), step)
        ahead = torch.zeros_like(state["ahead"]) + self.strength(step) * self.kappa(step)
        y = w + u + (ahead * u - state["ahead"] * state["u"])
        return y, {"m": m, "u": u, "ahead": ahead}

    def readout(self, w: Tensor, state: State) -> Tensor:
        return w - state["ahead"] * state["u"]

    def kappa(self, step: Step) -> Tensor | float:
        beta = self.scion.beta
        constant = beta / (1 - beta)
        return constant if self.scion.start == "first" else constant * (1 - beta ** (step.t + 1))

    def strength(self, step: Step) -> Tensor | float:
        if self.transport_schedule == "constant":
            return self.transport
        decayed = self.transport * (1 - step.lr_next / step.lr_peak)
        return torch.where(step.lr_next > step.lr, torch.zeros_like(decayed), decayed)


def _norm(p: Param, name: NormName, polar: PolarName, dtype: PolarDtype) -> Norm:
    one_hot = p.embedding or p.role == "vector"
    dense_input = p.role == "input" and not p.embedding
    match name:
        case "colnorm":
            return colnorm(one_hot)
        case "rownorm":
            return rownorm(one_hot)
        case "sign":
            return sign(one_hot)
        case "spectral":
            return Spectral(p.embedding, dense_input, polar, dtype)
        case "euclidean":
            return Euclidean()
        case "auto":
            if p.embedding:
                return colnorm(one_hot=True)
            return Spectral(False, dense_input, polar, dtype)


def _lmo(
    p: Param,
    by_role: dict[str, tuple[NormName, float]],
    beta: float,
    constrained: bool,
    start: Literal["zero", "first"],
    polar: PolarName,
    dtype: PolarDtype,
) -> LMO:
    name, radius = by_role[p.role]
    return LMO(p, _norm(p, name, polar, dtype), radius, beta, constrained, start)


def scion(
    p: Param,
    *,
    beta: float = 0.9,
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "auto",
    hidden: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "spectral",
    output: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "sign",
    start: Literal["zero", "first"] = "zero",
    polar: Literal["polar_express", "jordan", "svd"] = "polar_express",
    polar_dtype: Literal["float32", "mixed"] = "mixed",
) -> Rule:
    """Constrained Scion: every layer stays in a norm ball, lr is the step of the combination.

    lr: fraction of the way to the ball's boundary, at most 1. Norms and radii (1, 3, 10) as for the
    paper's shallow GPT; `auto` is ColNorm for an embedding, Spectral with max(1, .) for a dense
    input. Vectors move in the RMS norm with the hidden radius.
    Source: Pethick et al. 2025, arXiv:2502.07529, Alg. 2, Rec. 3.1; code LIONS-EPFL/scion.
    """
    by_role = _roles((input, radius_input), (hidden, radius_hidden), (output, radius_output))
    return _lmo(p, by_role, beta, True, start, polar, polar_dtype)


def scion_unconstrained(
    p: Param,
    *,
    beta: float = 0.9,
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "auto",
    hidden: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "spectral",
    output: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "sign",
    start: Literal["zero", "first"] = "zero",
    polar: Literal["polar_express", "jordan", "svd"] = "polar_express",
    polar_dtype: Literal["float32", "mixed"] = "mixed",
) -> Rule:
    """Unconstrained Scion: W <- W + lr rho lmo(momentum), a norm for every role.

    lr: operator norm (RMS -> RMS on hidden matrices) per update at radius 1.
    Source: Pethick et al. 2025, arXiv:2502.07529, Alg. 1, Rec. 3.1; code LIONS-EPFL/scion.
    """
    by_role = _roles((input, radius_input), (hidden, radius_hidden), (output, radius_output))
    return _lmo(p, by_role, beta, False, start, polar, polar_dtype)


def transported_scion(
    p: Param,
    *,
    beta: float = 0.9,
    transport: float = 0.5,
    transport_schedule: Literal["constant", "decay"] = "decay",
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "auto",
    hidden: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "spectral",
    output: Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"] = "sign",
    start: Literal["zero", "first"] = "first",
    polar: Literal["polar_express", "jordan", "svd"] = "polar_express",
    polar_dtype: Literal["float32", "mixed"] = "mixed",
) -> Rule:
    """Transported Scion, unconstrained: gradients at a point ahead of X, evaluated at X.

    lr as in `scion_unconstrained`. The paper's iteration is transport = 1 with the constant
    schedule; the default strength, 0.5 growing as the lr decays, is ours.
    Source: Zhang & Lin 2026, arXiv:2605.18528 (iteration); strength and schedule: ours.
    """
    by_role = _roles((input, radius_input), (hidden, radius_hidden), (output, radius_output))
    rule = _lmo(p, by_role, beta, False, start, polar, polar_dtype)
    return Transported(rule, transport, transport_schedule)


def _roles(
    input: tuple[NormName, float], hidden: tuple[NormName, float], output: tuple[NormName, float]
) -> dict[str, tuple[NormName, float]]:
    """The table by role; a vector's RMS ball is ColNorm of a (d, 1) matrix."""
    return {
        "input": input,
        "hidden": hidden,
        "output": output,
        "vector": ("colnorm", hidden[1]),
    }
