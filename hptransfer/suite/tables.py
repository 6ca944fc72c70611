"""The tables inside a suite file, and the origin of a suite."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hptransfer.spec import LARGEST, MOST
from hptransfer.suite.ranges import LrRange, SearchRange

Schedule = Literal["linear", "constant", "cosine"]
Grouped = Literal["input", "hidden", "output", "vector", "rest"]


class Table(BaseModel):
    """A table of a suite file. The text under a field is its description in the JSON schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OptimizerTable(Table):
    """`[optimizers.LABEL]`: range of lr, hyperparameters, and values in place of the suite's."""

    use: str = ""
    """Optimizer of this label: a name, my_file.py:my_optimizer or pkg.mod:name. Default: the
    label."""
    build: str = ""
    """In place of `use`: a function of the model, my_file.py:make, that returns its torch
    optimizer, or a list of them. For classes that take named parameters, the module, or groups."""
    by_role: dict[Grouped, dict[str, bool | int | float | str]] = Field(default_factory=dict)
    """Groups of parameters for a torch optimizer: fields of the group of a role, for instance
    { hidden = { use_muon = true }, rest = { use_muon = false, lr_factor = 0.1 } }. `rest` is of the
    roles without a group of their own, `lr_factor` the lr of a group over the run's."""
    lr: LrRange
    """Learning rates of the start grid, powers of two: "2^-13..2^-5"."""
    hp: dict[str, Any] = Field(default_factory=dict)
    """Hyperparameters of the optimizer."""
    search: dict[str, SearchRange] = Field(default_factory=dict)
    """Ranges of hyperparameters to search: "0.8..0.95", or "2^-6..2^0" in log scale. The sampler
    "bracket" takes none."""
    groups: dict[str, dict[str, LrRange]] = Field(default_factory=dict)
    """Fields of groups of parameters that the bracket tunes too, at the proxy alone, for instance
    { aux = { lr = "2^-9..2^-2" } }: start ranges, powers of two. A plug-in names its groups in the
    constant GROUPS."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Fields of the model in place of the suite's, for instance { residual_base = 0 }."""
    schedule: Schedule | None = None
    """Replaces the suite's schedule."""
    warmup: float | None = Field(default=None, ge=0.0, le=1.0)
    """Replaces the suite's warmup."""
    clip: float | None = Field(default=None, ge=0.0, le=LARGEST, allow_inf_nan=False)
    """Replaces the suite's clip."""
    sampler: str | None = None
    """Replaces the suite's sampler."""
    trials: int | None = Field(default=None, ge=1, le=MOST)
    """Replaces the suite's trials."""


class Thresholds(Table):
    """Limits of the verdict: `tol`, `limit` and `rounding` in nats, `drift` in octaves."""

    tol: float = Field(default=0.01, gt=0.0, le=1e6, allow_inf_nan=False)
    """A regret proved to be above this is a drift, in nats."""
    limit: float = Field(default=0.02, gt=0.0, le=1e6, allow_inf_nan=False)
    """A regret proved to be below this is a transfer, in nats."""
    drift: float = Field(default=0.5, gt=0.0, le=1e6, allow_inf_nan=False)
    """Largest move of the optimum that counts as small, in octaves. It decides no verdict."""
    rounding: float = Field(default=0.003, ge=0.0, le=1e6, allow_inf_nan=False)
    """Standard deviation of a loss from one machine or rounding to another, in nats."""


@dataclass(frozen=True)
class Tuned:
    """A hyperparameter that the bracket tunes beside the lr; all values in octaves.

    `low`, `high`: ends of its start range. `floor`, `ceiling`: limits of its growth.
    """

    low: float
    high: float
    floor: float
    ceiling: float

    def value(self, octaves: float) -> float:
        """2^octaves to six digits, so that machines whose last bits differ share their runs."""
        rounded = float(f"{2.0**octaves:.6g}")
        return min(max(rounded, 2.0**self.floor), 2.0**self.ceiling)

    def edge(self, values: Collection[float], best: float) -> Literal["low", "high"] | None:
        """The edge of the tried values at which the best one lies, if it lies at one."""
        if best == min(values):
            return "low"
        return "high" if best == max(values) else None


@dataclass(frozen=True)
class Origin:
    """The origin of a suite.

    `source`: its argument on the command line. `changed`: its fields with a new value from the
    command line, numbers of runs and the name of the data set.
    """

    source: str = ""
    changed: dict[str, int | str] = field(default_factory=dict)
