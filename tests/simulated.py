"""Made-up studies whose truth is known: a proxy and two targets, searched as a suite searches.

A loss is a lopsided bowl in log2 lr, a height and a slope of the seed, and a remainder of the run.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from hptransfer.analysis.judgement import Case
from hptransfer.analysis.losses import means
from hptransfer.analysis.parabola import Near, Vertex, redrawn, vertex
from hptransfer.search.bracket import bracket

LOW, HIGH = -15.0, 0.0  # of the lrs that a search may try, log2
START = (-11.0, -4.0)
PER_OCTAVE = 8  # learning rates; a carried one is rounded to them
SEEDS = 8
LOOKS = (3, 5, 8)
PROXY_SEEDS = 3
TRIALS = 24
INIT = 5.5  # nats
CLIFF = 3.5  # octaves above the optimum from which runs diverge
X = LOW + np.arange(round(HIGH - LOW) * PER_OCTAVE + 1) / PER_OCTAVE
HALVES = X % 0.5 == 0


@dataclass(frozen=True)
class Surface:
    """Curvature in nats per octave squared, `skew` per octave (0 for a parabola), and noise.

    `height` (nats) and `slope` (nats per octave): standard deviations over seeds. `remainder`: that
    of one run, nats.
    """

    curvature: float
    height: float
    slope: float
    remainder: float
    skew: float = 0.4

    def cost(self, z: np.ndarray | float) -> np.ndarray:
        """True cost `z` octaves above the optimum, nats."""
        z = np.asarray(z, float)
        if self.skew == 0:
            return self.curvature * z**2
        return 2 * self.curvature / self.skew**2 * (np.expm1(self.skew * z) - self.skew * z)


@dataclass(frozen=True)
class Losses:
    """All losses of one curve that a search could ask for, nats, inf where diverged, (lrs, seeds).

    `center`: the true log2 lr*.
    """

    center: float
    table: np.ndarray

    @classmethod
    def of(cls, rng: np.random.Generator, surface: Surface, center: float) -> Self:
        z = (X - center)[:, None]
        seeds = surface.height * rng.normal(size=SEEDS)
        slopes = surface.slope * rng.normal(size=SEEDS) * np.clip(z, -3, 3)
        runs = surface.remainder * rng.normal(size=(len(X), SEEDS))
        table = 2.6 + surface.cost(z) + seeds + slopes + runs
        table[(z[:, 0] > CLIFF)] = np.inf
        return cls(center, np.where(table > INIT, np.inf, table))

    def rounded(self, rng: np.random.Generator, sd: float) -> Self:
        """The same runs on another machine."""
        return replace(self, table=self.table + sd * rng.normal(size=self.table.shape))


@dataclass(frozen=True)
class Told:
    """The losses that a search knows: NaN elsewhere, (lrs, seeds)."""

    table: np.ndarray

    @property
    def n_runs(self) -> int:
        return int((~np.isnan(self.table)).sum())

    def curve(self, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log2 lr, capped losses and roofed points of the first seeds, as the analysis has them."""
        table = self.table[:, :seeds]
        tried = ~np.isnan(table).all(axis=1)
        return (
            X[tried],
            np.minimum(table[tried], INIT),
            np.asarray(np.isinf(table[tried]).any(axis=1)),
        )

    def near(self, seeds: int) -> Near:
        found = Near.of(*self.curve(seeds))
        assert found is not None
        return found

    def case(self, carried: float, seeds: int) -> Case:
        found = Case.of(*self.curve(seeds), carried)
        assert found is not None
        return found


def index(log2_lr: float) -> int:
    """The row of a learning rate."""
    return round((log2_lr - LOW) * PER_OCTAVE)


def halves_mean(told: np.ndarray) -> dict[float, float]:
    """log2 lr -> mean loss of the half octaves, as a search has it; inf where no seed learned."""
    rows = HALVES & ~np.isnan(told).all(axis=1)
    grid = told[rows][:, ~np.isnan(told[rows]).all(axis=0)]
    mean = means(np.minimum(grid, INIT), np.asarray(np.isfinite(grid).all(axis=1)))
    mean[~np.isfinite(grid).any(axis=1)] = np.inf
    return dict(zip(X[rows].tolist(), mean.tolist(), strict=True))


def search(losses: Losses, told: np.ndarray, start: tuple[float, float], seeds: int) -> None:
    """Fills `told` as search.bracket does: the bracket on seed 0, then five half octaves."""
    while True:
        rows = HALVES & ~np.isnan(told[:, 0])
        first = dict(zip(X[rows].tolist(), told[rows, 0].tolist(), strict=True))
        wanted = list(itertools.product(bracket(first, start, (LOW, HIGH), TRIALS), [0]))
        if not wanted:
            mean = halves_mean(told)
            best = min(mean, key=lambda lr: (mean[lr], lr))
            if mean[best] == np.inf:
                return
            five = [best + step / 2 for step in (-2, -1, 0, 1, 2)]
            inside = [lr for lr in five if LOW <= lr <= HIGH]
            near = itertools.product(inside, range(seeds))
            wanted = [(lr, s) for lr, s in near if np.isnan(told[index(lr), s])]
            missing = bracket(mean, start, (LOW, HIGH), TRIALS)
            wanted = wanted or list(itertools.product(missing, [0]))
        if not wanted:
            return
        for lr, seed in wanted:
            told[index(lr), seed] = losses.table[index(lr), seed]


@dataclass(frozen=True)
class Target:
    """One target: the truth, and what is known there at each number of seeds."""

    losses: Losses
    regret: float
    looks: dict[int, Told]


@dataclass(frozen=True)
class Study:
    """One optimizer's study: `redrawn` are the carried lrs of redraws with rounding, log2 lr."""

    surface: Surface
    losses: Losses
    proxy: Vertex
    carried: float
    redrawn: np.ndarray
    targets: tuple[Target, ...]

    def rounded(self, rng: np.random.Generator, sd: float) -> "Study":
        """The same study on another machine: it may go another way from the first loss on."""
        others = [each.losses.rounded(rng, sd) for each in self.targets]
        return conduct(self.surface, self.losses.rounded(rng, sd), others, sd)


def conduct(surface: Surface, proxy: Losses, targets: list[Losses], rounding: float) -> Study:
    """The study of these losses, with every look at the targets."""
    told = np.full((len(X), SEEDS), np.nan)
    search(proxy, told, START, PROXY_SEEDS)
    near = Told(told).near(PROXY_SEEDS)
    best = vertex(near)
    carried = round(PER_OCTAVE * best.value) / PER_OCTAVE
    shaken = np.round(PER_OCTAVE * redrawn(near, sd=rounding, redraws=200)) / PER_OCTAVE
    found = tuple(_target(surface, losses, carried) for losses in targets)
    return Study(surface, proxy, best, carried, shaken, found)


def _target(surface: Surface, losses: Losses, carried: float) -> Target:
    told, looks = np.full((len(X), SEEDS), np.nan), {}
    middle = min(max(round(carried), LOW), HIGH)
    for seeds in LOOKS:
        told[index(carried), :seeds] = losses.table[index(carried), :seeds]
        search(losses, told, (max(middle - 1, LOW), min(middle + 1, HIGH)), seeds)
        looks[seeds] = Told(told.copy())
    return Target(losses, float(surface.cost(carried - losses.center)), looks)


def studies(
    surface: Surface, drift: float, *, count: int, seed: int, rounding: float = 0.003
) -> list[Study]:
    """Studies in pairs that share their truth: lr* moves by a third of the drift to target 1.

    `drift`: octaves from the proxy to the last target. The targets lie one octave of the axis and
    three octaves above the proxy.
    """
    made = []
    for i in range(count):
        truth, rng = np.random.default_rng([seed, i // 2]), np.random.default_rng([seed, i // 2, i])
        start = -7 + truth.uniform(-0.5, 0.5)
        proxy, *targets = (Losses.of(rng, surface, start + drift * part) for part in (0, 1 / 3, 1))
        made.append(conduct(surface, proxy, targets, rounding))
    return made
