"""The polar factor U V^T of M = U S V^T: by SVD, Newton-Schulz (Muon) or Polar Express."""

from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hptransfer.errors import InputError

Matrix = Float[Tensor, "*batch d_out d_in"]
PolarMethod = Literal["polar_express", "jordan", "svd", "eigh"]
PolarDtype = Literal["float32", "mixed", "bfloat16"]
ProductDtype = Literal["float32", "mixed"]  # that optimizers offer
PolarForm = Literal["auto", "plain", "gram"]
Row = tuple[float, float, float]

# Jordan 2024 (Muon), one quintic for every step; singular values end in [0.47, 1.20].
JORDAN: Row = (3.4445, -4.7750, 2.0315)
JORDAN_STEPS = 5

# Amsel et al. 2025 (Polar Express), arXiv:2505.16932, Alg. 1, first to last step: against rounding
# above 1 all but the last see X / 1.01. More steps repeat the last.
_SAFETY = 1.01
POLAR_EXPRESS: tuple[Row, ...] = (
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

# The Gram form multiplies into X and begins again from a fresh Gram matrix: that has the squared
# condition number, and eight steps on one turn its rounding into an operator norm of 1.12 (float32,
# k^-1.5, 1024 x 256). Two starts (3 + 5 steps) leave 1e-5, three 7e-7, like the plain form. In
# bfloat16 the later matrices, no longer small, bear two steps: after the eighth of Jordan's the
# norm is 1.14, with three 35 (256 x 1024, singular values down to 1e-3).
GRAM_STEPS = 3
GRAM_STEPS_BFLOAT16 = 2
# Long over short side from which the Gram form is faster on CPU, in float32 measured on short sides
# of 64 to 512: 0.9 to 1.1 times as fast at 2, 1.1 to 1.4 at 3, 1.2 to 1.8 at 4, 2 or more at 16. In
# bfloat16 1.4 times at 4, Jordan's five steps at 256 and 768, and nothing below these rows.
GRAM_ASPECT = 3
GRAM_ROWS_BFLOAT16 = 128
# Polar Express takes its first steps in bfloat16 in the plain form, for they amplify rounding most:
# <M, D> / ||M||_* is 0.9995 without the Gram form and with it from the fifth step on, 0.9993 from
# the fourth on, 0.998 from the third on (256 x 1024, k^-1.5; float32 0.9997).
PLAIN_STEPS = 4

# Smaller side, in rows, from which `mixed` takes bfloat16 products: they are faster from there on
# where a processor has instructions for them.
BFLOAT16_ROWS = 64

# Frobenius norms between which no square that counts leaves the range of float32, and the longest
# row whose float32 sum is good to 2e-5.
SMALLEST_NORM, LARGEST_NORM = 1e-12, 1e15
LONGEST_ROW = 2**14


def divide(x: Tensor, size: Tensor) -> Tensor:
    """x / size, and exactly 0 where size is 0: relative, so no absolute eps."""
    return x / torch.where(size > 0, size, torch.ones_like(size))


def coefficients(method: PolarMethod, steps: int = 0) -> tuple[Row, ...]:
    """(a, b, c) of every step, first to last; 0 steps is the method's own number (5 or 8)."""
    if method == "jordan":
        return (steps or JORDAN_STEPS) * (JORDAN,)
    steps = steps or len(POLAR_EXPRESS)
    return POLAR_EXPRESS[:steps] + (steps - len(POLAR_EXPRESS)) * POLAR_EXPRESS[-1:]


def polar(
    m: Matrix,
    method: PolarMethod = "polar_express",
    dtype: PolarDtype = "float32",
    steps: int = 0,
    form: PolarForm = "auto",
) -> Matrix:
    """Polar factor U V^T of M = U S V^T; zero for M = 0.

    `svd`: float64, the reference. `eigh`: float64, by the eigenvectors of the Gram matrix, the
    fastest for short sides up to 32; singular values below 1e-7 of the largest are lost.
    `jordan`: Muon's polynomial, 5 steps unless told otherwise.
    `polar_express`: 8 quintic steps unless told otherwise; with 8, `||D||_op` is within 1e-3 of 1
    and `<M, D> >= 0.999 ||M||_*`, unless singular values below 1e-3 of the largest count in the
    nuclear norm (0.988 for k^-1.5 at width 1024, 0.989 in float32; 0.9984 with three in four at
    5e-4, 0.9995 in float32).

    `mixed` takes the products of Polar Express in bfloat16, and the first and the last step so that
    their rounding does not count (`_first_in_bfloat16`, `_last_in_bfloat16`; both are ours).
    `<M, D> / ||M||_*` then stays within 1e-3 of the float32 result, at 256 and wider within 7e-4,
    in either form (13 spectra, short sides of 64 to 1024; measured here, not from the paper). A
    side below BFLOAT16_ROWS, or fewer than three steps, stay in float32. Of `jordan` it takes every
    step in bfloat16, as published; so does `bfloat16` of both. The rounding is the same on every
    machine; without bfloat16 instructions it is slower than float32. M is normalised before it is
    rounded, in float32 at least, and a float64 M stays in float64.

    `gram` iterates on the Gram matrix of the smaller side, which saves work on long matrices: every
    step of `jordan` and of Polar Express in float32, of its steps in bfloat16 those from
    PLAIN_STEPS on. `auto` takes it from GRAM_ASPECT on, for float64, and for bfloat16 below
    GRAM_ROWS_BFLOAT16, not at all.
    Raises InputError for the Gram form of Polar Express in bfloat16 throughout.
    Source: Jordan 2024 (Muon); Amsel et al. 2025, arXiv:2505.16932, Alg. 1.
    """
    if form == "gram" and dtype == "bfloat16" and method == "polar_express":
        raise InputError(
            "polar: form = 'gram' with dtype = 'bfloat16', allowed are 'float32' and 'mixed'",
            "the Gram matrix squares the condition number, and its rounding diverges",
        )
    if m.shape[-2:] == (1, 1):
        return m.sign()
    if method == "svd":
        return _svd(m)
    if method == "eigh":
        return _eigh(m)
    x = m.to(torch.promote_types(m.dtype, torch.float32))
    rows = coefficients(method, steps)
    x = _Steps.apply(x.reshape(-1, *x.shape[-2:]), rows, method, dtype, form).reshape(x.shape)
    return x.to(m.dtype)


def _normalised(x: Tensor, size: float) -> Tensor:
    """x (batch, m, n) over size ||x||_F; zero for x = 0.

    Squares of a float32 may overflow or vanish. On CUDA they are summed in float64, of a copy for
    which a CPU takes longer: there a matrix out of range is brought nearer to 1 by a power of two,
    which is exact.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float64)
        return divide(x, size * norm.to(x.dtype))
    norm = _frobenius(x)
    if not ((norm > SMALLEST_NORM) & (norm < LARGEST_NORM)).all():
        exponent = torch.frexp(x.abs().amax(dim=(-2, -1), keepdim=True)).exponent
        x = torch.ldexp(x, -exponent.clamp(-126, 126))
        norm = _frobenius(x)
    return divide(x, size * norm)


def _frobenius(x: Tensor) -> Tensor:
    """||x||_F, row by row: one float32 sum over all entries is off by 1% at 4096 x 4096, this by
    1e-6. Rows that are too long for it are summed in float64."""
    if x.shape[-1] > LONGEST_ROW:
        return torch.linalg.vector_norm(x.double(), dim=(-2, -1), keepdim=True).float()
    rows = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return rows.square_().sum(dim=-2, keepdim=True).sqrt_()  # sum() adds in pairs


class _Steps(torch.autograd.Function):
    """`_iterated`, whose vmap rule folds the lanes into the batch.

    vmap itself takes baddbmm apart, and in bfloat16 the rounding in between turns D by 3%. Weights
    are moved without a graph, so no backward is needed.
    """

    @staticmethod
    def forward(
        x: Tensor, rows: tuple[Row, ...], method: PolarMethod, dtype: PolarDtype, form: PolarForm
    ) -> Tensor:
        return _iterated(x, rows, method, dtype, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del ctx, inputs, output

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        x, *how = inputs
        lanes = x.movedim(in_dims[0], 0)
        return _Steps.apply(lanes.flatten(0, 1), *how).unflatten(0, (info.batch_size, -1)), 0


def _iterated(
    x: Tensor, rows: tuple[Row, ...], method: PolarMethod, dtype: PolarDtype, form: PolarForm
) -> Tensor:
    """All steps on x, (batch, m, n), over its norm."""
    x = _normalised(x, _SAFETY if method == "polar_express" else 1.0)
    short, long = sorted(x.shape[-2:])
    single = x.dtype == torch.float32
    gram = form == "gram" or (form == "auto" and single and long >= GRAM_ASPECT * short)
    mixed = single and dtype == "mixed"
    gram_pays = gram and (form == "gram" or short >= GRAM_ROWS_BFLOAT16)
    if (single and dtype == "bfloat16") or (mixed and method == "jordan"):
        x = x.bfloat16()
        gram = gram_pays and method == "jordan"
    elif mixed and short >= BFLOAT16_ROWS and len(rows) > 2:
        return _mixed(x, rows, gram_pays)
    return (_in_gram_form if gram else _quintic)(x, rows)


def _mixed(x: Tensor, rows: tuple[Row, ...], gram: bool) -> Tensor:
    """Every step in bfloat16 products, the result near that of float32 and in the memory of x."""
    y = _first_in_bfloat16(x, rows[0])
    plain = PLAIN_STEPS if gram else len(rows)
    y = _quintic(y, rows[1:-1][: plain - 1])
    return _last_in_bfloat16(_in_gram_form(y, rows[plain:-1], apart=True), rows[-1], out=x)


def _first_in_bfloat16(x: Tensor, row: Row) -> Tensor:
    """(a + b A + c A^2) h + a (x - h) with A = h h^T, h the bfloat16 of x, which is overwritten.

    The steps amplify what is small in x up to 1000 times, and the rounding x - h with it: its part
    in the linear term, the only one that counts there, is added. The rounding of A is harmless: it
    turns the whole result from one side, by no more than itself.
    """
    a, b, c = row
    h = x.bfloat16()
    gram = _gram(h)
    poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    y = _times(poly, h, a)
    return y.add_(h.copy_(x.sub_(h)), alpha=a)


def _last_in_bfloat16(x: Tensor, row: Row, out: Tensor) -> Tensor:
    """(a + b A + c A^2) x as (a+b+c) x + E y with E = 1 - A, y = c E x - (b+2c) x; float32 `out`.

    E, y and E y are rounded once each, from float32 sums. Nearly orthogonal rows leave little of E,
    and of its rounding. Singular values that are still small leave more: it adds up to 8e-4 to
    ||D||_op (any share of them, 128 to 1024 rows); c E^2 - (b+2c) E, rounded before it is
    multiplied into x, would add twice that.
    """
    a, b, c = row
    e = _one_less_gram(x)
    y = _times(e, x, beta=-(b + 2 * c), alpha=c)
    return out.copy_(_times(e, y)).add_(x, alpha=a + b + c)


def _one_less_gram(x: Tensor) -> Tensor:
    """1 - A of the smaller Gram matrix A of a bfloat16 x, rounded once; (batch, d, d).

    CUDA may round A before it is taken from 1, by up to 2^-9 of ||D||_op.
    """
    n = min(x.shape[-2:])
    if x.device.type == "cuda":
        left, right = _short_and_long(x)
        gram = torch.bmm(left, right, out_dtype=torch.float32)
        gram.neg_().diagonal(dim1=-2, dim2=-1).add_(1)
        return gram.to(x.dtype)
    one = torch.eye(n, dtype=x.dtype, device=x.device).expand(len(x), n, n)
    return _gram(x, one, alpha=-1.0)


def _quintic(x: Tensor, rows: tuple[Row, ...]) -> Tensor:
    """x <- (a + b A + c A^2) x with A = x x^T, the smaller Gram matrix, for every (a, b, c).

    In the same memory step after step: on CPU 1 to 5% faster for matrices up to 256 in batches of
    a million entries, whose memory is in the cache then, and the same for larger ones.
    """
    gram = poly = spare = None
    for t, (a, b, c) in enumerate(rows):
        gram = _gram(x, out=gram)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=poly)
        x, spare = _times(poly, x, a, out=spare), x if t else None
    return x


def _in_gram_form(x: Tensor, rows: tuple[Row, ...], apart: bool = False) -> Tensor:
    """The same steps, begun again after GRAM_STEPS, then more often."""
    later = GRAM_STEPS_BFLOAT16 if x.dtype == torch.bfloat16 else GRAM_STEPS
    starts = [0, *range(GRAM_STEPS, len(rows), later), len(rows)]
    for start, end in pairwise(starts):
        x = _quintic_of_gram(x, rows[start:end], apart)
    return x


def _quintic_of_gram(x: Tensor, rows: tuple[Row, ...], apart: bool = False) -> Tensor:
    """The same steps as x <- Q x: P = a + b A + c A^2, Q <- P Q, A <- P A P, all (d, d).

    `apart`: what Q multiplies by where A is zero, the product of all a, is kept as a number and not
    on the diagonal of Q, where its rounding in bfloat16 would turn a matrix of low rank: of rank
    one <M, D> / ||M||_* is at least 0.9997 so, else 0.9988 (256 x 1024). After Jordan's steps it
    is 41 and Q itself near 1, of which the difference would leave less.
    """
    if not rows:
        return x
    gram = total = _gram(x)
    beside = 0.0
    for t, (a, b, c) in enumerate(rows):
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        # a is added outside the products, where it keeps its full precision
        if t:
            total = torch.baddbmm(total, poly, total, beta=a)
            if apart:
                total.add_(poly, alpha=beside)
                beside *= a
        elif apart:
            total, beside = poly, a
        else:
            total = poly.clone()
            diagonal = total.diagonal(dim1=-2, dim2=-1)
            diagonal.copy_(diagonal.double() + a)  # a bfloat16 would round a itself
        if t + 1 < len(rows):
            half_way = torch.baddbmm(gram, poly, gram, beta=a)
            gram = torch.baddbmm(half_way, half_way, poly, beta=a)
    return _times(total, x, beta=beside)


def _gram(
    x: Tensor, add: Tensor | None = None, alpha: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """add + alpha A of A = x x^T, or x^T x of a tall x, the smaller; (batch, d, d)."""
    left, right = _short_and_long(x)
    if add is None:
        return torch.bmm(left, right, out=out)
    return torch.baddbmm(add, left, right, alpha=alpha, out=out)


def _short_and_long(x: Tensor) -> tuple[Tensor, Tensor]:
    """x and its transpose in the order of the smaller Gram matrix."""
    return (x.mT, x) if x.shape[-2] > x.shape[-1] else (x, x.mT)


def _times(
    p: Tensor, x: Tensor, beta: float = 0.0, alpha: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """beta x + alpha P x, P (batch, d, d) on the smaller side of x: x P of a tall x."""
    left, right = (x, p) if x.shape[-2] > x.shape[-1] else (p, x)
    if beta == 0 and alpha == 1:
        return torch.bmm(left, right, out=out)
    return torch.baddbmm(x, left, right, beta=beta, alpha=alpha, out=out)


def _svd(m: Tensor) -> Tensor:
    # linalg.svd raises for a whole batch if one matrix is not finite: a diverged lane stays alone.
    finite = m.isfinite().all(dim=-1).all(dim=-1)[..., None, None]
    u, s, vh = torch.linalg.svd(torch.where(finite, m, 0.0).double(), full_matrices=False)
    rank = s > s.amax(-1, keepdim=True) * max(m.shape[-2:]) * torch.finfo(m.dtype).eps
    return torch.where(finite, (u * rank[..., None, :]) @ vh, torch.nan).to(m.dtype)


def _eigh(m: Tensor) -> Tensor:
    finite = m.isfinite().all(dim=-1).all(dim=-1)[..., None, None]
    x = torch.where(finite, m, 0.0).double()
    tall = x.shape[-2] > x.shape[-1]
    values, vectors = torch.linalg.eigh(x.mT @ x if tall else x @ x.mT)
    rank = values > values.amax(-1, keepdim=True) * max(m.shape[-2:]) * torch.finfo(x.dtype).eps
    inverse = torch.where(rank, values.clamp(min=0), torch.inf).rsqrt()
    root = (vectors * inverse[..., None, :]) @ vectors.mT
    return torch.where(finite, x @ root if tall else root @ x, torch.nan).to(m.dtype)
