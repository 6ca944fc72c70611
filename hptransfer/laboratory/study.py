"""A study of the noise laboratory: its TOML file, and the series of cells that it asks for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hptransfer import registry
from hptransfer.errors import InputError, located, suggest
from hptransfer.records.cells import Cell
from hptransfer.suite.tables import Table

Law = Literal["skew", "sym", "gauss", "pareto", "t", "spike"]
FRESH_CAP = 4  # caps of the tuning seeds that a fresh seed may take
BATCHES = 3  # octaves on each side of the middle batch of a first grid


class Method(Table):
    """`[methods.LABEL]`: an optimizer and the grid of its settings."""

    use: str = ""
    """Optimizer: its name. Default: the label."""
    hp: dict[str, Any] = Field(default_factory=dict)
    """Hyperparameters other than lr and momentum."""
    momentum: str = "beta"
    """Hyperparameter that holds the momentum."""
    unit: Literal["eps", "directions"] = "eps"
    """Unit of lr: eps, or the number of directions over the smoothness L."""
    clip: float = Field(default=0.0, ge=0.0)
    """Largest norm of a gradient in eps; 0 for no limit."""
    log2_lr: list[float] = Field(min_length=2, max_length=2)
    """Lowest and highest log2 lr of the first grid, in the unit; half octaves between."""
    log2_batch: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """Lowest and highest log2 batch of the first grid of every goal, octaves between. Default:
    around the batch of the theory, and then around the best one of the goal before."""
    alpha: list[float]
    """Values of 1 - momentum."""
    theory: Literal["batched", "transported"] | None = None
    """Whose exponent the theory states for this method."""


class Part(Table):
    """`[[parts]]`: every method at every index, eps and number of directions named here."""

    name: str
    """Name of the part."""
    methods: list[str]
    """Labels of methods."""
    law: Law = "skew"
    """Law of the noise; gauss stands in for skew and sym at index 2."""
    spread: Literal["one", "first", "last"] = "one"
    """Directions that a sample of the noise hits: one of them at random, the first alone (a slope)
    or the last alone (a wall). In the matrix mode it is Gaussian in every entry."""
    index: list[float]
    """Indices p of the noise."""
    log2_eps: list[float]
    """log2 of the goals eps, falling."""
    directions: list[int]
    """Values of min(m, n)."""
    cap: float = Field(default=0.0, ge=0.0)
    """Most steps, in Delta L / eps^cap_power; 0 for the study's, in Delta L / eps^2."""
    cap_power: float = Field(default=2.0, gt=0.0)
    """Power of 1/eps with which the cap of this part grows."""
    aspect: int = Field(default=0, ge=0)
    """Columns over rows of X in the matrix mode; 0 for the diagonal mode."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.cap_power != 2.0 and not self.cap:
            raise InputError(f"part {self.name!r}: cap_power without cap", "name a cap too")
        if self.aspect and not (set(self.index) == {2.0} and self.spread == "one"):
            raise InputError(
                f"part {self.name!r}: the matrix mode has Gaussian noise in every entry",
                "index = [2.0], and no spread",
            )
        return self


class Study(Table):
    """A study file. `name`: that of the file."""

    kind: Literal["laboratory"]
    """A study of the noise laboratory, not a suite of training runs."""
    name: str = ""
    claim: str
    """What the study claims."""
    objective: dict[str, Any]
    """The model with a known gradient, and its fields."""
    sigma: float = Field(gt=0.0)
    """Scale of the noise."""
    tuning_seeds: int = Field(default=8, ge=2)
    """Seeds that choose the settings."""
    fresh_seeds: int = Field(default=24, ge=2)
    """Further seeds that measure the chosen one."""
    cap: float = Field(default=14.0, gt=0.0)
    """Most steps, in Delta L / eps^2."""
    methods: dict[str, Method]
    """The methods by label."""
    parts: list[Part]
    """The parts of the study."""
    steps: int = Field(default=0, ge=0)
    """Most steps of a tuning seed, for which all goals were raised; 0 for the goals of the file."""

    @cached_property
    def gap(self) -> float:
        """F(X_0) - inf F times the smoothness, Delta L."""
        fields = registry.describe("model", self.objective["name"]).defaults | self.objective
        return fields["gap"] * fields["smoothness"]

    @property
    def source(self) -> str:
        """Name of the file, without what marks a short study."""
        return self.name.removesuffix(_marked("", self.steps))

    def shortened(self, steps: int) -> "Study":
        """The study with the goals of each part raised until no tuning seed takes more steps.

        Goals rise by half octaves, all of a part alike. The name says so, and so the records lie
        apart. Raises InputError where the noise of a part has no such goal.
        """
        parts = []
        for part in self.parts:
            most = (part.cap or self.cap) * self.gap * 2.0 ** (-part.cap_power * part.log2_eps[-1])
            octaves = max(0.0, math.ceil(2 * math.log2(most / steps) / part.cap_power) / 2)
            goals = [goal + octaves for goal in part.log2_eps]
            parts.append(part.model_copy(update={"log2_eps": goals}))
        name = _marked(self.name, steps)
        short = self.model_copy(update={"parts": parts, "name": name, "steps": steps})
        short.check()
        return short

    def check(self) -> None:
        """Raises InputError for a part with an unknown method, field or goal."""
        for part in self.parts:
            for label in part.methods:
                if label not in self.methods:
                    raise InputError(
                        f"parts.{part.name}: no method {label!r}",
                        suggest(label, self.methods) or f"methods: {', '.join(self.methods)}",
                    )
            if part.law == "spike" and 8 * 2.0 ** max(part.log2_eps) > self.sigma:
                raise InputError(
                    f"parts.{part.name}: spikes with a goal of 2^{max(part.log2_eps):g}",
                    f"goals of at most sigma / 8 = {self.sigma / 8:g}, or another law",
                )
        for series in self.series():
            eps = 2.0 ** series.part.log2_eps[0]
            series.cell(eps, (0.0,), (0.0,), (0.0,))

    def series(self) -> Iterator["Series"]:
        """Every series of every part, in order."""
        for part in self.parts:
            for method in part.methods:
                for index in part.index:
                    for directions in part.directions:
                        yield Series(self, part, method, index, directions)


def _marked(name: str, steps: int) -> str:
    """The name of a study of at most so many steps."""
    return f"{name}-steps-{steps}"


@dataclass(frozen=True)
class Series:
    """One method under one noise in some directions, at goals eps that fall."""

    study: Study
    part: Part
    label: str
    index: float
    directions: int

    @property
    def method(self) -> Method:
        return self.study.methods[self.label]

    @property
    def name(self) -> str:
        """The series in words."""
        mode = f" x {self.part.aspect * self.directions}" if self.part.aspect else ""
        return f"{self.label} {self.law} p {self.index:g} r {self.directions}{mode}"

    @property
    def law(self) -> Law:
        """The law of the noise: gauss at index 2, where skew and sym would have variance 2."""
        return "gauss" if self.index == 2 and self.part.law in ("skew", "sym") else self.part.law

    @property
    def conjugate(self) -> float:
        """q* = p / (p - 1)."""
        return self.index / (self.index - 1)

    def middle(self, eps: float) -> float:
        """log2 of the batch that the theory gives alpha = 1: r (sigma / eps)^q*, rounded."""
        size = self.directions if self.part.spread == "one" else 1
        exact = math.log2(size) + self.conjugate * math.log2(self.study.sigma / eps)
        return max(self.least, float(round(exact)))

    @property
    def least(self) -> float:
        """log2 of the least batch: a sample of every direction that a sample may hit.

        A smaller batch leaves most directions without noise, and a sign needs no average there.
        """
        hit_at_random = self.part.spread == "one" and not self.part.aspect
        return float(math.ceil(math.log2(self.directions))) if hit_at_random else 0.0

    def octaves(self, eps_before: float, eps: float) -> float:
        """Octaves by which the best batch grows from one goal to the next."""
        return float(round(self.conjugate * math.log2(eps_before / eps)))

    def cap(self, eps: float) -> int:
        """Most steps at a goal."""
        cap = self.part.cap or self.study.cap
        return math.ceil(cap * self.study.gap / eps**self.part.cap_power)

    def cell(
        self,
        eps: float,
        log2_lr: tuple[float, ...],
        log2_alpha: tuple[float, ...],
        log2_batch: tuple[float, ...],
        *,
        fresh: bool = False,
        limit: float = math.inf,
    ) -> Cell:
        """The cell of these settings. Raises InputError for a field that its part has not."""
        study, method = self.study, self.method
        fields = {k: v for k, v in study.objective.items() if k != "name"}
        fields |= {"eps": eps, "columns": self.part.aspect * self.directions}
        model = registry.describe("model", study.objective["name"])
        optimizer = registry.describe("optimizer", method.use or self.label)
        with located(f"methods.{self.label}"):
            hp = optimizer.resolve(method.hp, "hp")
        hp.pop(method.momentum)
        seeds = (0, study.tuning_seeds)
        if fresh:
            seeds = (study.tuning_seeds, study.tuning_seeds + study.fresh_seeds)
        return Cell(
            model={
                "name": model.name, "revision": model.revision, "width": self.directions,
                **model.resolve(fields, "objective"),
            },
            noise={
                "law": self.law, "index": self.index, "sigma": study.sigma,
                "spread": "all" if self.part.aspect else self.part.spread,
            },
            optimizer={"name": optimizer.name, "revision": optimizer.revision},
            hp=hp,
            momentum=method.momentum,
            clip=method.clip * eps,
            unit=eps if method.unit == "eps" else float(self.directions),
            log2_lr=log2_lr,
            log2_alpha=log2_alpha,
            log2_batch=log2_batch,
            seeds=seeds,
            cap=self.cap(eps) * (FRESH_CAP if fresh else 1),
            limit=limit,
        )  # fmt: skip
