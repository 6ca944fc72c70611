"""Norms on weights, their duals, steepest directions (lmo) and unit-norm inits.

W is (d_out, d_in), batched over leading dimensions; a vector of size d is (d, 1). For every norm
here `lmo(g)` minimises <g, D> over ||D|| <= 1: `||lmo(g)|| = 1` and `<g, -lmo(g)> = dual(g)`.
An all-zero g (for entrywise norms: an all-zero row or column) gives exactly zero.
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
_one_at_a_time = threading.Lock()  # torch loads its CUDA solvers at the first call, in one thread


@contextlib.contextmanager
def factorised_on(device: torch.device) -> Iterator[None]:
    """Inits in this block have their QR on `device`, in float64; their numbers are the CPU's.

    The QR of one matrix of width 4096 takes a CPU longer than a hundred steps take a GPU.
    """
    global _factorised_on
    kept, _factorised_on = _factorised_on, device
    try:
        yield
    finally:
        _factorised_on = kept


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

    `one_hot`: an embedding's input has norm 1, so the factor is sqrt(d_out). `dense_input`: a first
    layer of fixed input dimension, factor max(1, sqrt(d_out/d_in)). `taps`: a convolution flattened
    to (C_out, C_in taps), taps = k for one dimension and k^2 for two, factor sqrt(C_out/C_in)/taps.
    `method`, `dtype` and `steps` are those of `polar`.
    Source: Pethick et al. 2025, arXiv:2502.07529, Tables 2 to 4; code LIONS-EPFL/scion (taps).
    """

    one_hot: bool = False
    dense_input: bool = False
    method: PolarMethod = "polar_express"
    dtype: PolarDtype = "mixed"
    taps: int = 1
    steps: int = 0

    def factor(self, shape: tuple[int, ...]) -> float:
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
        """A random semi-orthogonal matrix times the factor, float64 (equal singular values).

        Of a convolution every tap is one, as published; flattened, with the tap index fastest, it
        has a norm between 1 and sqrt(taps), so up to k for a k x k kernel: it may start outside
        the ball, and constrained iterates then keep `||X_t|| <= max(||X_0||, rho)`.
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
    """Mean-normalised entrywise norms with a closed lmo, one unit vector for every row or column.

    `along = "row"`: (p, mean) -> inf, `||W|| = d_in^(1/p) max_i ||row_i||_{p*}`,
    lmo `-d_in^(-1/p) sign(g)|g|^(p-1) / ||row||_p^(p-1)` with exponent = p.
    `along = "column"`: (1, mean) -> (q, mean), `||W|| = d_in d_out^(-1/q) max_j ||col_j||_q`,
    lmo `-(d_out^(1/q)/d_in) sign(g)|g|^(q*-1) / ||col||_{q*}^(q*-1)` with exponent = q*.
    Exponent inf is the limit: one entry a line, the first of the largest ones, with its sign.
    `one_hot` leaves d_in out: the input picks one column. Sign is exponent 1, ColNorm and RowNorm
    are exponent 2.

    `guard`: columns (an embedding's tokens) whose 2-norm lies below guard times that of the largest
    column get exactly zero, and the rest the lmo without them. A token that is not seen leaves an
    average that decays towards 0, but these norms give it a full step until it underflows: with
    guard 0.01 and beta 0.9 it comes to rest after about 44 steps. A token whose gradients are
    always smaller than that never moves. The guard is ours.
    Source: Pethick et al. 2025, arXiv:2502.07529, Table 6; Xu, Li, Lu 2026, arXiv:2603.09952.
    """

    along: Literal["row", "column"]
    exponent: float
    one_hot: bool = False
    guard: float | Tensor = 0.0  # a 0-d tensor where it differs by lane

    @property
    def _dim(self) -> int:
        return -1 if self.along == "row" else -2

    @property
    def _conjugate(self) -> float:
        if self.exponent in (1, math.inf):
            return math.inf if self.exponent == 1 else 1.0
        return self.exponent / (self.exponent - 1)

    def factor(self, shape: tuple[int, ...]) -> float:
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
        """Every row or column as a unit vector of the conjugate norm that attains <g, .>."""
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
        """Gaussian, every row or column of unit norm (random signs for Sign), times the factor."""
        gaussian = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.factor(shape) * self._lines(gaussian)


def _without_stale_columns(g: Tensor, guard: float | Tensor) -> Tensor:
    """g with columns shorter than guard times the longest set to zero; NaN stays where it is."""
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
    """A vector as (d, 1), norm `||b||_RMS`: `lmo = -b/||b||_RMS`."""
    return MeanNorm("column", 2.0)


@dataclass(frozen=True)
class Euclidean:
    """Frobenius norm: `lmo = -g/||g||_F`, normalised SGD on one matrix."""

    def norm(self, w: Matrix) -> Scalar:
        return torch.linalg.matrix_norm(w)

    def dual(self, g: Matrix) -> Scalar:
        return torch.linalg.matrix_norm(g)

    def lmo(self, g: Matrix) -> Matrix:
        g = divide(g, g.abs().amax(dim=(-2, -1), keepdim=True))
        return -divide(g, torch.linalg.matrix_norm(g, keepdim=True))

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return -self.lmo(torch.randn(shape, generator=generator, dtype=torch.float64))
