"""The grid on which learning rates were tried: what a fit, a gap and a carried lr go by."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hptransfer.spec import round_lr

REACH = 1.0  # octaves from the least mean loss to the furthest point of a fit
STEP = 0.5  # octaves between the points of a suite's grid near its minimum
ROOM = 1 + 1e-6  # a decimal learning rate lies on its grid to so much of a step
MISSED = 1.5  # steps; a larger distance leaves a point of the grid out


class Grid(Protocol):
    """How learning rates were tried. `x` is log2 lr, octaves, rising, (points,)."""

    def main(self, x: np.ndarray) -> np.ndarray:
        """The points at which the least loss is sought, (points,)."""
        ...

    def reach(self, x: np.ndarray, k: int) -> float:
        """Octaves from point k within which a parabola is fitted."""
        ...

    @property
    def height(self) -> float:
        """Loss above the least one up to which points are fitted; the neighbours always are."""
        ...

    def step(self, x: np.ndarray, k: int) -> float:
        """Octaves between point k and its neighbours."""
        ...

    def is_gap(self, low: float, high: float) -> bool:
        """Whether two neighbours lie so far apart that a learning rate between was left out."""
        ...

    def rounded(self, log2_lr: float) -> float:
        """The log2 lr that stands for this optimum, octaves."""
        ...


@dataclass(frozen=True)
class HalfOctaves:
    """The grid of a suite: octaves, then half octaves; carried rates lie between them."""

    def main(self, x: np.ndarray) -> np.ndarray:
        return x % STEP == 0

    def reach(self, x: np.ndarray, k: int) -> float:
        return REACH

    @property
    def height(self) -> float:
        return float("inf")

    def step(self, x: np.ndarray, k: int) -> float:
        return STEP

    def is_gap(self, low: float, high: float) -> bool:
        return high - low > 1.0

    def rounded(self, log2_lr: float) -> float:
        return round_lr(log2_lr)


@dataclass(frozen=True)
class Tried:
    """Any other grid, told by what was tried: steps of one factor, or equal steps of lr.

    `size`: the step, octaves; of a `linear` grid it is a learning rate. `height`: a point on the
    wall beside a basin lies above it; a parabola through it would misplace the minimum.
    """

    size: float
    linear: bool
    height: float = float("inf")

    @classmethod
    def of(cls, curves: list[np.ndarray], height: float = float("inf")) -> "Tried":
        """The grid of curves that share it. `curves`: log2 lr, octaves, rising, (points,) each.

        Linear where the steps of lr are more equal than those of log2 lr, by their spread over
        their mean. The step is one that a quarter of the steps reach: a few points in between make
        no other grid.
        """
        found = {linear: _steps(curves, linear) for linear in (False, True)}
        if not len(found[False]):
            return cls(REACH, False, height)
        linear = bool(_uneven(found[True]) < 0.5 * _uneven(found[False]))
        size = float(np.quantile(found[linear], 0.75, method="higher"))
        return cls(size, linear, height)

    def main(self, x: np.ndarray) -> np.ndarray:
        return np.ones(len(x), bool)

    def reach(self, x: np.ndarray, k: int) -> float:
        """One octave, or as far as the further neighbour."""
        return max(REACH, self.step(x, k)) * ROOM

    def step(self, x: np.ndarray, k: int) -> float:
        beside = np.abs(np.diff(x[max(k - 1, 0) : k + 2]))
        return float(beside.max()) if len(beside) else REACH

    def is_gap(self, low: float, high: float) -> bool:
        apart = 2.0**high - 2.0**low if self.linear else high - low
        return high - low > REACH * ROOM and apart > MISSED * self.size

    def rounded(self, log2_lr: float) -> float:
        return log2_lr


def _steps(curves: list[np.ndarray], linear: bool) -> np.ndarray:
    """Steps between neighbours, octaves or learning rates, (steps of all curves,)."""
    steps = [np.diff(2.0**x if linear else x) for x in curves]
    return np.concatenate(steps) if steps else np.empty(0)


def _uneven(steps: np.ndarray) -> float:
    """Standard deviation of the steps over their mean."""
    return float(steps.std() / steps.mean())
