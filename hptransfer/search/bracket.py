"""The default search: an octave grid that grows while the minimum lies at its edge, then refines.

It is a pure function of the known points: a search that stops, resumes or gets its answers in
another order proposes the same points. There is one exception: the search takes in runs that it
did not ask for at its end, and the points that follow may depend on their order.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hptransfer.search.trials import Trial, Trials, lowest
from hptransfer.suite.resolved import Suite

AROUND = 1  # octaves at each side of a carried lr, in the start grid around it
Octaves = tuple[float, float]  # log2 lr, least and largest


def bracket(
    known: Mapping[float, float],
    start: tuple[float, float],
    limits: tuple[float, float],
    trials: int | None = None,
) -> list[float]:
    """Log2 learning rates that the current stage still lacks, rising; [] when finished.

    Stages: the octaves of `start`; one octave more while the best octave lies at an edge; the half
    octaves beside it; half octaves beside the best point until both sides of it are known. If all
    points diverged, the grid grows downwards. No point lies outside `limits`. At most `trials`
    points become known: a stage that is too long keeps its middle.
    `known`: log2_lr -> loss, `inf` if diverged; points off the grid count too.
    """
    missing = _stage(known, start, limits)
    if trials is None or len(known) + len(missing) <= trials:
        return missing
    middle = sum(start) / 2
    central = sorted(missing, key=lambda lr: (abs(lr - middle), lr))
    return sorted(central[: max(trials - len(known), 0)])


def _stage(
    known: Mapping[float, float], start: tuple[float, float], limits: tuple[float, float]
) -> list[float]:
    first, last = float(start[0]), float(start[1])
    grid = [first + octave for octave in range(math.floor(last - first) + 1)]
    if missing := [lr for lr in grid if lr not in known]:
        return missing
    # Until the first refinement the octaves alone decide. A half octave could move the minimum
    # before its neighbour is proposed, and then the order of the answers would matter.
    octaves = {lr: loss for lr, loss in known.items() if (lr - first) % 1 == 0}
    best = lowest(octaves)
    if min(known.values()) == math.inf:
        down = min(octaves) - 1
        return [down] if down >= limits[0] else []
    sound = octaves[best] < math.inf
    for sides in ((best - 1, best + 1), (best - 0.5, best + 0.5)) if sound else ():
        if missing := [lr for lr in sides if limits[0] <= lr <= limits[1] and lr not in known]:
            return missing
    best = lowest(known)
    return [lr for lr in _half_octaves(best, known) if limits[0] <= lr <= limits[1]]


def _half_octaves(best: float, known: Iterable[float]) -> list[float]:
    """The half octaves beside `best`, where no point within half an octave is known."""
    known = list(known)
    sides = []
    if not any(best - 0.5 <= lr < best for lr in known):
        sides.append(math.ceil(2 * (best - 0.5)) / 2)
    if not any(best < lr <= best + 0.5 for lr in known):
        sides.append(math.floor(2 * (best + 0.5)) / 2)
    return sides


@dataclass(frozen=True)
class Search:
    """A search over the lr at one axis value and one setting of the other hyperparameters.

    `start`: ends of the octave grid that it begins with. `limits`: of its growth. `most`: number of
    points. `hp`: the other hyperparameters as JSON. `halves`: half octaves at each side of the best
    point that get further seeds.
    """

    start: Octaves
    limits: Octaves
    most: int
    hp: str = "{}"
    halves: int = 2

    def stages(self, trials: Trials, seeds: int) -> Iterator[list[Trial]]:
        """Stages: the bracket on seed 0, further seeds, the bracket on the means, again and again.

        At the end the half octaves about the best mean are told on every seed below `seeds`, by
        default five. Points between the half octaves have no say.
        """
        while wanted := self._stage(trials, seeds):
            yield wanted

    def _stage(self, trials: Trials, seeds: int) -> list[Trial]:
        halves = {trial: v for trial, v in trials.at(self.hp).items() if trial[0][0] % 0.5 == 0}
        first = {lr: loss for ((lr, _), seed), loss in halves.items() if seed == 0}
        if missing := bracket(first, self.start, self.limits, self.most):
            return [((lr, self.hp), 0) for lr in missing]
        averaged = {lr: loss for (lr, _), loss in trials.means(halves).items()}
        if not averaged or averaged[best := lowest(averaged)] == math.inf:
            return []
        near = self._near(best, first)
        wanted = [((lr, self.hp), seed) for seed in range(seeds) for lr in near]
        if further := [trial for trial in wanted if trial not in trials.told]:
            return further
        missing = bracket(averaged, self.start, self.limits, self.most)
        return [((lr, self.hp), 0) for lr in missing]

    def _near(self, best: float, known: Iterable[float]) -> list[float]:
        """The best and `halves` half octaves at each side of it.

        Those that are not known yet are left out where they lie outside the limits or would be more
        points than the search may have.
        """
        known = set(known)
        left = max(self.most - len(known), 0)
        near = [best + step / 2 for step in range(-self.halves, self.halves + 1)]
        new = [lr for lr in near if lr not in known and self.limits[0] <= lr <= self.limits[1]]
        nearest = sorted(new, key=lambda lr: (abs(lr - best), lr))[:left]
        return [lr for lr in near if lr in known or lr in nearest]


def grid_and_limits(suite: Suite, label: str) -> tuple[Octaves, Octaves]:
    """Start grid at the proxy, and the limits of its growth, octaves."""
    low, high = suite.lr_limits(label)
    first, last = suite.start_grid(label)
    return (first, last), (min(low, first), max(high, last))


def around(suite: Suite, label: str, carried: float) -> tuple[Octaves, Octaves]:
    """`grid_and_limits` at a target: the octave at each side of the carried log2 lr."""
    low, high = suite.lr_limits(label)
    centre = min(max(round(carried), low), high)
    return (max(centre - AROUND, low), min(centre + AROUND, high)), (low, high)
