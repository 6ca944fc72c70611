"""Norms on weights, their duals, steepest directions (lmo) and unit-norm inits.

W is (d_out, d_in), batched over leading dimensions; a vector of size d is (d, 1). For every norm
here `lmo(g)` minimises <g, D> over ||D|| <= 1: `||lmo(g)|| = 1` and `<g, -lmo(g)> = dual(g)`.
An all-zero g (for entrywise norms: an all-zero row or column) gives exactly zero.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Matrix = Float[Tensor, "*batch d_out d_in"]
Scalar = Float[Tensor, "*batch"]
PolarMethod = Literal["polar_express", "jordan", "svd"]

BFLOAT16_ROWS = 128  # a smaller side below this is faster in float32 on CPU (1.8 times at 32)

# Jordan 2024 (Muon), one quintic for every step; singular values end in [0.47, 1.20].
JORDAN = 5 * ((3.4445, -4.7750, 2.0315),)

# Amsel et al. 2025 (Polar Express), arXiv:2505.16932, Alg. 1; all but the last deflated by 1.01.
_SAFETY = 1.01
POLAR_EXPRESS = (
    *(
        (a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5)
        for a, b, c in (
            (8.28721201814563, -23.595886519098837, 17.300387312530933),
            (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
            (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
            (3.3184196573706015, -2.488488024314874, 0.51004894012372),
            (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
            (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
            (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        )
    ),
    (1.875, -1.25, 0.375),
)


@runtime_checkable
class Norm(Protocol):
    """A norm on (d_out, d_in) matrices."""

    def norm(self, w: Matrix) -> Scalar: ...

    def dual(self, g: Matrix) -> Scalar: ...

    def lmo(self, g: Matrix) -> Matrix: ...

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor: ...


def _divide(x: Tensor, size: Tensor) -> Tensor:
    """x / size, and exactly 0 where size is 0: relative, so no absolute eps."""
    return x / torch.where(size > 0, size, torch.ones_like(size))


def polar(
    m: Matrix, method: PolarMethod = "polar_express", dtype: Literal["float32", "mixed"] = "mixed"
) -> Matrix:
    """Polar factor U V^T of M = U S V^T; zero for M = 0.

    `svd`: float64, the reference. `jordan`: 5 steps of Muon's polynomial, in bfloat16 as published.
    `polar_express`: 8 quintic steps, `||D||_op` within 1e-3 of 1 and `<M, D> >= 0.999 ||M||_*`,
    unless the spectrum is so steep that small singular values carry the nuclear norm (0.989 for
    k^-1.5 at width 1024). `mixed` takes the six middle steps in bfloat16. The first stays in
    float32, because the rounding of a dominant direction would be amplified up to the size of the
    small ones, and the last too, which brings the singular values back to 1: `<M, D>` then stays
    within 5e-4 of the float32 result (measured here, not from the paper). A side below
    BFLOAT16_ROWS stays in float32.
    Source: Jordan 2024 (Muon); Amsel et al. 2025, arXiv:2505.16932, Alg. 1.
    """
    if method == "svd":
        return _polar_svd(m)
    x = _divide(m, m.abs().amax(dim=(-2, -1), keepdim=True))
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = x.mT
    safety = _SAFETY if method == "polar_express" else 1.0
    x = _divide(x, safety * torch.linalg.matrix_norm(x, keepdim=True))
    half = torch.bfloat16 if m.dtype == torch.float32 else m.dtype
    if method == "jordan":
        x = _quintic(x.to(half), JORDAN)
    elif dtype == "mixed" and x.shape[-2] >= BFLOAT16_ROWS:
        x = _quintic(x, POLAR_EXPRESS[:1])
        x = _quintic(x.to(half), POLAR_EXPRESS[1:-1])
        x = _quintic(x.to(m.dtype), POLAR_EXPRESS[-1:])
    else:
        x = _quintic(x, POLAR_EXPRESS)
    return (x if wide else x.mT).to(m.dtype)


def _quintic(x: Tensor, steps: tuple[tuple[float, float, float], ...]) -> Tensor:
    """x <- (a + b A + c A^2) x with A = x x^T, the smaller Gram matrix, for every (a, b, c)."""
    lead = x.shape[:-2]
    x = x.reshape(-1, *x.shape[-2:])
    for a, b, c in steps:
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x.reshape(*lead, *x.shape[-2:])


def _polar_svd(m: Tensor) -> Tensor:
    # linalg.svd raises for a whole batch if one matrix is not finite: a diverged lane stays alone.
    finite = m.isfinite().all(dim=-1).all(dim=-1)[..., None, None]
    u, s, vh = torch.linalg.svd(torch.where(finite, m, 0.0).double(), full_matrices=False)
    rank = s > s.amax(-1, keepdim=True) * max(m.shape[-2:]) * torch.finfo(m.dtype).eps
    return torch.where(finite, (u * rank[..., None, :]) @ vh, torch.nan).to(m.dtype)


@dataclass(frozen=True)
class Spectral:
    """RMS -> RMS operator norm: `sqrt(d_in/d_out) ||W||_op`; lmo `-sqrt(d_out/d_in) U V^T`.

    `one_hot`: an embedding's input has norm 1, so the factor is sqrt(d_out). `dense_input`: a first
    layer of fixed input dimension, factor max(1, sqrt(d_out/d_in)).
    Source: Pethick et al. 2025, arXiv:2502.07529, Tables 2 to 4.
    """

    one_hot: bool = False
    dense_input: bool = False
    method: PolarMethod = "polar_express"
    dtype: Literal["float32", "mixed"] = "mixed"

    def factor(self, shape: tuple[int, ...]) -> float:
        d_out, d_in = shape[-2:]
        factor = math.sqrt(d_out if self.one_hot else d_out / d_in)
        return max(1.0, factor) if self.dense_input else factor

    def norm(self, w: Matrix) -> Scalar:
        return torch.linalg.matrix_norm(w, ord=2) / self.factor(w.shape)

    def dual(self, g: Matrix) -> Scalar:
        return self.factor(g.shape) * torch.linalg.matrix_norm(g, ord="nuc")

    def lmo(self, g: Matrix) -> Matrix:
        return -self.factor(g.shape) * polar(g, self.method, self.dtype)

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """A random semi-orthogonal matrix times the factor, float64 (equal singular values)."""
        d_out, d_in = shape[-2:]
        gaussian = torch.randn(shape, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(gaussian if d_out >= d_in else gaussian.mT)
        q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign().unsqueeze(-2)
        return self.factor(shape) * (q if d_out >= d_in else q.mT)


@dataclass(frozen=True)
class MeanNorm:
    """Mean-normalised entrywise norms with a closed lmo, one unit vector for every row or column.

    `along = "row"`: (p, mean) -> inf, `||W|| = d_in^(1/p) max_i ||row_i||_{p*}`,
    lmo `-d_in^(-1/p) sign(g)|g|^(p-1) / ||row||_p^(p-1)` with exponent = p.
    `along = "column"`: (1, mean) -> (q, mean), `||W|| = d_in d_out^(-1/q) max_j ||col_j||_q`,
    lmo `-(d_out^(1/q)/d_in) sign(g)|g|^(q*-1) / ||col||_{q*}^(q*-1)` with exponent = q*.
    `one_hot` leaves d_in out: the input picks one column. Sign is exponent 1, ColNorm and RowNorm
    are exponent 2. Source: Pethick et al. 2025, arXiv:2502.07529, Table 6; Xu, Li, Lu 2026,
    arXiv:2603.09952.
    """

    along: Literal["row", "column"]
    exponent: float
    one_hot: bool = False

    @property
    def _dim(self) -> int:
        return -1 if self.along == "row" else -2

    @property
    def _conjugate(self) -> float:
        return math.inf if self.exponent == 1 else self.exponent / (self.exponent - 1)

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
        factor = self.factor(g.shape)
        if self.exponent == 1:
            return -factor * g.sign()
        g = _divide(g, g.abs().amax(dim=self._dim, keepdim=True))
        size = torch.linalg.vector_norm(g, ord=self.exponent, dim=self._dim, keepdim=True)
        unit = _divide(g, size)
        if self.exponent == 2:
            return -factor * unit
        return -factor * unit.sign() * unit.abs() ** (self.exponent - 1)

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gaussian, every row or column of unit norm (random signs for Sign), times the factor."""
        return -self.lmo(torch.randn(shape, generator=generator, dtype=torch.float64))


def sign(one_hot: bool = False) -> MeanNorm:
    """Sign, (1, mean) -> inf: `lmo = -sign(g)/d_in`, without d_in for a one-hot input."""
    return MeanNorm("row", 1.0, one_hot)


def colnorm(one_hot: bool = False) -> MeanNorm:
    """ColNorm, (1, mean) -> RMS: `lmo = -(sqrt(d_out)/d_in) col/||col||_2`."""
    return MeanNorm("column", 2.0, one_hot)


def rownorm(one_hot: bool = False) -> MeanNorm:
    """RowNorm, RMS -> inf: `lmo = -(1/sqrt(d_in)) row/||row||_2`."""
    return MeanNorm("row", 2.0, one_hot)


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
        g = _divide(g, g.abs().amax(dim=(-2, -1), keepdim=True))
        return -_divide(g, torch.linalg.matrix_norm(g, keepdim=True))

    def init(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return -self.lmo(torch.randn(shape, generator=generator, dtype=torch.float64))
