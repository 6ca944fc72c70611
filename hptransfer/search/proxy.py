"""The runs at the proxy: the bracket over the lr, and over each field of a group, one at a time."""

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hptransfer.analysis.statuses import finished
from hptransfer.search import bracket
from hptransfer.search.trials import Key, Point, Trial, Trials, key, lowest, on_first_seed
from hptransfer.spec import canonical
from hptransfer.suite.resolved import Suite
from hptransfer.suite.tables import Tuned

if TYPE_CHECKING:
    import pandas as pd

Propose = Callable[..., list[tuple[Point, int]]]  # of the arguments of `propose`


def propose(suite: Suite, label: str, n: int, rows: "pd.DataFrame") -> list[tuple[Point, int]]:
    """(point, seed) pairs that the search at the proxy still lacks; [] when finished.

    First comes the bracket on seed 0, then the further seeds on the five half octaves about the
    best point, then both again on the means over the seeds. Where groups are tuned, their fields
    come first, each with the lr in the middle of its range; then the lr; then the fields once
    more; then the lr about its best, on all seeds. They keep that value from there on.
    `rows`: the rows of (label, n).
    """
    del n  # the rows are of one axis value already
    trials = Trials.of(finished(rows))
    search = bracket.Search(*bracket.grid_and_limits(suite, label), suite.setting(label, "trials"))
    tuned = suite.tuned.get(label)
    if tuned:
        defaults = {name: suite.template(label).hp[name] for name in tuned}
        descent = _Descent(tuned, defaults, search, trials)
        if missing := trials.missing(descent.stages()):
            return _named(missing)
        search = _about_the_best(search, trials.told)
    missing = trials.missing(search.stages(trials, suite.seeds))
    if not missing and trials.untold():
        search = _about_the_best(search, trials.told) if tuned else search
        missing = trials.missing(search.stages(trials, suite.seeds))
    return _named(missing)


def _named(missing: list[Trial]) -> list[tuple[Point, int]]:
    return [((lr, json.loads(hp)), seed) for (lr, hp), seed in missing]


def _about_the_best(search: bracket.Search, told: Mapping[Trial, float]) -> bracket.Search:
    """The search of the octaves at each side of the best trial on seed 0, with its other values.

    analysis.frame.tuned_point chooses alike.
    """
    first = on_first_seed(told)
    lr, hp = min(first, key=lambda name: (first[name], name[1], name[0]))
    low, high = search.limits
    reach = bracket.AROUND
    start = max(math.floor(lr) - reach, low), min(math.ceil(lr) + reach, high)
    return replace(search, start=start, hp=hp)


@dataclass(frozen=True)
class _Descent:
    """The tuning of several hyperparameters, one coordinate at a time, on seed 0.

    `defaults`: the value of each before it is tuned.
    """

    tuned: Mapping[str, Tuned]
    defaults: Mapping[str, float]
    search: bracket.Search
    trials: Trials

    def stages(self) -> Iterator[list[Trial]]:
        """Every field over its range, the lr over its range, every field about its best."""
        values, best = dict(self.defaults), {}
        lr = float(math.floor(sum(self.search.start) / 2))
        for name, span in self.tuned.items():
            best[name] = yield from self._along(name, values, lr, (span.low, span.high))
            values[name] = span.value(best[name])
        lr = yield from self._over_lr(values)
        for name, span in self.tuned.items():
            about = best[name] - bracket.AROUND, best[name] + bracket.AROUND
            start = max(about[0], span.floor), min(about[1], span.ceiling)
            values[name] = span.value((yield from self._along(name, values, lr, start)))

    def _along(
        self, name: str, values: Mapping[str, float], lr: float, start: bracket.Octaves
    ) -> Generator[list[Trial], None, float]:
        """The bracket over one field; its best value in octaves."""
        span = self.tuned[name]

        def point(octaves: float) -> Key:
            return lr, canonical({**values, name: span.value(octaves)})

        return (yield from self._bracket(point, start, (span.floor, span.ceiling)))

    def _over_lr(self, values: Mapping[str, float]) -> Generator[list[Trial], None, float]:
        hp = canonical(dict(values))
        return (
            yield from self._bracket(lambda lr: (lr, hp), self.search.start, self.search.limits)
        )

    def _bracket(
        self, point: Callable[[float], Key], start: bracket.Octaves, limits: bracket.Octaves
    ) -> Generator[list[Trial], None, float]:
        known: dict[float, float] = {}
        while places := bracket.bracket(known, start, limits, self.search.most):
            wanted = [(point(place), 0) for place in places]
            if new := [trial for trial in wanted if trial not in self.trials.told]:
                yield new
            losses = (self.trials.told[trial] for trial in wanted)
            known |= dict(zip(places, losses, strict=True))
        return lowest(known)


def further_seeds(points: list[Point], seeds: int, rows: "pd.DataFrame") -> list[tuple[Point, int]]:
    """Missing (point, seed) pairs with seeds from 1 on, within one octave of the best point.

    They have the best point's hyperparameters. If the means over the seeds have another best
    point, the pairs around that one follow. `rows`: finished ones.
    """
    own = {key(point): point for point in points}
    trials = Trials.of(rows)
    trials.told = {(name, 0): trials.known[name, 0] for name in own}

    def stages() -> Iterator[list[Trial]]:
        while wanted := _near_the_best(trials, seeds):
            yield wanted

    return [(own[name], seed) for name, seed in trials.missing(stages())]


def _near_the_best(trials: Trials, seeds: int) -> list[Trial]:
    """The further seeds of the told points within an octave of the best one."""
    if seeds == 1 or not trials.told:
        return []
    losses = trials.means(trials.told)
    best, hp = min(losses, key=lambda name: (losses[name], name))
    if losses[best, hp] == math.inf:
        return []
    near = sorted(lr for lr, other in losses if other == hp and abs(lr - best) <= 1)
    wanted = [((lr, hp), seed) for seed in range(1, seeds) for lr in near]
    return [trial for trial in wanted if trial not in trials.told]
