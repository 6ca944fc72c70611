"""Gradient noise of a known law with exact means over a batch, in float64. numpy only."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hptransfer.errors import InputError

Law = Literal["skew", "sym", "gauss", "pareto", "t", "spike"]
Spread = Literal["one", "all", "first"]
Array = NDArray[np.float64]

LARGEST_SAMPLE = 65_536  # draws of one mean, of a law whose sums have no law of their own
_WORDS = 4  # 64-bit words of Philox per counter value


@dataclass(frozen=True)
class Noise:
    """Noise along `directions` orthogonal rank-one directions, one of them per sample.

    A sample is N = R E_i with i uniform, so that all Schatten norms of N are |R|, and the mean of a
    batch has the coordinates sum R_j / B. `law` of R / sigma:

    - `skew`, `sym`: stable, S_a(1, beta, 0) with beta = 1 and 0 and index a, mean 0;
      `gauss`: N(0, 1), a = 2. A mean of n is n^(1/a - 1) Z in law. For a < 2 without a
      moment of order a.
    - `pareto`: one-sided Pareto of index a minus its mean; `t`: Student's t with a degrees of
      freedom. Their means are drawn sample by sample.
    - `spike`: -c/r on every direction, and c/delta on one of them with probability delta,
      c = 8 eps / sigma, delta = c^(a/(a-1)): the moment of order a stays near 1 for every eps, and
      the typical gradient points the wrong way.

    For B >= `directions` each direction has B / directions samples (strata); for fewer, samples
    fall on directions at random. Source: the laws are classical; their use here is ours.
    """

    law: Law
    index: float
    sigma: float
    directions: int
    eps: float = 1.0
    spread: Spread = "one"

    def __post_init__(self) -> None:
        low, high = (2.0, 2.0) if self.law == "gauss" else (1.0, 2.0)
        free = self.law in ("pareto", "t")
        if not (self.index > 1 if free else low < self.index <= high or self.index == low == high):
            raise InputError(
                f"noise: {self.law} with index {self.index:g}",
                "gauss has index 2, the others lie above 1, and stable laws at most at 2",
            )

    def means(self, seed: int, step: int, batch: Array) -> Array:
        """Means over batches of these sizes, one seed and step; (lanes,) -> (lanes, directions).

        A pure function of its arguments. Lanes share the underlying draws.
        """
        counts = self._counts(seed, step, batch)
        if self.law in ("skew", "sym", "gauss"):
            z = self._stable(seed, step) * (0.5**0.5 if self.law == "gauss" else 1.0)
            return self.sigma * counts ** (1 / self.index) * z / batch[:, None]
        if self.law == "spike":
            return self._spikes(seed, step, batch, counts)
        return np.stack(
            [self._sampled(seed, step, own, b) for own, b in zip(counts, batch, strict=True)]
        )

    def _counts(self, seed: int, step: int, batch: Array) -> Array:
        """Samples per direction, (lanes, directions)."""
        r = self.directions
        if self.spread == "all":
            return np.repeat(batch[:, None] / r, r, axis=1)
        if self.spread == "first":
            return batch[:, None] * (np.arange(r) == 0)
        shares = np.repeat(batch[:, None] / r, r, axis=1)
        for lane in np.flatnonzero(batch < r):
            rng = _rng(seed, step, 1)
            shares[lane] = rng.multinomial(int(batch[lane]), np.full(r, 1 / r))
        return shares

    def _stable(self, seed: int, step: int) -> Array:
        words = uniforms(seed, step, 2 * self.directions).reshape(2, -1)
        return stable(words[0], words[1], self.index, 1.0 if self.law == "skew" else 0.0)

    def _spikes(self, seed: int, step: int, batch: Array, counts: Array) -> Array:
        size = 8 * self.eps / self.sigma
        rate = size ** (self.index / (self.index - 1))
        hits = _rng(seed, step, 2).poisson(counts * rate)
        return self.sigma * size * (hits / rate / batch[:, None] - 1 / self.directions)

    def _sampled(self, seed: int, step: int, counts: Array, batch: float) -> Array:
        if batch > LARGEST_SAMPLE:
            raise InputError(
                f"noise: {self.law} has no law of its means, and {batch:g} samples are too many",
                f"a batch of at most {LARGEST_SAMPLE}, or the law skew",
            )
        rng, a = _rng(seed, step, 3), self.index
        sums = []
        for count in counts.astype(int):
            draws = pareto(rng, a, count) if self.law == "pareto" else rng.standard_t(a, count)
            sums.append(draws.sum())
        return self.sigma * np.array(sums) / batch


def stable(first: Array, second: Array, index: float, skewness: float) -> Array:
    """Stable variates S_index(1, skewness, 0) from two uniform variates on (0, 1) each.

    `index` in (1, 2]. Mean 0; index 2 gives N(0, 2).
    Source: Chambers, Mallows & Stuck 1976; Weron 1996 (the correction of their formula).
    """
    angle = math.pi * (first - 0.5)
    exponential = -np.log(second)
    slope = skewness * math.tan(math.pi * index / 2)
    shift = math.atan(slope) / index
    scale = (1 + slope**2) ** (1 / (2 * index))
    turned = index * (angle + shift)
    tail = (np.cos(angle - turned) / exponential) ** ((1 - index) / index)
    return scale * np.sin(turned) / np.cos(angle) ** (1 / index) * tail


def pareto(rng: np.random.Generator, index: float, size: int) -> Array:
    """Pareto variates of this index and mean 1, less that mean; (size,)."""
    least = (index - 1) / index
    return least * (rng.pareto(index, size) + 1) - 1


def uniforms(seed: int, step: int, count: int) -> Array:
    """Uniform variates on (0, 1) with 53 bits, a pure function on every machine; (count,)."""
    counters = -(-count // _WORDS)
    stream = np.random.Philox(
        key=np.array([seed, 1], dtype=np.uint64),
        counter=np.array([0, step, 0, 0], dtype=np.uint64),
    )
    words = stream.random_raw(counters * _WORDS)[:count]
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _rng(seed: int, step: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, purpose + 1], np.uint64), counter=[0, step, 0, 0])
    )
