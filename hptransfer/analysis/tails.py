"""Tail index of gradient noise from the norms of pair differences, and the verdict on it.

For independent gradients G_1, G_2, ... of one loss at fixed weights, s_j = ||G_2j - G_2j+1|| needs
no mean of the gradients, and its tail has the index of the noise: P(s > x) ~ x^-alpha. Below 2 the
variance is infinite. All functions take the sizes s along the last axis.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hptransfer.documents.tails import LayerKind, TailVerdict
from hptransfer.errors import InputError

SHARES = (0.02, 0.05, 0.10)
"""Shares of the largest sizes that the Hill estimator reads."""
SHARE = 0.05
"""The share that the verdict reads."""
CURVE = (0.005, 0.25)
"""The least and the largest share of a Hill plot."""
INFINITE_VARIANCE = 2.0
"""The index below which the variance is infinite."""
LEAST_PAIRS = 100
"""Fewer pairs leave the smallest share two sizes."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; both are NaN where nothing could be estimated."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Order:
    """A point of a Hill plot: the index from the k largest sizes, and the largest size below."""

    k: int
    size: float
    alpha: float


@dataclass(frozen=True)
class Tail:
    """What the sizes of one layer's pair differences say of their tail.

    `alpha`: share of the largest sizes -> index by Hill's estimator. `gamma`: 1/alpha by the moment
    estimator at SHARE, at most 0 where there is no power tail. `curve`: at each of `orders`.
    """

    pairs: int
    alpha: dict[float, Estimate]
    gamma: Estimate
    verdict: TailVerdict
    curve: tuple[Order, ...]


def count(n: int, share: float = SHARE) -> int:
    """k, the number of largest sizes in a share of n. Raises InputError below LEAST_PAIRS."""
    if n < LEAST_PAIRS:
        raise InputError(
            f"got {n}, needs at least {LEAST_PAIRS}",
            "the tail is read from the largest 2 to 10% of them",
            option="pairs",
        )
    return round(share * n)


def orders(n: int) -> list[int]:
    """The k of a Hill plot of n sizes: some twenty in CURVE, those of SHARES too, rising."""
    first, last = CURVE
    ks = np.geomspace(max(2, first * n), last * n, 18)
    return sorted({round(float(k)) for k in ks} | {count(n, share) for share in SHARES})


def _log_excess(sizes: ArrayLike, k: int) -> Floats:
    """log of the k largest sizes over the next one, (..., k); NaN where that one is 0."""
    s = np.asarray(sizes, float)
    largest = np.sort(s, axis=-1)[..., -k - 1 :]
    logs = np.log(np.where(largest[..., :1] > 0, largest, np.nan))
    return logs[..., 1:] - logs[..., :1]


def hill(sizes: ArrayLike, k: int) -> Floats:
    """Tail index alpha from the k largest of n sizes, (..., n) -> (...); its sd is alpha/sqrt(k).

    NaN where the k + 1 largest are not all above 0, infinity where they are equal.
    Source: Hill 1975, "A simple general approach to inference about the tail of a distribution".
    """
    with np.errstate(divide="ignore"):
        return 1 / _log_excess(sizes, k).mean(-1)


def moment(sizes: ArrayLike, k: int) -> Floats:
    """Extreme value index gamma from the k largest of n sizes, (..., n) -> (...).

    1/alpha for a power tail, 0 for an exponential one, negative for a bounded law. With M_r the
    mean of the r-th powers of log s_i - log s_k+1 it is M_1 + 1 - 1 / (2 (1 - M_1^2 / M_2)).
    NaN where the k + 1 largest are not all above 0, or are equal.
    Source: Dekkers, Einmahl, de Haan 1989, "A moment estimator for the index of an extreme-value
    distribution".
    """
    excess = _log_excess(sizes, k)
    first, second = excess.mean(-1), (excess**2).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return first + 1 - 0.5 / (1 - first**2 / second)


def moment_sd(gamma: ArrayLike, k: int) -> Floats:
    """Asymptotic standard deviation of `moment`, (...) -> (...).

    Its square times k is 1 + gamma^2 from 0 on, and below it
    (1 - g)^2 (1 - 2g) (4 - 8 (1 - 2g)/(1 - 3g) + (5 - 11g)(1 - 2g)/((1 - 3g)(1 - 4g))).
    Source: Dekkers, Einmahl, de Haan 1989, theorem 3.1.
    """
    g = np.asarray(gamma, float)
    b = np.minimum(g, 0.0)
    inner = 4 - 8 * (1 - 2 * b) / (1 - 3 * b)
    inner = inner + (5 - 11 * b) * (1 - 2 * b) / ((1 - 3 * b) * (1 - 4 * b))
    return np.sqrt(np.where(g < 0, (1 - b) ** 2 * (1 - 2 * b) * inner, 1 + g**2) / k)


def judged(alpha: ArrayLike, gamma: ArrayLike, k: int) -> NDArray[np.str_]:
    """The verdict on alpha by `hill` and gamma by `moment`, both from k sizes; (...) -> (...).

    `heavy` (index below 2) if alpha (1 + 2/sqrt(k)) < 2 and gamma > 1/2: the first is Hill's upper
    bound, the second keeps out laws without a power tail. `light` if gamma and twice its standard
    deviation lie below 1/2 and alpha is above 2. Else `undecided`: also where both contradict each
    other, as they do for a mixture of sizes whose far end falls off.
    """
    a, g = np.asarray(alpha, float), np.asarray(gamma, float)
    edge = 1 / INFINITE_VARIANCE
    heavy = (a * (1 + 2 / np.sqrt(k)) < INFINITE_VARIANCE) & (g > edge)
    light = (g + 2 * moment_sd(g, k) < edge) & (a > INFINITE_VARIANCE)
    return np.select([heavy, light], ["heavy", "light"], "undecided")


def tail(sizes: ArrayLike) -> Tail:
    """Tail index of n sizes, (n,), with the verdict; `no noise` where nearly all of them are 0.

    Raises InputError below LEAST_PAIRS sizes, and where one of them is not finite or negative.
    """
    s = np.asarray(sizes, float)
    if not (np.isfinite(s) & (s >= 0)).all():
        raise InputError(
            "a gradient is not finite", "a smaller learning rate: the run has diverged"
        )
    ks = {share: count(len(s), share) for share in SHARES}
    found = {share: float(hill(s, k)) for share, k in ks.items()}
    alpha = {share: Estimate(a, a / ks[share] ** 0.5) for share, a in found.items()}
    k = ks[SHARE]
    gamma = float(moment(s, k))
    verdict = cast("TailVerdict", judged(found[SHARE], gamma, k).item())
    if np.isnan(found[SHARE]):
        verdict = "no noise"
    falling = np.sort(s)[::-1]
    curve = tuple(Order(k, float(falling[k]), float(hill(falling, k))) for k in orders(len(s)))
    return Tail(len(s), alpha, Estimate(gamma, float(moment_sd(gamma, k))), verdict, curve)


def pooled_stable_fit(entries: ArrayLike) -> float:
    """Index of a stable law fitted to the entries of all noise matrices, pooled, (n,).

    With block sums Y of m = sqrt(n) entries X, 1/alpha = (mean log|Y| - mean log|X|) / log m.
    It assumes that the entries are draws of one symmetric stable law, and answers for any other:
    where rows differ in scale it calls Gaussian noise heavy. No verdict rests on it. Zeros are left
    out and the mean is taken off, as the published code does. NaN below 100 entries.
    Source: Mohammadi 2014, "On estimating the tail index and the spectral measure of multivariate
    alpha-stable distributions", corollary 2.4; used by Simsekli et al. 2019, arXiv:1901.06053.
    """
    x = np.asarray(entries, float).ravel()
    x = x[x != 0]
    m = int(np.sqrt(len(x)))
    if m < 10:
        return float("nan")
    x = x[: len(x) // m * m]
    x = x - x.mean()
    sums = x.reshape(-1, m).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        tiny = np.finfo(float).tiny
        rise = np.log(np.abs(sums) + tiny).mean() - np.log(np.abs(x) + tiny).mean()
        return float(np.log(m) / rise)


def effective_moment(batches: ArrayLike, mean_sizes: ArrayLike) -> float:
    """p_eff: the moment p whose bound E||mean of B|| ~ B^-(1 - 1/p) the averages show.

    `batches`: sizes B, (b,). `mean_sizes`: mean norm of the average of B noise matrices, (b,).
    p_eff = 1/(1 + s) with s the slope of the logarithms; 2 where the variance is finite, B large.
    The upper bounds of stochastic optimisation hold with this exponent. It is biased down by some
    tenths where alpha is near 2. NaN below two batches, or where a size is 0.
    """
    b, sizes = np.asarray(batches, float), np.asarray(mean_sizes, float)
    if len(b) < 2 or not (sizes > 0).all():
        return float("nan")
    x = np.log(b) - np.log(b).mean()
    return float(1 / (1 + x @ np.log(sizes) / (x @ x)))


@dataclass(frozen=True)
class LayerTail:
    """The tails of one layer's gradient noise at fixed weights.

    `kind`: the role of its weight. `step`: training steps before. `batch`: examples per gradient.
    `p_eff`: NaN where it was not measured.
    """

    layer: str
    kind: LayerKind
    shape: tuple[int, ...]
    step: int
    batch: int
    frobenius: Tail
    spectral: Tail
    pooled_fit: float
    p_eff: float
