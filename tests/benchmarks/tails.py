"""How often the verdict on a tail is right, on laws whose index is known.

    python tests/benchmarks/tails.py [--seeds 400] [--pairs 1024 4096] > results/reference/tails.md

A seed draws two independent samples of a law; the absolute values of their differences are judged
as the norms of a layer are (analysis.tails). Heavy is an index below 2. The second table has whole
matrices, and the fit to pooled entries beside the norms.
"""

import argparse
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from hptransfer.analysis import tails

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
ROWS, COLUMNS = 8, 32
COLUMNS_OF_LAWS = (
    "law", "index", "pairs", "heavy", "light", "undecided", "wrong", "light by gamma alone",
    "Hill, median", "gamma, mean",
)  # fmt: skip
MATRIX_PAIRS = 1024


def stable(index: float) -> Draw:
    """Symmetric stable variates by the method of Chambers, Mallows and Stuck 1976."""

    def draw(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
        u = (rng.random(size) - 0.5) * np.pi
        w = rng.standard_exponential(size)
        first = np.sin(index * u) / np.cos(u) ** (1 / index)
        return first * (np.cos((1 - index) * u) / w) ** ((1 - index) / index)

    return draw


LAWS: dict[str, tuple[float, Draw]] = {
    "Pareto 1.25": (1.25, lambda rng, size: rng.pareto(1.25, size) + 1),
    "Pareto 1.5": (1.5, lambda rng, size: rng.pareto(1.5, size) + 1),
    "t(1.5)": (1.5, lambda rng, size: rng.standard_t(1.5, size)),
    "stable 1.5": (1.5, stable(1.5)),
    "stable 1.8": (1.8, stable(1.8)),
    "t(2)": (2.0, lambda rng, size: rng.standard_t(2.0, size)),
    "t(3)": (3.0, lambda rng, size: rng.standard_t(3.0, size)),
    "lognormal": (np.inf, lambda rng, size: rng.lognormal(0.0, 1.0, size)),
    "Laplace": (np.inf, lambda rng, size: rng.laplace(size=size)),
    "Gaussian": (np.inf, lambda rng, size: rng.standard_normal(size)),
}
"""Name -> tail index and draws; the index 2 is at the edge, where neither word is right."""


@dataclass(frozen=True)
class Seen:
    """The verdicts on one law: shares of the seeds, and the middle of both estimators.

    `by_gamma`: share that would be light if the moment estimator alone decided.
    """

    law: str
    index: float
    pairs: int
    heavy: float
    light: float
    by_gamma: float
    alpha: float
    gamma: float

    @property
    def wrong(self) -> float:
        """Share of the seeds whose verdict contradicts the index."""
        if self.index == tails.INFINITE_VARIANCE:
            return float("nan")
        return self.light if self.index < tails.INFINITE_VARIANCE else self.heavy


def seen(law: str, pairs: int, seeds: int) -> Seen:
    """Verdicts on `seeds` samples of `pairs` pair differences; each seed has its own generator."""
    index, draw = LAWS[law]
    number = list(LAWS).index(law)
    drawn = np.stack([draw(np.random.default_rng([number, s]), (2, pairs)) for s in range(seeds)])
    sizes = np.abs(drawn[:, 0] - drawn[:, 1])
    k = tails.count(pairs)
    alpha, gamma = tails.hill(sizes, k), tails.moment(sizes, k)
    verdicts = tails.judged(alpha, gamma, k)
    heavy, light = (float((verdicts == word).mean()) for word in ("heavy", "light"))
    alone = gamma + 2 * tails.moment_sd(gamma, k) < 1 / tails.INFINITE_VARIANCE
    estimates = float(alone.mean()), float(np.median(alpha)), float(gamma.mean())
    return Seen(law, index, pairs, heavy, light, *estimates)


def matrices(name: str, seed: int) -> Floats:
    """Pair differences of noise matrices, (MATRIX_PAIRS, ROWS, COLUMNS)."""
    rng = np.random.default_rng([1000, seed])
    shape = (2, MATRIX_PAIRS, ROWS, COLUMNS)
    match name:
        case "Gaussian":
            noise = rng.standard_normal(shape)
        case "Gaussian, row scales i^-1.5":
            noise = rng.standard_normal(shape) * np.arange(1.0, ROWS + 1)[:, None] ** -1.5
        case "rank one, index 1.5":
            u = rng.standard_normal((*shape[:2], ROWS, 1))
            v = rng.standard_normal((*shape[:2], 1, COLUMNS))
            size = rng.pareto(1.5, shape[:2]) + 1
            unit = u * v / np.linalg.norm(u * v, axis=(-2, -1), keepdims=True)
            noise = size[..., None, None] * unit
        case _:
            raise ValueError(name)
    return noise[0] - noise[1]


MATRICES = ("Gaussian", "Gaussian, row scales i^-1.5", "rank one, index 1.5")


def by_matrix(name: str, seeds: int) -> tuple[float, float, str]:
    """Median pooled-entry fit, median alpha of Frobenius norms, and the verdicts on them."""
    fits, alphas, verdicts = [], [], []
    for seed in range(seeds):
        differences = matrices(name, seed)
        found = tails.tail(np.linalg.norm(differences, axis=(-2, -1)))
        fits.append(tails.pooled_stable_fit(differences))
        alphas.append(found.alpha[tails.SHARE].value)
        verdicts.append(found.verdict)
    shares = {word: verdicts.count(word) / seeds for word in sorted(set(verdicts))}
    said = ", ".join(f"{word} {share:.0%}" for word, share in shares.items())
    return float(np.median(fits)), float(np.median(alphas)), said


def page(pairs: list[int], seeds: int) -> Iterator[str]:
    """Both tables as Markdown, line by line."""
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}"
    yield f"Python {platform.python_version()}, {versions}; {seeds} seeds, k = {tails.SHARE:.0%}"
    yield ""
    yield f"| {' | '.join(COLUMNS_OF_LAWS)} |"
    yield "|---" * len(COLUMNS_OF_LAWS) + "|"
    for n in pairs:
        for law in LAWS:
            s = seen(law, n, seeds)
            index = "none" if np.isinf(s.index) else f"{s.index:g}"
            wrong = "-" if np.isnan(s.wrong) else f"{s.wrong:.1%}"
            left = 1 - s.heavy - s.light
            shares = f"{s.heavy:.1%} | {s.light:.1%} | {left:.1%} | {wrong} | {s.by_gamma:.1%}"
            yield f"| {law} | {index} | {n} | {shares} | {s.alpha:.2f} | {s.gamma:.2f} |"
    few = max(1, seeds // 10)
    yield ""
    yield f"{ROWS} x {COLUMNS} noise matrices, {MATRIX_PAIRS} pairs, {few} seeds:"
    yield ""
    yield "| noise | pooled-entry stable fit | Hill on Frobenius norms | verdict on the norms |"
    yield "|---|---|---|---|"
    for name in MATRICES:
        fit, alpha, said = by_matrix(name, few)
        yield f"| {name} | {fit:.2f} | {alpha:.1f} | {said} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1024, 4096])
    options = parser.parse_args()
    for line in page(options.pairs, options.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
