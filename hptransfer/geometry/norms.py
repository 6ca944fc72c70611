"""Norms on weights, their duals, steepest directions (lmo) and unit-norm inits.

W is (d_out, d_in), batched over leading dimensions; a vector of size d is (d, 1). For every norm
here `lmo(g)` minimises <g, D> over ||D|| <= 1: `||lmo(g)|| = 1` and `<g, -lmo(g)> = dual(g)`.
The lmo of an all-zero g is exactly zero; for entrywise norms, that of an all-zero row or column.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from hptransfer.errors import InputError
from hptransfer.geometry.polar import Matrix, PolarDtype, PolarMethod, divide, polar

__all__ = [
    "MOGA_P",
    "MOGA_Q",
    "Euclidean",
    "MeanNorm",
    "Norm",
    "Spectral",
    "bias_rms",
    "colnorm",
    "moga_col",
    "moga_row",
    "rownorm",
    "sign",
]

Scalar = Float[Tensor, "*batch"]

MOGA_P = (1.0, 1.5, 2.0, 3.0, math.inf)
"""The p of (p, mean) -> inf that MOGA's theorems cover."""

MOGA_Q = (2.0, 3.0, math.inf)
"""The q of (1, mean) -> (q, mean) that MOGA's theorems cover."""


_factorised_on = torch.device("cpu")
_one_at_a_time = threading.Lock()  # torch fails where several threads load its CUDA solvers at once


@contextlib.contextmanager
def factorised_on(device: torch.device) -> Iterator[None]:
    """Inits in this block run their QR on `device`, in float64; the CPU draws their numbers.

    On a CPU the QR of a wide matrix takes longer than many training steps take a GPU.
    """
    global _factorised_on
    before, _factorised_on = _factorised_on, device
    try:
        yield
    finally:
        _factorised_on = before


@runtime_checkable
class Norm(Protocol):
    """A norm on (d_out, d_in) matrices; the methods take batches of them, (*batch, d_out, d_in)."""

    def norm(self, w: Matrix) -> Scalar:
        """||w||, one number per matrix."""
        ...

    def dual(self, g: Matrix) -> Scalar:
        """The largest <g, D> over ||D|| <= 1, one number per matrix."""
        ...

    def lmo(self, g: Matrix) -> Matrix:
        """The D of norm 1 with the least <g, D>: minus the steepest direction."""
        ...

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """A random matrix of norm 1, float64."""
        ...


@dataclass(frozen=True)
class Spectral:
    """RMS -> RMS operator norm: `sqrt(d_in/d_out) ||W||_op`; lmo `-sqrt(d_out/d_in) U V^T`.

    `one_hot`: one-hot input has 2-norm 1, so the factor is sqrt(d_out). `dense_input`: a first
    layer of fixed input dimension has the factor max(1, sqrt(d_out/d_in)). `taps`: a convolution is
    flattened to (C_out, C_in taps), taps = k in one dimension and k^2 in two, and has the factor
    sqrt(C_out/C_in)/taps. `method`, `dtype` and `steps` are arguments of `polar`.
    Source: Pethick et al. 2025, arXiv:2502.07529, Tables 2 to 4; code LIONS-EPFL/scion (taps).
    """

    one_hot: bool = False
    dense_input: bool = False
    method: PolarMethod = "polar_express"
    dtype: PolarDtype = "float32"
    taps: int = 1
    steps: int = 0

    def factor(self, shape: tuple[int, ...]) -> float:
        """Singular value of an lmo of shape (..., d_out, d_in)."""
        d_out, d_in = shape[-2:]
        factor = math.sqrt(d_out if self.one_hot else d_out * self.taps / d_in)
        return (max(1.0, factor) if self.dense_input else factor) / self.taps

    def norm(self, w: Matrix) -> Scalar:
        return torch.linalg.matrix_norm(w, ord=2) / self.factor(w.shape)

    def dual(self, g: Matrix) -> Scalar:
        return self.factor(g.shape) * torch.linalg.matrix_norm(g, ord="nuc")

    def lmo(self, g: Matrix) -> Matrix:
        return polar(g, self.method, self.dtype, self.steps).mul_(-self.factor(g.shape))

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """A random semi-orthogonal matrix times the factor, float64: all singular values are equal.

        Every tap of a convolution is such a matrix, as published. Flattened, with the tap index
        fastest, the convolution has a norm between 1 and sqrt(taps), up to k for a k x k kernel. So
        it may start outside the ball; constrained iterates then keep
        `||X_t|| <= max(||X_0||, rho)`.
        """
        *lead, d_out, d_in = shape
        c_in = d_in // self.taps
        size = (*lead, self.taps, d_out, c_in)
        gaussian = torch.randn(size, generator=generator, dtype=torch.float64)
        with _one_at_a_time:
            gaussian = gaussian.to(_factorised_on)
            q, r = torch.linalg.qr(gaussian if d_out >= c_in else gaussian.mT)
        q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign().unsqueeze(-2)
        taps = q if d_out >= c_in else q.mT
        return self.factor(shape) * taps.movedim(-3, -1).flatten(-2)


@dataclass(frozen=True)
class MeanNorm:
    """Mean-normalised norms with a closed lmo: each row or column becomes a unit vector.

    `along = "row"`: (p, mean) -> inf, `||W|| = d_in^(1/p) max_i ||row_i||_{p*}`,
    lmo `-d_in^(-1/p) sign(g)|g|^(p-1) / ||row||_p^(p-1)` with exponent = p.
    `along = "column"`: (1, mean) -> (q, mean), `||W|| = d_in d_out^(-1/q) max_j ||col_j||_q`,
    lmo `-(d_out^(1/q)/d_in) sign(g)|g|^(q*-1) / ||col||_{q*}^(q*-1)` with exponent = q*.
    Exponent inf is the limit: per row or column one entry, the sign of the first largest one.
    `one_hot` leaves out d_in, because the input picks one column. Sign has exponent 1, ColNorm and
    RowNorm have exponent 2.

    `guard`: a column (an embedding's token) whose 2-norm is below guard times that of the largest
    column gets exactly zero; the others get the lmo without it. An unseen token has a momentum that
    decays towards 0, and without a guard it takes full steps until the momentum underflows. With a
    guard it stops after about ln(guard)/ln(beta) steps. A token whose gradients are always below
    the guard never moves. The guard is ours.
    Source: Pethick et al. 2025, arXiv:2502.07529, Table 6; Xu, Li, Lu 2026, arXiv:2603.09952.
    """

    along: Literal["row", "column"]
    exponent: float
    one_hot: bool = False
    guard: float | Tensor = 0.0  # a 0-d tensor where lanes differ in it

    @property
    def _dim(self) -> int:
        return -1 if self.along == "row" else -2

    @property
    def _conjugate(self) -> float:
        if self.exponent in (1, math.inf):
            return math.inf if self.exponent == 1 else 1.0
        return self.exponent / (self.exponent - 1)

    def factor(self, shape: tuple[int, ...]) -> float:
        """Conjugate norm of each row or column of an lmo of shape (..., d_out, d_in)."""
        d_out, d_in = shape[-2:]
        d_in = 1 if self.one_hot else d_in
        if self.along == "row":
            return d_in ** (-1 / self.exponent)
        return d_out ** (1 / self._conjugate) / d_in

    def norm(self, w: Matrix) -> Scalar:
        lines = torch.linalg.vector_norm(w, ord=self._conjugate, dim=self._dim)
        return lines.amax(-1) / self.factor(w.shape)

    def dual(self, g: Matrix) -> Scalar:
        lines = torch.linalg.vector_norm(g, ord=self.exponent, dim=self._dim)
        return self.factor(g.shape) * lines.sum(-1)

    def lmo(self, g: Matrix) -> Matrix:
        return -self.factor(g.shape) * self._lines(_without_stale_columns(g, self.guard))

    def _lines(self, g: Tensor) -> Tensor:
        """Each row or column: the unit vector of the conjugate norm with the largest <g, .>."""
        if self.exponent == 1:
            return g.sign()
        if self.exponent == math.inf:
            largest = g.abs().argmax(dim=self._dim, keepdim=True)
            signs = g.gather(self._dim, largest).sign()
            return torch.zeros_like(g).scatter(self._dim, largest, signs)
        g = divide(g, g.abs().amax(dim=self._dim, keepdim=True))
        size = torch.linalg.vector_norm(g, ord=self.exponent, dim=self._dim, keepdim=True)
        unit = divide(g, size)
        if self.exponent == 2:
            return unit
        return unit.sign() * unit.abs() ** (self.exponent - 1)

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gaussian rows or columns of norm 1 (random signs for Sign) times the factor; float64."""
        gaussian = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.factor(shape) * self._lines(gaussian)


def _without_stale_columns(g: Tensor, guard: float | Tensor) -> Tensor:
    """g with zeros in each column shorter than guard times the longest; NaN stays NaN."""
    if not isinstance(guard, Tensor) and guard == 0:
        return g
    scaled = divide(g, g.abs().amax(dim=(-2, -1), keepdim=True))
    size = torch.linalg.vector_norm(scaled, dim=-2, keepdim=True)
    stale = size < guard * size.amax(dim=-1, keepdim=True)
    return torch.where(stale, torch.zeros_like(g), g)


def sign(one_hot: bool = False, guard: float | Tensor = 0.0) -> MeanNorm:
    """Sign, (1, mean) -> inf: `lmo = -sign(g)/d_in`, without d_in for a one-hot input."""
    return MeanNorm("row", 1.0, one_hot, guard)


def colnorm(one_hot: bool = False, guard: float | Tensor = 0.0) -> MeanNorm:
    """ColNorm, (1, mean) -> RMS: `lmo = -(sqrt(d_out)/d_in) col/||col||_2`."""
    return MeanNorm("column", 2.0, one_hot, guard)


def rownorm(one_hot: bool = False, guard: float | Tensor = 0.0) -> MeanNorm:
    """RowNorm, RMS -> inf: `lmo = -(1/sqrt(d_in)) row/||row||_2`."""
    return MeanNorm("row", 2.0, one_hot, guard)


def moga_row(p: str | float, one_hot: bool = False, guard: float | Tensor = 0.0) -> MeanNorm:
    """(p, mean) -> inf, p = 1, 1.5, 2, 3 or "inf": `lmo = -d_in^(-1/p) rownorm_p(g)`.

    p = 1 is Sign, p = 2 RowNorm, p = inf the first largest entry of every row.
    Raises InputError for another p. Source: Xu, Li, Lu 2026, arXiv:2603.09952.
    """
    return MeanNorm("row", _one_of("p", p, MOGA_P), one_hot, guard)


def moga_col(q: str | float, one_hot: bool = False, guard: float | Tensor = 0.0) -> MeanNorm:
    """(1, mean) -> (q, mean), q = 2, 3 or "inf": `lmo = -(d_out^(1/q)/d_in) colnorm_q(g)`.

    q = 2 is ColNorm, q = inf Sign. Raises InputError for another q.
    Source: Xu, Li, Lu 2026, arXiv:2603.09952.
    """
    q = _one_of("q", q, MOGA_Q)
    return MeanNorm("column", 1.0 if q == math.inf else q / (q - 1), one_hot, guard)


def _one_of(name: str, value: str | float, allowed: tuple[float, ...]) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if number not in allowed:
        raise InputError(
            f"MOGA norm: {name} = {value!r}, allowed are {', '.join(f'{a:g}' for a in allowed)}",
            "only rows (p, mean) -> inf and columns (1, mean) -> (q, mean) have a closed lmo",
        )
    return number


def bias_rms() -> MeanNorm:
    """RMS norm of a vector (d, 1): `lmo = -b/||b||_RMS`."""
    return MeanNorm("column", 2.0)


@dataclass(frozen=True)
class Euclidean:
    """Frobenius norm: `lmo = -g/||g||_F`, as in normalised SGD."""

    def norm(self, w: Matrix) -> Scalar:
        return torch.linalg.matrix_norm(w)

    def dual(self, g: Matrix) -> Scalar:
        return torch.linalg.matrix_norm(g)

    def lmo(self, g: Matrix) -> Matrix:
        g = divide(g, g.abs().amax(dim=(-2, -1), keepdim=True))
        return -divide(g, torch.linalg.matrix_norm(g, keepdim=True))

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return -self.lmo(torch.randn(shape, generator=generator, dtype=torch.float64))
