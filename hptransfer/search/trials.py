"""Trials of a search: (point, seed) -> loss. What is still missing is found stage by stage.

A stage is decided by the trials of those before it, so neither the order of the answers within one
nor a run that was made for another reason can matter.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hptransfer.analysis.losses import capped, learned, means
from hptransfer.spec import canonical

if TYPE_CHECKING:
    import pandas as pd

Point = tuple[float, dict[str, float]]  # log2_lr, searched hyperparameters
Key = tuple[float, str]  # a Point whose hyperparameters are JSON
Trial = tuple[Key, int]  # and its seed


def key(point: Point) -> Key:
    """A point as `by_trial` names it."""
    return point[0], canonical(point[1])


def by_trial(rows: "pd.DataFrame", losses: Iterable[float]) -> dict[Trial, float]:
    """Trial -> its loss, from finished rows and one loss for each."""
    columns = (rows[name] for name in ("log2_lr", "hp_point", "seed"))
    return {((lr, hp), seed): loss for lr, hp, seed, loss in zip(*columns, losses, strict=True)}


def on_first_seed(losses: Mapping[Trial, float]) -> dict[Key, float]:
    """The losses of seed 0."""
    return {key: loss for (key, seed), loss in losses.items() if seed == 0}


def finite_losses(rows: "pd.DataFrame") -> list[float]:
    """Losses, at most the loss at init: a sampler fits a surface, which cannot be infinite."""
    losses = capped(rows["loss"].to_numpy(float), rows["loss_init"].to_numpy(float)).tolist()
    worst = max((loss for loss in losses if math.isfinite(loss)), default=0.0)
    return [worst if loss == math.inf else loss for loss in losses]


@dataclass
class Trials:
    """The trials of a search: `known` has the loss of each, `told` those of the stages so far.

    Losses in nats, `inf` for a divergence; `roof`: the losses at init.
    """

    known: dict[Trial, float]
    roof: dict[Trial, float]
    told: dict[Trial, float] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: "pd.DataFrame") -> "Trials":
        """The trials of finished rows."""
        return cls(by_trial(rows, rows["loss"]), by_trial(rows, rows["loss_init"]))

    def missing(self, stages: Iterable[list[Trial]]) -> list[Trial]:
        """What is missing of the first stage that is not known whole; [] after the last.

        `stages` may read `told`: it is brought up to date after each of them. Raises AssertionError
        for a stage that was told all it wants, which would never end.
        """
        for wanted in stages:
            if self.told.keys() >= set(wanted):
                raise AssertionError(f"search: told, but asked for again: {wanted}")
            if lacking := [trial for trial in wanted if trial not in self.known]:
                return lacking
            self.told |= {trial: self.known[trial] for trial in wanted}
        return []

    def untold(self) -> bool:
        """Take in the trials that no stage asked for; whether there were any."""
        count = len(self.told)
        self.told |= self.known
        return len(self.told) > count

    def at(self, hp: str) -> dict[Trial, float]:
        """The told trials with these hyperparameters, as JSON."""
        return {trial: loss for trial, loss in self.told.items() if trial[0][1] == hp}

    def means(self, losses: Mapping[Trial, float]) -> dict[Key, float]:
        """Point -> mean loss over its seeds, as analysis.losses takes it.

        A loss above the loss at init counts as that. A point counts as diverged if no seed went
        below it.
        """
        names, loss, roof = self.grid(losses)
        better = learned(loss, roof)
        averaged = means(capped(loss, roof), np.all(better, axis=1))
        averaged[~np.any(better, axis=1)] = math.inf
        return dict(zip(names, averaged.tolist(), strict=True))

    def grid(self, losses: Mapping[Trial, float]) -> tuple[list[Key], np.ndarray, np.ndarray]:
        """The points, sorted, their losses and those at init, each (points, seeds), seeds rising.

        NaN where a point lacks a seed.
        """
        names = sorted({name for name, _ in losses})
        seeds = sorted({seed for _, seed in losses})
        loss, roof = (
            np.reshape(
                [table.get((name, seed), math.nan) for name in names for seed in seeds],
                (len(names), len(seeds)),
            )
            for table in (losses, self.roof)
        )
        return names, loss, roof


def lowest(losses: Mapping[float, float]) -> float:
    """The log2 lr of the least loss; of several the smallest."""
    return min(losses, key=lambda lr: (losses[lr], lr))
