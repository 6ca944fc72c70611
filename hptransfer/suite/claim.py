"""A suite, one falsifiable claim as data, as written in a file."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from hptransfer.errors import InputError
from hptransfer.spec import (
    LARGEST,
    MOST,
    Axis,
)
from hptransfer.suite import budget, parts
from hptransfer.suite.budget import Momentum
from hptransfer.suite.tables import OptimizerTable, Origin, Schedule, Table, Thresholds

Expectation = Literal["drifts", "transfers"]
"""A verdict that a suite may expect of an optimizer."""

FROM_DATA = ("vocab", "in_shape", "n_classes")  # fields of a model that come from its data set

MOST_SEEDS = 1000
LOOKS = (5, 8)  # numbers of seeds at which an undecided verdict is looked at again

MUP_EPS = 1e-10  # gradients shrink with the width under muP, and this eps does not

NAME = r"[A-Za-z0-9._-]+"  # name of a suite
LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # matplotlib hides a label that begins with _

_Bounded = Annotated[int, Field(le=MOST)]

_HAS_NAME = {"properties": {"name": {"type": "string"}}, "required": ["name"]}
Named = Annotated[
    dict[str, Any],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", **_HAS_NAME}]}),
]
_WIDTH = {"width": {"type": "integer", "minimum": 1, "maximum": MOST}}
Base = Annotated[
    dict[str, _Bounded],
    WithJsonSchema({"type": "object", "properties": _WIDTH, "additionalProperties": False}),
]


class SuiteTable(Table):
    """A suite as written in a TOML file, with the changes of the command line."""

    name: SkipJsonSchema[str]
    claim: str
    """What the suite claims, in one sentence."""
    model: Named
    """The model: its name, or a table of its name and its fields."""
    data: Named
    """The data set: its name, or a table of its name and its fields."""
    base: Base = Field(default_factory=dict)
    """Base width of muP, where the multiplier m is 1. Default: the proxy, or `width` on another
    axis."""
    axis: Axis = "width"
    """The quantity that grows from the proxy to the targets."""
    proxy: int = Field(ge=1, le=MOST)
    """Axis value of the search for the lr."""
    targets: list[_Bounded] = Field(default_factory=list)
    """Axis values to which the suite carries the lr."""
    waypoints: list[_Bounded] = Field(default_factory=list)
    """Axis values below the largest target whose best lr is searched on one seed alone, for the
    exponent of lr*. Their verdicts are indicative, and no claim hangs on them."""
    steps: int | None = Field(default=None, ge=1, le=10**9)
    """Training steps per run. Every suite needs them or `tokens`."""
    batch: int = Field(ge=1, le=10**9)
    """Examples per step. On the axis batch_size: the batch for which the hyperparameters hold."""
    tokens: int | None = Field(default=None, ge=1, le=MOST)
    """Training tokens of a run at every batch size, in place of `steps`: a batch takes
    tokens / (batch * context) steps. Of images it is the number of examples."""
    budgets: list[_Bounded] = Field(default_factory=list)
    """With `tokens`: at its best lr every batch also trains on tokens / k, for each k of the
    list, with a whole schedule of its own. They give the tokens to a loss."""
    momentum: Momentum = "per_step"
    """With `tokens`: whether the decay rates of an optimizer's averages are the same at every
    batch (per_step), or their memory is, in tokens (per_token): beta^(size / batch)."""
    lr_rule: float | None = Field(default=None, ge=-10.0, le=10.0, allow_inf_nan=False)
    """Exponent r of a rule of the suite, lr = lr at the proxy * (n / proxy)^r, which the table of
    batch sizes or of steps judges beside no change, square root and linear."""
    baseline: str | None = None
    """Label to whose loss the table of batch sizes compares the tokens of the others."""
    optimizers: dict[str, OptimizerTable] = Field(
        min_length=1, json_schema_extra={"propertyNames": {"pattern": f"^{LABEL}$"}}
    )
    """One table per label."""
    width: int | None = Field(default=None, ge=1, le=MOST)
    """Width of every run, if the axis is not the width."""
    schedule: Schedule = "linear"
    """How the lr changes after the warmup."""
    warmup: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the steps over which the lr rises."""
    clip: float = Field(default=0.0, ge=0.0, le=LARGEST, allow_inf_nan=False)
    """Largest global norm of the gradient, 0 for none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the products."""
    micro_batch: int | None = Field(default=None, ge=1, le=MOST)
    """Examples per backward pass. It changes losses by rounding alone and is no part of a run's
    identity. Default: what fits into memory."""
    recompute: bool | None = None
    """Compute activations again in the backward pass. No part of a run's identity. Default: only
    where memory is short."""
    eval_tokens: int = Field(default=65536, ge=1, le=MOST)
    """Held-out tokens of the final loss, where the data is text. Of labelled examples every
    held-out one is used, once."""
    seeds: int = Field(default=3, ge=1, le=MOST_SEEDS)
    """Number of seeds near each optimum and at the carried lr."""
    max_seeds: int = Field(default=LOOKS[-1], ge=1, le=MOST_SEEDS)
    """Number of seeds up to which an undecided verdict gets more: 5, then 8, then this value.
    Default: 8, or `seeds` where that is more."""
    sampler: str = "bracket"
    """Search method: bracket, a sampler of Optuna, or pkg.mod:Class."""
    trials: int = Field(default=24, ge=1, le=MOST)
    """Largest number of points per search."""
    ask: int = Field(default=4, ge=1, le=MOST)
    """Points per proposal of an Optuna sampler."""
    verify: bool = True
    """Search for the optimum at each target too."""
    thresholds: Thresholds = Thresholds()
    """Limits of the verdict."""
    negative_control: str | None = None
    """Label that must drift, or the suite cannot show a drift."""
    controls: list[str] = Field(default_factory=list)
    """Labels that must fail the coordinate check."""
    expect: dict[str, Expectation] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": {"pattern": f"^{LABEL}$"}}
    )
    """The verdict that the claim needs of a label at the largest target, drifts or transfers:
    { adamw = "drifts" }. `hptransfer check` tells whether it came."""
    origin: SkipJsonSchema[Origin] = Origin()

    @field_validator("model", "data", mode="before")
    @classmethod
    def _name_or_table(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _base_is_the_proxy(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("axis", "width") == "width" and "proxy" in table:
            return {"base": {"width": table["proxy"]}, **table}
        return table

    @model_validator(mode="before")
    @classmethod
    def _no_fewer_seeds_at_the_end(cls, table: Any) -> Any:
        if isinstance(table, dict) and "max_seeds" not in table:
            seeds = table.get("seeds")
            if isinstance(seeds, int) and seeds > LOOKS[-1]:
                return {**table, "max_seeds": seeds}
        return table

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_seeds < self.seeds:
            raise InputError(
                f"max_seeds: got {self.max_seeds}, needs at least seeds = {self.seeds}",
                "raise max_seeds, or lower seeds",
                cures=("max_seeds", "seeds"),
            )
        for what in ("model", "data"):
            if not isinstance(getattr(self, what).get("name"), str):
                example = {"model": "gpt", "data": "python_source"}[what]
                raise InputError(
                    f"{what}: no name, or one that is not a string", f'for instance "{example}"'
                )
        for key in FROM_DATA:
            if key in self.model:
                raise InputError(f"model.{key}: the data set decides it", "take the line out")
        for key, value in self.base.items():
            if key != "width" or value < 1:
                raise InputError(
                    f"base: got {key} = {value}, takes a width of at least 1",
                    f"for instance base = {{ width = {self.proxy} }}",
                )
        if self.axis != "width" and self.width is None:
            raise InputError(f"width: missing on the axis {self.axis!r}", "for instance width = 64")
        self._check_labels()
        if any(n < 1 for n in self.targets):
            raise InputError(
                f"targets: got {min(self.targets)}, needs values of at least 1",
                f"for instance targets = [{2 * self.proxy}]",
            )
        if self.proxy in self.targets:
            raise InputError(f"targets: {self.proxy} is the proxy itself", "name other axis values")
        self._check_waypoints()
        return self

    @model_validator(mode="after")
    def _has_a_budget(self) -> Self:
        budget.check(
            on_batches=self.axis == "batch_size",
            steps=self.steps,
            tokens=self.tokens,
            budgets=self.budgets,
            momentum=self.momentum,
        )
        return self

    def _check_waypoints(self) -> None:
        """Raises InputError for a waypoint that is no value of its own below the largest target."""
        for n in self.waypoints:
            if n < 1:
                raise InputError(
                    f"waypoints: got {n}, needs values of at least 1", "name other axis values"
                )
            if n == self.proxy or n in self.targets:
                what = "the proxy itself" if n == self.proxy else "a target"
                raise InputError(f"waypoints: {n} is {what}", "take it out of waypoints")
            if n > max(self.targets, default=0):
                raise InputError(
                    f"waypoints: {n} lies above every target ({self.targets or 'there is none'})",
                    f"targets = {[*self.targets, n]}: the largest axis value is one that decides",
                )

    def _check_labels(self) -> None:
        """Raises InputError for a label without an optimizer, and for two demands on one label."""
        control = self.negative_control
        named = {
            "negative_control": [control] if control else [],
            "baseline": [self.baseline] if self.baseline else [],
            "controls": self.controls,
            "expect": self.expect,
        }
        for key, labels in named.items():
            for label in labels:
                if label not in self.optimizers:
                    raise InputError(
                        f"{key}: no optimizer is labelled {label!r}",
                        f"labels: {', '.join(self.optimizers)}",
                    )
        if control and self.expect.get(control, "drifts") != "drifts":
            raise InputError(
                f"expect.{control}: got {self.expect[control]!r}, but {control} is the negative "
                "control, which must drift",
                f'expect = {{ {control} = "drifts" }}, or another negative_control',
            )

    def narrowed(self, *, proxy: int | None = None, targets: list[int] | None = None) -> Self:
        """This suite with another proxy or other targets. Raises InputError for a proxy in both.

        Default of `targets`: those of the suite, without the new proxy. Other targets than those
        leave the waypoints out.
        """
        proxy = self.proxy if proxy is None else proxy
        values = [n for n in self.targets if n != proxy] if targets is None else targets
        if proxy in values:
            raise InputError(
                f"{proxy} is the proxy itself",
                f"name another {self.axis}",
                option="targets",
                cures=("targets", "proxy"),
            )
        if max([proxy, *values]) > MOST:
            raise InputError(f"{self.axis}: got an integer beyond {MOST}", "name a smaller one")
        kept = [] if targets is not None else self.waypoints
        waypoints = [n for n in kept if proxy != n < max(values, default=0)]
        return self.model_copy(
            update={
                "proxy": proxy,
                "targets": list(dict.fromkeys(values)),
                "waypoints": waypoints,
            }
        )

    @property
    def axis_values(self) -> list[int]:
        """The proxy, the targets and the waypoints, rising, each once."""
        return sorted({self.proxy, *self.targets, *self.waypoints})

    def looks_at(self, n: int) -> tuple[int, ...]:
        """`looks` at an axis value: a waypoint has its one seed, and no further look."""
        return (1,) if n in self.waypoints else self.looks

    def setting(self, label: str, name: str) -> Any:
        """The value of a field for a label: its own one, else that of the suite."""
        own = getattr(self.optimizers[label], name)
        return getattr(self, name) if own is None else own

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which a verdict is looked at, rising, while it is undecided."""
        between = [count for count in LOOKS if self.seeds < count < self.max_seeds]
        return tuple(dict.fromkeys((self.seeds, *between, self.max_seeds)))

    def start_grid(self, label: str) -> tuple[int, int]:
        """First and last log2 lr of the start grid, octaves."""
        octaves = self.optimizers[label].lr
        return octaves.low, octaves.high

    def untransported(self, labels: list[str]) -> list[str]:
        """Labels whose transport grows as the lr decays, while their lr is constant: strength 0."""

        def still(label: str) -> bool:
            table = self.optimizers[label]
            hp = {**parts.describe(label, table).defaults, **table.hp}
            decays = hp.get("transport_schedule") == "decay" and hp.get("transport") != 0.0
            return decays and self.setting(label, "schedule") == "constant"

        return [label for label in labels if still(label)]

    def large_eps(self, labels: list[str]) -> list[str]:
        """Labels of muP-AdamW whose eps is so large that it counts at wide models."""

        def large(label: str) -> bool:
            table = self.optimizers[label]
            part = parts.describe(label, table)
            eps = {**part.defaults, **table.hp}.get("eps", 0.0)
            return part.name == "adamw_mup" and eps > MUP_EPS

        return [label for label in labels if large(label)]

    @property
    def address(self) -> str:
        """The argument of a command that stands for this suite."""
        return self.origin.source or self.name
