"""A suite, one falsifiable claim as data: as written in a file, and resolved with its parts."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from hptransfer.errors import InputError, located
from hptransfer.spec import (
    AXIS_FIELD,
    COUNT,
    LARGEST,
    MOST,
    Axis,
    RunSpec,
    canonical,
    fits,
    round_lr,
)
from hptransfer.suite import parts
from hptransfer.suite.tables import OptimizerTable, Origin, Schedule, Table, Thresholds

FROM_DATA = ("vocab", "in_shape", "n_classes")  # fields of a model that come from its data set
FRESH_SEED = 1000  # first fresh seed, so that no seed of a search judges the lr
GROWTH = 4  # octaves that a search may add to its start grid on each side

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
    steps: int = Field(ge=1, le=10**9)
    """Training steps per run."""
    batch: int = Field(ge=1, le=10**9)
    """Examples per step."""
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
    eval_batches: int = Field(default=64, ge=1, le=MOST)
    """Number of batches of the held-out loss."""
    seeds: int = Field(default=1, ge=1, le=FRESH_SEED)
    """Number of seeds of the search."""
    fresh_seeds: int = Field(default=3, ge=1, le=FRESH_SEED)
    """Number of seeds that judge the carried lr at a target. No search uses these seeds."""
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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
        for label in [*filter(None, [self.negative_control]), *self.controls]:
            if label not in self.optimizers:
                key = "controls" if label in self.controls else "negative_control"
                raise InputError(
                    f"{key}: no optimizer is labelled {label!r}",
                    f"labels: {', '.join(self.optimizers)}",
                )
        if any(n < 1 for n in self.targets):
            raise InputError(
                f"targets: got {min(self.targets)}, needs values of at least 1",
                f"for instance targets = [{2 * self.proxy}]",
            )
        if self.proxy in self.targets:
            raise InputError(f"targets: {self.proxy} is the proxy itself", "name other axis values")
        return self

    def narrowed(self, *, proxy: int | None = None, targets: list[int] | None = None) -> Self:
        """This suite with another proxy or other targets. Raises InputError for a proxy in both.

        Default of `targets`: those of the suite, without the new proxy.
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
        return self.model_copy(update={"proxy": proxy, "targets": list(dict.fromkeys(values))})

    def setting(self, label: str, name: str) -> Any:
        """The value of a field for a label: its own one, else that of the suite."""
        own = getattr(self.optimizers[label], name)
        return getattr(self, name) if own is None else own

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

    def resolve(self, data_sha256: str) -> "Suite":
        """This suite with the run template of each label, after a check of every part.

        Raises InputError for an unknown part, an unknown field, or a value outside its limits.
        """
        model = parts.identify("model", self.model)
        if self.axis == "depth":
            parts.check_depth(self.model, [self.proxy, *self.targets])
        data = {**parts.identify("dataset", self.data), "sha256": data_sha256}
        data.pop("path", None)  # the bytes identify a run, not their path
        templates, bounds = {}, {}
        for label, table in self.optimizers.items():
            with located(f"optimizers.{label}"):
                part = parts.describe(label, table)
            hp = part.resolve(table.hp, f"optimizers.{label}.hp")
            part.check_clip(self.setting(label, "clip"), f"optimizers.{label}.clip")
            sampler = self.setting(label, "sampler")
            parts.check_search(label, table=table, part=part, hp=hp, sampler=sampler)
            optimizer = {"name": part.name, "revision": part.revision}
            templates[label] = self._template(label, model, data, optimizer, hp)
            bounds[label] = parts.lr_limits(part, table.hp)
        in_order = json.loads(canonical(templates))  # labels and fields in a manifest's order
        return Suite.of(self, {x: RunSpec.from_json(run) for x, run in in_order.items()}, bounds)

    def _template(
        self,
        label: str,
        model: dict[str, Any],
        data: dict[str, Any],
        optimizer: dict[str, Any],
        hp: dict[str, Any],
    ) -> dict[str, Any]:
        return RunSpec(
            model=model,
            data=data,
            optimizer=optimizer,
            hp=hp,
            width=self.width or self.proxy,
            base=self.base,
            log2_lr=0.0,
            steps=self.steps,
            batch=self.batch,
            schedule=self.setting(label, "schedule"),
            warmup=self.setting(label, "warmup"),
            clip=self.setting(label, "clip"),
            precision=self.precision,
            eval_batches=self.eval_batches,
            seed=0,
        ).to_json()

    @property
    def address(self) -> str:
        """The argument of a command that stands for this suite."""
        return self.origin.source or self.name


class Suite(SuiteTable):
    """A suite with a run template and limits of log2 lr per label.

    A template has lr 2^0, seed 0 and the proxy's axis value. Every run of a label comes from it.
    """

    templates: dict[str, RunSpec]
    bounds: dict[str, tuple[float, float]]

    @classmethod
    def of(
        cls,
        table: SuiteTable,
        templates: dict[str, RunSpec],
        bounds: dict[str, tuple[float, float]],
    ) -> Self:
        """The suite of a table, whose checks ran before, with its templates and limits."""
        return cls.model_construct(**{**dict(table), "templates": templates, "bounds": bounds})

    def only(self, labels: list[str]) -> Self:
        """This suite with these labels alone."""
        control = self.negative_control if self.negative_control in labels else None
        return self.model_copy(
            update={
                "optimizers": {k: v for k, v in self.optimizers.items() if k in labels},
                "templates": {k: v for k, v in self.templates.items() if k in labels},
                "negative_control": control,
                "controls": [label for label in self.controls if label in labels],
            }
        )

    def lr_limits(self, label: str) -> tuple[float, float]:
        """Least and largest log2 lr of the grid.

        The start grid may grow by GROWTH octaves per side, within the limits of the optimizer.
        """
        low, high = self.start_grid(label)
        floor, ceiling = self.bounds[label]
        return max(low - GROWTH, floor), min(high + GROWTH, ceiling)

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The carried log2 lr: the optimum rounded to 1/8 octave, within `lr_limits`."""
        low, high = self.lr_limits(label)
        return min(max(round_lr(log2_lr), low), high)

    def template(self, label: str, value: int | None = None) -> RunSpec:
        """The run template of a label at an axis value; None stands for the proxy."""
        return self.templates[label].at(self.axis, self.proxy if value is None else value)

    def labels(self, specs: Iterable[RunSpec]) -> Iterator[list[str]]:
        """The labels of each run.

        A run belongs to a label if it equals the label's template in all but lr, seed, axis value
        (a count) and the searched hyperparameters (floats).
        """
        axis = AXIS_FIELD[self.axis]
        searched = {
            label: tuple(f"hp.{key}" for key in sorted(self.optimizers[label].search))
            for label in self.templates
        }
        without = {label: ("log2_lr", "seed", axis, *names) for label, names in searched.items()}
        identities = {x: run.identity(*without[x]) for x, run in self.templates.items()}
        for spec in specs:
            own = {names: spec.identity(*names) for names in set(without.values())}
            yield [
                label
                for label in self.templates
                if fits(spec.value(axis), COUNT)
                and own[without[label]] == identities[label]
                and all(type(spec.value(name)) is float for name in searched[label])
            ]

    def names(self, specs: list[RunSpec]) -> dict[str, tuple[str, int]]:
        """Run key -> (label, axis value), for the runs with a label."""
        return {
            spec.key: (label, spec.axis_value(self.axis))
            for spec, labels in zip(specs, self.labels(specs), strict=True)
            for label in labels
        }

    def searched_point(self, label: str, spec: RunSpec) -> str:
        """The searched hyperparameters of a run of this label, as canonical JSON."""
        return canonical({key: spec.hp[key] for key in self.optimizers[label].search})


def fresh_seeds(count: int) -> range:
    """The first `count` fresh seeds."""
    return range(FRESH_SEED, FRESH_SEED + count)
