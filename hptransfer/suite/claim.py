"""Suite: one falsifiable claim as data, read from TOML and checked at the edge."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hptransfer import registry
from hptransfer.errors import InputError, located, suggest
from hptransfer.spec import LARGEST, MOST, Axis, RunSpec, canonical, cell_of, round_lr
from hptransfer.suite.ranges import LR_OCTAVES, octave_range, search_range

FROM_DATA = ("vocab", "in_shape", "n_classes")  # fields of a model that its data set says
FRESH_SEED = 1000  # verification seeds start here, so the seeds that chose the lr never judge it
GROWTH = 4  # octaves by which a start grid may grow at each side
SEEDS_AT_MOST = 10_000  # fresh ones: a plan names the run of each


_Bounded = Annotated[int, Field(le=MOST)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OptimizerTable(_Table):
    """`[optimizers.LABEL]`: lr range, hyperparameters, and overrides of suite fields."""

    use: str = ""
    lr: str
    hp: dict[str, Any] = {}
    search: dict[str, str] = {}
    schedule: Literal["linear", "constant", "cosine"] | None = None
    warmup: float | None = Field(default=None, ge=0.0, le=1.0)
    clip: float | None = Field(default=None, ge=0.0, le=LARGEST, allow_inf_nan=False)
    sampler: str | None = None
    trials: int | None = Field(default=None, ge=1, le=MOST)

    @field_validator("lr")
    @classmethod
    def _lr_is_a_range(cls, value: str) -> str:
        octave_range(value)
        return value

    @field_validator("search")
    @classmethod
    def _search_is_ranges(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            search_range(text)
        return value


class Thresholds(_Table):
    """Limits of the verdict: `tol` in nats, `drift` in octaves."""

    tol: float = Field(default=0.01, gt=0, le=1e6, allow_inf_nan=False)
    drift: float = Field(default=0.5, gt=0, le=1e6, allow_inf_nan=False)


class Suite(_Table):
    """One falsifiable claim as data. The TOML says what, the command line where and how much.

    `base`: the width at which the learning rate of a width-aware method has its meaning (muP's base
    width), the proxy's unless told. `source`: what names it on the command line, and `changed` what
    that changed: numbers of runs, the name of the data set. `micro_batch` (examples a backward
    pass) and `recompute` (activations) change no loss beyond rounding and are no part of a run;
    left out, the memory estimate sets them.
    """

    name: str
    claim: str
    model: dict[str, Any]
    data: dict[str, Any]
    base: dict[str, _Bounded] = {}
    axis: Axis = "width"
    proxy: int = Field(ge=1, le=MOST)
    targets: list[_Bounded] = []
    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(ge=1, le=10**9)
    optimizers: dict[str, OptimizerTable] = Field(min_length=1)
    width: int | None = Field(default=None, ge=1, le=MOST)
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup: float = Field(default=0.0, ge=0.0, le=1.0)
    clip: float = Field(default=0.0, ge=0.0, le=LARGEST, allow_inf_nan=False)
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int | None = Field(default=None, ge=1, le=MOST)
    recompute: bool | None = None
    eval_batches: int = Field(default=64, ge=1, le=MOST)
    seeds: int = Field(default=1, ge=1, le=FRESH_SEED)
    fresh_seeds: int = Field(default=3, ge=1, le=SEEDS_AT_MOST)
    sampler: str = "bracket"
    trials: int = Field(default=24, ge=1, le=MOST)
    ask: int = Field(default=4, ge=1, le=MOST)
    verify: bool = True
    thresholds: Thresholds = Thresholds()
    negative_control: str | None = None
    controls: list[str] = []
    templates: dict[str, dict[str, Any]] = {}
    bounds: dict[str, list[float]] = {}
    source: str = ""
    changed: dict[str, int | str] = {}

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
                raise InputError(f"model.{key}: the data set says what it is", "take the line out")
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

    def only(self, labels: list[str]) -> Self:
        """This suite with some of its optimizers."""
        control = self.negative_control if self.negative_control in labels else None
        return self.model_copy(
            update={
                "optimizers": {k: v for k, v in self.optimizers.items() if k in labels},
                "templates": {k: v for k, v in self.templates.items() if k in labels},
                "negative_control": control,
                "controls": [label for label in self.controls if label in labels],
            }
        )

    def narrowed(self, *, proxy: int | None = None, targets: list[int] | None = None) -> Self:
        """This suite with another proxy, other targets; the proxy is never a target."""
        proxy = self.proxy if proxy is None else proxy
        chosen = [n for n in self.targets if n != proxy] if targets is None else targets
        if proxy in chosen:
            raise InputError(
                f"{proxy} is the proxy itself",
                f"name another {self.axis}",
                option="targets",
                cures=("targets", "proxy"),
            )
        if max([proxy, *chosen]) > MOST:
            raise InputError(f"{self.axis}: got an integer beyond {MOST}", "name a smaller one")
        return self.model_copy(update={"proxy": proxy, "targets": list(dict.fromkeys(chosen))})

    def setting(self, label: str, name: str) -> Any:
        """A field of the suite, or what the optimizer's table overrides it with."""
        own = getattr(self.optimizers[label], name)
        return getattr(self, name) if own is None else own

    def start_grid(self, label: str) -> tuple[int, int]:
        """First and last exponent of the start grid, octaves."""
        return octave_range(self.optimizers[label].lr)

    def lr_limits(self, label: str) -> tuple[float, float]:
        """How far the grid may grow: 4 octaves a side, within what the method admits."""
        low, high = self.start_grid(label)
        floor, ceiling = self.bounds[label] if label in self.bounds else self._bounds(label)
        return max(low - GROWTH, floor), min(high + GROWTH, ceiling)

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The lr that is carried: a vertex rounded to 1/8 octave, inside what may be tried."""
        low, high = self.lr_limits(label)
        return min(max(round_lr(log2_lr), low), high)

    def _bounds(self, label: str) -> list[float]:
        part = registry.describe("optimizer", self.optimizers[label].use or label)
        return list(part.lr_limits(self._hp(label)) or LR_OCTAVES)

    def untransported(self, labels: list[str]) -> list[str]:
        """Those whose transport grows as the lr decays, at an lr that does not."""
        found = []
        for label in labels:
            hp = self._hp(label)
            decays = hp.get("transport_schedule") == "decay" and hp.get("transport") != 0.0
            if decays and self.setting(label, "schedule") == "constant":
                found.append(label)
        return found

    def _hp(self, label: str) -> dict[str, Any]:
        table = self.optimizers[label]
        return {**registry.describe("optimizer", table.use or label).defaults, **table.hp}

    def resolve(self, data_sha256: str) -> Self:
        """Check every part against its source and fix the run template of each optimizer.

        Raises InputError for an unknown part, an unknown field, or a value that is not allowed.
        """
        model = self._part("model", self.model)
        if self.axis == "depth" and "n_layer" not in model:
            deep = registry.with_field("model", "n_layer")
            raise InputError(
                f"axis: 'depth' needs a model with a field n_layer, {model['name']!r} has none",
                f"models with one: {', '.join(deep)}",
            )
        if self.axis == "depth":
            part = registry.describe("model", self.model["name"])
            for n in (self.proxy, *self.targets):
                part.resolve({"n_layer": n}, "targets")
        data = {**self._part("dataset", self.data), "sha256": data_sha256}
        data.pop("path", None)  # the bytes count, not where they lie
        templates = {}
        for label, table in self.optimizers.items():
            where = f"optimizers.{label}"
            with located(where):
                part = registry.describe("optimizer", table.use or label)
            hp = part.resolve(table.hp, f"{where}.hp")
            for key in table.search:
                if not isinstance(hp.get(key), float):
                    raise InputError(
                        f"{where}.search.{key}: {part.name!r} has no real-valued field {key!r}",
                        suggest(key, hp) or f"fields of {part.name}: {', '.join(hp)}",
                    )
            part.check_clip(self.setting(label, "clip"), f"{where}.clip")
            self._check_search(label, part)
            templates[label] = RunSpec(
                model=model,
                data=data,
                optimizer={"name": part.name, "revision": part.revision},
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
        bounds = {label: self._bounds(label) for label in self.optimizers}
        return self.model_copy(
            update={"templates": json.loads(canonical(templates)), "bounds": bounds}
        )

    def _part(self, kind: str, table: dict[str, Any]) -> dict[str, Any]:
        where = "data" if kind == "dataset" else kind
        with located(where):
            part = registry.describe(kind, table["name"])
        given = {key: value for key, value in table.items() if key != "name"}
        return {
            "name": part.name,
            "revision": part.revision,
            **part.resolve(given, where),
        }

    def _check_search(self, label: str, part: registry.Part) -> None:
        table = self.optimizers[label]
        if table.search and self.setting(label, "sampler") == "bracket":
            raise InputError(
                f"optimizers.{label}.search: the bracket sampler searches the learning rate alone",
                'name another sampler, for instance sampler = "tpe"',
            )
        floor, ceiling = self._bounds(label)
        low, high = self.start_grid(label)
        if low < floor or high > ceiling:
            raise InputError(
                f"optimizers.{label}.lr: got {table.lr!r}, "
                f"allowed: 2^{floor:.0f}..2^{ceiling:.0f} for {part.name}",
                "the update of a constrained method is a convex combination, so lr <= 1"
                if ceiling == 0
                else "shrink the range",
            )
        for key, text in table.search.items():
            limits = part.limits.get(key)
            low_value, high_value, _ = search_range(text)
            if limits and not (limits[0] <= low_value and high_value <= limits[1]):
                raise InputError(
                    f"optimizers.{label}.search.{key}: got {text!r}, "
                    f"allowed: {limits[0]} to {limits[1]}",
                    "shrink the range",
                )

    def axis_value(self, spec: RunSpec) -> int:
        """The axis value of a run."""
        match self.axis:
            case "width":
                return spec.width
            case "depth":
                return int(spec.model["n_layer"])
            case "batch_size":
                return spec.batch
            case "steps":
                return spec.steps

    def names(self, specs: list[RunSpec]) -> dict[str, tuple[str, int]]:
        """Run key -> (label, axis value), for runs made from the templates."""
        searched = {label: set(table.search) for label, table in self.optimizers.items()}

        def family(spec: RunSpec, free: set[str]) -> str:
            plain = spec.at(self.axis, 1).to_json()
            plain["hp"] = {k: v for k, v in plain["hp"].items() if k not in free}
            return cell_of(plain)

        families = {
            label: family(self.template(label), searched[label]) for label in self.optimizers
        }
        return {
            spec.key: (label, self.axis_value(spec))
            for spec in specs
            for label in self.optimizers
            if family(spec, searched[label]) == families[label]
        }

    def template(self, label: str, value: int | None = None) -> RunSpec:
        """The resolved run of an optimizer at an axis value (the proxy if None)."""
        spec = RunSpec.from_json(self.templates[label])
        return spec.at(self.axis, self.proxy if value is None else value)

    @property
    def address(self) -> str:
        """What names this suite on the command line."""
        return self.source or self.name


def fresh_seeds(count: int) -> range:
    return range(FRESH_SEED, FRESH_SEED + count)
