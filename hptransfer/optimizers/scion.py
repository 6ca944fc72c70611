"""Scion, constrained, unconstrained and without a momentum buffer: a norm for every role."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Generator, Tensor

from hptransfer.geometry.norms import Euclidean, MeanNorm, Norm, Spectral, colnorm, rownorm, sign
from hptransfer.geometry.polar import PolarMethod, ProductDtype
from hptransfer.optimizers.rules import (
    Stack,
    State,
    Step,
    add_,
    as_matrix,
    average,
    average_,
    from_matrix,
    matrix_shape,
    vector_start,
)
from hptransfer.spec import Param

REVISION = {"scion": 3, "scion_unconstrained": 3, "scion_light": 3}
RADII = {
    "input.radius": "radius_input",
    "hidden.radius": "radius_hidden",
    "output.radius": "radius_output",
}
GROUPS = {"scion": RADII, "scion_unconstrained": RADII, "scion_light": RADII}
DECAY_RATES = {"scion": ("beta",), "scion_unconstrained": ("beta",), "scion_light": ("beta",)}
LIMITS = {
    "beta": (0.0, 0.9999),
    "radius_input": (1e-6, 1e6),
    "radius_hidden": (1e-6, 1e6),
    "radius_output": (1e-6, 1e6),
    "guard": (0.0, 1.0),
    "polar_steps": (0, 50),
    "scion.log2_lr": (-30.0, 0.0),
    "scion_light.constrained.log2_lr": (-30.0, 0.0),
    "scion_light.clip": (0.0, 0.0),
}

NormName = Literal["auto", "colnorm", "rownorm", "sign", "spectral", "euclidean"]
VectorName = Literal["bias_rms", "sign"]
Start = Literal["zero", "first"]


class Polar(NamedTuple):
    """How to compute polar factors; 0 steps: the default number of the method."""

    method: PolarMethod
    dtype: ProductDtype
    steps: int


class Ball(NamedTuple):
    """Norm and radius of the ball of a role."""

    norm: NormName
    radius: float


@dataclass(frozen=True)
class Table:
    """The balls by role.

    `vector`: the norm of biases and gains, at the hidden radius. `guard`: that of `MeanNorm`, for
    embeddings alone.
    """

    input: Ball
    hidden: Ball
    output: Ball
    vector: VectorName
    guard: float
    polar: Polar

    def radius(self, p: Param) -> float:
        """Radius of the ball of a parameter."""
        return (self.hidden if p.role == "vector" else self._ball(p)).radius

    def norm(self, p: Param) -> Norm:
        """Norm of a parameter, on the matrices of `as_matrix`."""
        if p.role == "vector":
            return colnorm(one_hot=True) if self.vector == "bias_rms" else sign(one_hot=True)
        guard = self.guard if p.embedding else 0.0
        match self._ball(p).norm:
            case "euclidean":
                return Euclidean()
            case "rownorm":
                return rownorm(p.embedding, guard)
            case "sign":
                return sign(p.embedding, guard)
            case "colnorm":
                return colnorm(p.embedding, guard)
            case "auto" if p.embedding:
                return colnorm(one_hot=True, guard=guard)
            case _:
                return self._spectral(p)

    def _ball(self, p: Param) -> Ball:
        return {"input": self.input, "hidden": self.hidden, "output": self.output}[p.role]

    def _spectral(self, p: Param) -> Spectral:
        # The published factor max(1, .) is for the first layer of an MLP, not for a convolution.
        dense_input = p.role == "input" and not p.embedding and not p.conv
        method, dtype, steps = self.polar
        return Spectral(p.embedding, dense_input, method, dtype, taps=p.taps, steps=steps)


@dataclass(frozen=True)
class LMO:
    """d <- beta d + (1-beta) g, then X <- X + lr rho lmo(d), or X <- (1-lr) X + lr rho lmo(d).

    Source: Pethick et al. 2025, arXiv:2502.07529, Alg. 1 (unconstrained) and Alg. 2.
    """

    batched: ClassVar[bool] = True
    p: Param
    norm: Norm
    radius: float
    beta: float
    constrained: bool
    start: Start

    def init_weight(self, generator: Generator) -> Tensor:
        """A matrix of norm `radius`, float64; a bias starts at 0, a gain at 1."""
        if self.p.role == "vector":
            return vector_start(self.p)
        matrix = self.norm.init(matrix_shape(self.p), generator)
        return self.radius * from_matrix(self.p, matrix)

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        m = self.momentum(g, state, step)
        return w + self.displacement(m, w, step), {"m": m}

    def update_(self, g: Stack, state: State, w: Stack, step: Step) -> None:
        """`update` in place with the same bits, in about half as many passes over memory."""
        self.momentum_(g, state, step)
        moves = self.free_(state["m"], step.lr)
        if self.constrained:
            for own, move in zip(w, moves, strict=True):
                move.sub_(step.lr * own)
        add_(w, moves)

    def momentum(self, g: Tensor, state: State, step: Step) -> Tensor:
        """The average d after this gradient."""
        if step.first and self.start == "first":
            return g.clone()
        return average(state["m"], g, self.beta)

    def momentum_(self, g: Stack, state: State, step: Step) -> None:
        """`momentum`, written into the state."""
        if step.first and self.start == "first":
            for m, first in zip(state["m"], g, strict=True):
                m.copy_(first)
        else:
            average_(state["m"], g, self.beta)

    def displacement(self, m: Tensor, x: Tensor, step: Step) -> Tensor:
        """X_{t+1} - X_t = lr rho lmo(m), minus lr X_t in the constrained form."""
        move = self.free(m, step.lr)
        return move - step.lr * x if self.constrained else move

    def free(self, m: Tensor, lr: Tensor) -> Tensor:
        """lr rho lmo(m)."""
        return lr * self.radius * from_matrix(self.p, self.norm.lmo(as_matrix(self.p, m)))

    def free_(self, m: Tensor, lr: Tensor) -> Tensor:
        """`free` of one lane, written into the memory of lmo(m)."""
        return from_matrix(self.p, self.norm.lmo(as_matrix(self.p, m))).mul_(lr * self.radius)

    def settings(self, lr: float) -> dict[str, float | str]:
        """Values for another framework at the peak lr.

        `lr` includes the radius and the width factor. `decay`: relative shrinkage per step.
        """
        direction, factor = self._direction()
        return {
            "direction": direction,
            "lr": lr * self.radius * factor,
            "beta": self.beta,
            "decay": lr if self.constrained else 0.0,
            "init": self._start_text(direction, self.radius * factor),
        }

    def _direction(self) -> tuple[str, float]:
        """Name and width factor of the direction.

        Without the factor its entries, rows, columns or singular values have size 1.
        """
        if isinstance(self.norm, Euclidean):
            return "frobenius", 1.0
        assert isinstance(self.norm, Spectral | MeanNorm)
        factor = self.norm.factor(matrix_shape(self.p))
        if isinstance(self.norm, Spectral):
            return "polar", factor
        if self.norm.exponent == 1:
            return "sign", factor
        if self.p.role == "vector":
            return "rms", 1.0
        return ("rownorm" if self.norm.along == "row" else "colnorm"), factor

    def _start_text(self, direction: str, size: float) -> str:
        if self.p.role == "vector":
            return "ones" if self.p.gain else "zeros"
        kinds = {
            "polar": "semi-orthogonal taps" if self.p.conv else "semi-orthogonal",
            "sign": "random signs",
            "colnorm": "normal with columns of norm",
            "rownorm": "normal with rows of norm",
            "frobenius": "normal with norm",
        }
        return f"{kinds[direction]} {size:.6g}"


@dataclass(frozen=True)
class Light:
    """Scion with the unnormalised average G in the gradient buffer, and no other state.

    G <- G + g by backpropagation, X <- X + lr rho lmo(G) (or the constrained form), G <- beta G.
    The lmo is scale invariant, so this equals Scion with a zero start.
    Source: Pethick et al. 2025, arXiv:2502.07529 (ScionLight); code LIONS-EPFL/scion.
    """

    batched: ClassVar[bool] = True
    scion: LMO

    def init_weight(self, generator: Generator) -> Tensor:
        return self.scion.init_weight(generator)

    def init_state(self, w: Tensor) -> State:
        return {}

    def update(self, g: Tensor, state: State, w: Tensor, step: Step) -> tuple[Tensor, State]:
        """`g`: the gradient buffer, which includes the gradient of this step."""
        return w + self.scion.displacement(g, w, step), {"gradient": self.scion.beta * g}

    def settings(self, lr: float) -> dict[str, float | str]:
        """The values of `LMO.settings`."""
        return self.scion.settings(lr)


def lmo_rule(p: Param, table: Table, beta: float, constrained: bool, start: Start) -> LMO:
    """The rule of a parameter.

    A gain always takes the unconstrained step, because the constrained one would draw it to 0.
    """
    return LMO(p, table.norm(p), table.radius(p), beta, constrained and not p.gain, start)


def scion(
    p: Param,
    *,
    beta: float = 0.9,
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: NormName = "auto",
    hidden: NormName = "spectral",
    output: NormName = "sign",
    vector: VectorName = "bias_rms",
    guard: float = 0.0,
    start: Start = "zero",
    polar: PolarMethod = "polar_express",
    polar_dtype: ProductDtype = "float32",
    polar_steps: int = 0,
) -> LMO:
    """Constrained Scion: every layer stays in a norm ball, lr is the weight of the new direction.

    W <- (1 - lr) W + lr rho lmo(momentum), so lr <= 1. Norms and radii (1, 3, 10) are those of the
    paper's shallow GPT. "auto": ColNorm for an embedding, Spectral with max(1, .) for a dense
    input, Spectral elsewhere. `vector`: RMS norm or signs, at the hidden radius; a gain takes the
    unconstrained step (ours). `guard`: a token stays where its momentum is below this fraction of
    the largest token's (ours; 0: only at exact zeros). The published polar factor is "jordan".
    Source: Pethick et al. 2025, arXiv:2502.07529, Alg. 2, Rec. 3.1; code LIONS-EPFL/scion.
    """
    balls = Ball(input, radius_input), Ball(hidden, radius_hidden), Ball(output, radius_output)
    table = Table(*balls, vector, guard, Polar(polar, polar_dtype, polar_steps))
    return lmo_rule(p, table, beta, True, start)


def scion_unconstrained(
    p: Param,
    *,
    beta: float = 0.9,
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: NormName = "auto",
    hidden: NormName = "spectral",
    output: NormName = "sign",
    vector: VectorName = "bias_rms",
    guard: float = 0.0,
    start: Start = "zero",
    polar: PolarMethod = "polar_express",
    polar_dtype: ProductDtype = "float32",
    polar_steps: int = 0,
) -> LMO:
    """Unconstrained Scion: W <- W + lr rho lmo(momentum), a norm for every role.

    lr: norm of an update at radius 1 (RMS -> RMS on hidden matrices). Fields as in `scion`.
    Source: Pethick et al. 2025, arXiv:2502.07529, Alg. 1, Rec. 3.1; code LIONS-EPFL/scion.
    """
    balls = Ball(input, radius_input), Ball(hidden, radius_hidden), Ball(output, radius_output)
    table = Table(*balls, vector, guard, Polar(polar, polar_dtype, polar_steps))
    return lmo_rule(p, table, beta, False, start)


def scion_light(
    p: Param,
    *,
    beta: float = 0.9,
    constrained: bool = False,
    radius_input: float = 1.0,
    radius_hidden: float = 3.0,
    radius_output: float = 10.0,
    input: NormName = "auto",
    hidden: NormName = "spectral",
    output: NormName = "sign",
    vector: VectorName = "bias_rms",
    guard: float = 0.0,
    polar: PolarMethod = "polar_express",
    polar_dtype: ProductDtype = "float32",
    polar_steps: int = 0,
) -> Light:
    """ScionLight: Scion with its momentum in the gradient buffer and no other state.

    lr and fields as in `scion_unconstrained`; with `constrained` as in `scion`. The training loop
    must neither clear nor clip the gradients between steps.
    Source: Pethick et al. 2025, arXiv:2502.07529; code LIONS-EPFL/scion (ScionLight).
    """
    balls = Ball(input, radius_input), Ball(hidden, radius_hidden), Ball(output, radius_output)
    table = Table(*balls, vector, guard, Polar(polar, polar_dtype, polar_steps))
    return Light(lmo_rule(p, table, beta, constrained, "zero"))
