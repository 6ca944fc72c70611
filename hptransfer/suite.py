"""Suite: one falsifiable claim as data, read from TOML and checked at the edge."""

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hptransfer import registry
from hptransfer.ranges import LR_OCTAVES, octave_range, search_range
from hptransfer.registry import InputError, suggest
from hptransfer.spec import Axis, RunSpec, canonical, cell_of

FRESH_SEED = 1000  # verification seeds start here, so the seeds that chose the lr never judge it
GROWTH = 4  # octaves by which a start grid may grow at each side


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
    clip: float | None = Field(default=None, ge=0.0)
    sampler: str | None = None
    trials: int | None = Field(default=None, ge=1)

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

    tol: float = Field(default=0.01, gt=0)
    drift: float = Field(default=0.5, gt=0)


class Suite(_Table):
    """One falsifiable claim as data. The TOML says what, the command line where and how much.

    `micro_batch` (examples a backward pass) and `recompute` (activations) change no loss beyond
    rounding and are no part of a run; left out, the memory estimate sets them.
    """

    name: str
    claim: str
    model: dict[str, Any]
    data: dict[str, Any]
    base: dict[str, int] = {}
    axis: Axis = "width"
    proxy: int = Field(ge=1)
    targets: list[int] = []
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    optimizers: dict[str, OptimizerTable] = Field(min_length=1)
    width: int | None = Field(default=None, ge=1)
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup: float = Field(default=0.0, ge=0.0, le=1.0)
    clip: float = Field(default=0.0, ge=0.0)
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int | None = Field(default=None, ge=1)
    recompute: bool | None = None
    eval_batches: int = Field(default=64, ge=1)
    seeds: int = Field(default=1, ge=1, le=FRESH_SEED)
    fresh_seeds: int = Field(default=3, ge=1)
    sampler: str = "bracket"
    trials: int = Field(default=24, ge=1)
    ask: int = Field(default=4, ge=1)
    verify: bool = True
    thresholds: Thresholds = Thresholds()
    negative_control: str | None = None
    controls: list[str] = []
    templates: dict[str, dict[str, Any]] = {}
    bounds: dict[str, list[float]] = {}

    @field_validator("model", "data", mode="before")
    @classmethod
    def _name_or_table(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what in ("model", "data"):
            if "name" not in getattr(self, what):
                raise InputError(f"{what}: no name", f'for instance {what} = {{ name = "gpt" }}')
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
                f"--to {proxy}: that is the proxy itself", "name another width with --to or --from"
            )
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

    def _bounds(self, label: str) -> list[float]:
        part = registry.describe("optimizer", self.optimizers[label].use or label)
        hp = {**part.defaults, **self.optimizers[label].hp}
        return list(part.lr_limits(hp) or LR_OCTAVES)

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
            with _at(where):
                part = registry.describe("optimizer", table.use or label)
            hp = part.resolve(table.hp, f"{where}.hp")
            for key in table.search:
                if not isinstance(hp.get(key), float):
                    raise InputError(
                        f"{where}.search.{key}: {part.name!r} has no real-valued field {key!r}",
                        suggest(key, hp) or f"fields of {part.name}: {', '.join(hp)}",
                    )
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
        with _at(where):
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


class _at:
    """Puts `where: ` before the message of an InputError raised inside."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"{self.where}: {error}", error.hint) from None


def suites_folder() -> Path:
    """Where the built-in suites lie: in the package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "suites"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "suites"


def suite_names() -> list[str]:
    return sorted(path.stem for path in suites_folder().glob("*.toml"))


def load_suite(name: str, overrides: dict[str, Any] | None = None) -> Suite:
    """A built-in name or a path to a TOML file -> Suite. Raises InputError with the place."""
    path = Path(name)
    if path.suffix != ".toml":
        path = suites_folder() / f"{name}.toml"
        if not path.is_file():
            known = suite_names()
            raise InputError(
                f"unknown suite {name!r}",
                suggest(name, known) or f"suites: {', '.join(known)}, or a path to a .toml file",
            )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _beside(path.parent, table)
    except FileNotFoundError:
        raise InputError(f"no suite file {name}", f"suites: {', '.join(suite_names())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{name}: {error}", "a suite is a TOML file") from None
    shown = name if Path(name).suffix == ".toml" else f"suites/{path.name}"
    with _at(shown):
        for key in ("name", "templates", "bounds"):
            if key in table:
                raise InputError(f"{key}: not a field of a suite file", "take the line out")
        suite = parse_suite({"name": path.stem, **table}, overrides or {})
        suite.resolve("")  # every part and field exists; the data are not read for that
        return suite


def _beside(folder: Path, table: dict[str, Any]) -> None:
    """A plug-in file that lies beside the suite is found from anywhere."""

    def found(text: Any) -> Any:
        file, colon, attribute = str(text).rpartition(":")
        if file.endswith(".py") and not Path(file).exists() and (folder / file).is_file():
            return f"{(folder / file).resolve()}{colon}{attribute}"
        return text

    for key in ("model", "data"):
        if isinstance(table.get(key), str):
            table[key] = found(table[key])
        elif isinstance(table.get(key), dict) and "name" in table[key]:
            table[key]["name"] = found(table[key]["name"])
    optimizers = table.get("optimizers")
    for own in optimizers.values() if isinstance(optimizers, dict) else ():
        if isinstance(own, dict) and "use" in own:
            own["use"] = found(own["use"])


def parse_suite(table: dict[str, Any], overrides: dict[str, Any]) -> Suite:
    """A table -> Suite, wrong input as one InputError."""
    try:
        return Suite.model_validate({**table, **overrides})
    except ValidationError as error:
        # an unknown key first: where one is missing too, it is mostly the same one, misspelt
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        raise _readable(first, place) from None


def _readable(first: Any, place: str) -> InputError:
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return InputError(f"{place}: {cause}" if place else str(cause), cause.hint)
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = Suite
        if len(first["loc"]) > 1:
            model = Thresholds if first["loc"][0] == "thresholds" else OptimizerTable
        known = [key for key in model.model_fields if key not in ("name", "templates", "bounds")]
        hint = suggest(first["loc"][-1], known) or f"keys: {', '.join(known)}"
        return InputError(f"{place}: unknown key {first['loc'][-1]!r}", hint)
    if first["type"] == "missing":
        return InputError(f"{place}: missing", "every suite needs it; see hptransfer list suites")
    message = first["msg"][0].lower() + first["msg"][1:]
    return InputError(f"{place}: got {first['input']!r}, {message}", "see README, section Suites")


def fresh_seeds(count: int) -> range:
    return range(FRESH_SEED, FRESH_SEED + count)
