"""Gradient noise of a known law with exact means over a batch, in float64. numpy only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hptransfer.errors import InputError

Law = Literal["skew", "sym", "gauss", "pareto", "t", "spike"]
Spread = Literal["one", "all", "first", "last"]
Array = NDArray[np.float64]

LARGEST_SAMPLE = 65_536  # draws of one mean, of a law whose sums have no law of their own
MOST_SPIKES = 2**22  # mean of a direction's spikes in one batch
DRAWS, PLACES, SPIKES, SAMPLES = range(4)  # purposes of random numbers: streams of their own
WORDS_AHEAD, LONGEST = 2**16, 256  # most words, and steps, that are drawn at a time
_WORDS = 4  # 64-bit words of Philox per counter value
_STEP = 2**64  # counter values of Philox per step


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
        if self.law == "spike" and self.spike[0] > 1:
            raise InputError(
                f"noise: spikes with eps {self.eps:g} and sigma {self.sigma:g}",
                "an eps of at most sigma / 8, for delta is a probability",
            )

    def means(self, seed: int, step: int, batch: Array) -> Array:
        """Means over batches of these sizes, one seed and step; (lanes,) -> (lanes, directions).

        A pure function of its arguments, lane by lane. Lanes share the underlying draws.
        """
        stream = Stream(self, range(seed, seed + 1), ahead=1)
        return stream.means(step, np.full(len(batch), seed), batch)

    def shares(self, batch: Array) -> Array:
        """Samples per direction where chance has no part in it, (lanes, directions)."""
        r = self.directions
        if self.spread in ("first", "last"):
            return batch[:, None] * (np.arange(r) == (0 if self.spread == "first" else r - 1))
        return np.repeat(batch[:, None] / r, r, axis=1)

    def few(self, batch: Array) -> NDArray[np.bool_]:
        """Whether the samples of a batch fall on directions at random, (lanes,)."""
        return (batch < self.directions) & (self.spread == "one")

    @property
    def spike(self) -> tuple[float, float]:
        """c and delta of the law `spike`."""
        size = 8 * self.eps / self.sigma
        return size, size ** (self.index / (self.index - 1))

    def sampled(self, seed: int, step: int, counts: Array, batch: float) -> Array:
        """A mean of so many samples per direction, drawn one by one; (directions,).

        Raises InputError for a batch above LARGEST_SAMPLE.
        """
        if batch > LARGEST_SAMPLE:
            raise InputError(
                f"noise: {self.law} has no law of its means, and {batch:g} samples are too many",
                f"a batch of at most {LARGEST_SAMPLE}, or the law skew",
            )
        rng, a = _rng(seed, step, SAMPLES), self.index
        sums = []
        for count in counts.astype(int):
            draws = pareto(rng, a, count) if self.law == "pareto" else rng.standard_t(a, count)
            sums.append(draws.sum())
        return self.sigma * np.array(sums) / batch


class Stream:
    """The means of a noise for lanes of these seeds, step after step; `ahead` steps drawn at once.

    The bits are those of `Noise.means`. Between two calls an array of batches is replaced, never
    changed in place.
    """

    def __init__(self, noise: Noise, seeds: range, ahead: int = LONGEST) -> None:
        self.noise, self.seeds = noise, seeds
        words = 2 * noise.directions * len(seeds)
        self.ahead = min(ahead, max(1, WORDS_AHEAD // words))
        self._drawn: dict[int, tuple[int, Array]] = {}  # per purpose: first step, draws
        self._tables: dict[float, Array] = {}
        self._batch, self._shares, self._sizes = np.empty(0), np.empty(0), np.empty(0)

    def means(self, step: int, seed: NDArray[np.int64], batch: Array) -> Array:
        """Means of the batches of lanes; (lanes,), (lanes,) -> (lanes, directions).

        Raises InputError for a batch that would take too long.
        """
        noise, lane = self.noise, seed - self.seeds.start
        if batch is not self._batch:
            self._batch, self._shares = batch, noise.shares(batch)
            self._sizes = self._sized(self._shares)
        few = noise.few(batch)
        counts, sizes = self._shares, self._sizes
        if few.any():
            counts, sizes = counts.copy(), sizes.copy()
            counts[few] = self._fallen(step)[lane[few], batch[few].astype(int)]
            sizes[few] = self._sized(counts[few])
        if noise.law == "spike":
            size, rate = noise.spike
            hits = self._hits(self._uniform(step, SPIKES, noise.directions)[lane], counts * rate)
            return noise.sigma * size * (hits / rate / batch[:, None] - 1 / noise.directions)
        if noise.law in ("pareto", "t"):
            return np.stack(
                [
                    noise.sampled(int(seed[i]), step, counts[i], float(batch[i]))
                    for i in range(len(seed))
                ]
            )
        return sizes * self._variates(step)[lane] / batch[:, None]

    def _sized(self, counts: Array) -> Array:
        """Scale of the sum of so many stable variates."""
        return self.noise.sigma * counts ** (1 / self.noise.index)

    def _fallen(self, step: int) -> Array:
        """Samples per direction after 0, 1, ... of them; (seeds, directions, directions)."""
        r = self.noise.directions
        places = (self._uniform(step, PLACES, r) * r).astype(int)
        hit = places[:, :-1, None] == np.arange(r)
        return np.concatenate([np.zeros((len(hit), 1, r)), hit.cumsum(axis=1)], axis=1)

    def _hits(self, uniform: Array, rates: Array) -> Array:
        """Poisson variates of these rates, rising with the uniform variates."""
        hits = np.empty(rates.shape)
        for rate in np.unique(rates).tolist():
            table = self._tables.get(rate)
            if table is None:
                table = self._tables[rate] = poisson(rate)
            here = rates == rate
            hits[here] = table.searchsorted(uniform[here])
        return hits

    def _variates(self, step: int) -> Array:
        """Stable variates of a step, (seeds, directions)."""

        noise, r = self.noise, self.noise.directions

        def made(words: Array) -> Array:
            apart = words.reshape(*words.shape[:2], 2, r)
            first, second = np.ascontiguousarray(np.moveaxis(apart, 2, 0))
            z = stable(first, second, noise.index, 1.0 if noise.law == "skew" else 0.0)
            return z * (0.5**0.5 if noise.law == "gauss" else 1.0)

        return self._at(step, DRAWS, 2 * r, made)

    def _uniform(self, step: int, purpose: int, count: int) -> Array:
        """Uniform variates of a step, (seeds, count)."""
        return self._at(step, purpose, count, lambda words: words)

    def _at(self, step: int, purpose: int, count: int, made: Callable[[Array], Array]) -> Array:
        """What is made of the uniform variates of a step; those of later steps are kept."""
        first, drawn = self._drawn.get(purpose, (0, np.empty(0)))
        if not first <= step < first + len(drawn):
            steps = range(step, step + self.ahead)
            words = [uniforms(seed, steps, count, purpose) for seed in self.seeds]
            first, drawn = self._drawn[purpose] = step, made(np.stack(words, axis=1))
        return drawn[step - first]


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


def poisson(rate: float) -> Array:
    """Distribution function of the Poisson law at 0, 1, ... as far as float64 tells it from 1.

    Raises InputError for a rate whose table would be too long.
    """
    if rate > MOST_SPIKES:
        raise InputError(
            f"noise: a mean of {rate:.3g} spikes in a direction is too much to draw",
            "a smaller batch, or the law skew",
        )
    if rate == 0:
        return np.ones(1)
    last = math.ceil(rate + 12 * math.sqrt(rate) + 40)
    k = np.arange(1, last + 1)
    logs = np.concatenate([[0.0], np.cumsum(math.log(rate) - np.log(k))])
    table = np.cumsum(np.exp(logs - rate))
    return table / table[-1]


def uniforms(seed: int, steps: range, count: int, purpose: int = DRAWS) -> Array:
    """Uniform variates on (0, 1) with 53 bits, pure on every machine; (steps, count).

    `steps` are consecutive.
    """
    counters = -(-count // _WORDS)
    stream = np.random.Philox(
        key=np.array([seed, purpose + 1], dtype=np.uint64),
        counter=np.array([0, steps.start, 0, 0], dtype=np.uint64),
    )
    words = np.empty((len(steps), counters * _WORDS), dtype=np.uint64)
    for row in words:
        row[:] = stream.random_raw(counters * _WORDS)
        stream.advance(_STEP - counters)
    return ((words[:, :count] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _rng(seed: int, step: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, purpose + 1], np.uint64), counter=[0, step, 0, 0])
    )
