"""The parts that a suite names (model, data set, optimizers), checked against their sources."""

import math
from typing import Any

from hptransfer import registry
from hptransfer.errors import InputError, located, suggest
from hptransfer.registry import Part
from hptransfer.spec import LARGEST
from hptransfer.suite.ranges import LR_OCTAVES
from hptransfer.suite.tables import OptimizerTable, Tuned

GROWTH = 4  # octaves that a search may add to its start grid on each side


def describe(label: str, table: OptimizerTable) -> Part:
    """The optimizer of a label. Raises InputError for an unknown one, and for a wrong field."""
    if table.use and table.build:
        raise InputError("use, build: both name the optimizer", "take one of the two out")
    part = registry.describe("optimizer", table.build or table.use or label)
    builds = part.takes == "model"
    if table.build and not builds:
        raise InputError(
            f"build: the first argument of {part.name!r} is not called model",
            f"use = {table.build!r} for a rule or a class, or def {part.name}(model, lr, ...)",
        )
    if table.by_role and part.takes != "params":
        raise InputError(
            f"by_role: {part.name!r} is {'given the model' if builds else 'a rule'}, which says "
            "itself what it does with a role",
            "by_role is for a class that takes groups of parameters",
        )
    for role, fields in table.by_role.items():
        factor = fields.get("lr_factor", 1.0)
        if "lr" in fields or isinstance(factor, bool | str) or not 0 < factor <= LARGEST:
            raise InputError(
                f"by_role.{role}: a group's lr is lr_factor, a positive number, times the run's",
                "for instance lr_factor = 0.1",
            )
        if "params" in fields:
            raise InputError(f"by_role.{role}.params: the role names them", "take it out")
    return part


def identity(table: OptimizerTable, part: Part) -> dict[str, Any]:
    """What a run says of its optimizer, beside the hyperparameters."""
    own = {"by_role": table.by_role} if table.by_role else {}
    return {"name": part.name, "revision": part.revision, **own}


def lr_limits(part: Part, hp: dict[str, Any]) -> tuple[float, float]:
    """Least and largest log2 lr of an optimizer with these values of `hp`."""
    return part.lr_limits({**part.defaults, **hp}) or LR_OCTAVES


def decay_rates(label: str, table: OptimizerTable, part: Part) -> tuple[str, ...]:
    """The fields that are decay rates of an optimizer's averages, as its source names them.

    Raises InputError where its source names none, and where one of them is searched.
    """
    if part.decay_rates is None:
        raise InputError(
            f'momentum: "per_token" needs the decay rates of {part.name!r}, which names none',
            f'write DECAY_RATES = {{"{part.name}": ("beta",)}} beside it with the names of its '
            "fields, () for none",
        )
    for name in part.decay_rates:
        if name in table.search:
            raise InputError(
                f'optimizers.{label}.search.{name}: momentum = "per_token" sets it at every batch',
                'search it with momentum = "per_step"',
            )
    return part.decay_rates


def identify(kind: str, table: dict[str, Any]) -> dict[str, Any]:
    """Name, revision and all fields of a model or a data set.

    Raises InputError for an unknown part or field, and for a value outside its limits.
    """
    where = "data" if kind == "dataset" else kind
    with located(where):
        part = registry.describe(kind, table["name"])
    fields = {key: value for key, value in table.items() if key != "name"}
    return {"name": part.name, "revision": part.revision, **part.resolve(fields, where)}


def model_of(label: str, model: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`identify` of a suite's model with a label's own fields in place of the suite's.

    Raises InputError for a field that must be the same for all labels.
    """
    for key in ("name", "context"):
        if key in own:
            raise InputError(
                f"optimizers.{label}.model.{key}: all optimizers of a suite share it",
                "write two suites to compare two",
            )
    if not own:
        return identify("model", model)
    with located(f"optimizers.{label}"):
        return identify("model", {**model, **own})


def check_depth(model: dict[str, Any], depths: list[int]) -> None:
    """Raises InputError for a model without a field n_layer, or a depth outside its limits."""
    part = registry.describe("model", model["name"])
    if "n_layer" not in part.defaults:
        models = registry.with_field("model", "n_layer")
        raise InputError(
            f"axis: 'depth' needs a model with a field n_layer, {part.name!r} has none",
            f"models with one: {', '.join(models)}",
        )
    for depth in depths:
        part.resolve({"n_layer": depth}, "targets")


def tuned(
    label: str, *, table: OptimizerTable, part: Part, hp: dict[str, Any], sampler: str
) -> dict[str, Tuned]:
    """Hyperparameter -> its range, of every field in `groups`.

    Raises InputError for a group or a field that the optimizer does not have, a range outside its
    limits, and a sampler that takes no groups.
    """
    found: dict[str, Tuned] = {}
    fields = {f"{g}.{name}": span for g, own in table.groups.items() for name, span in own.items()}
    for name, span in fields.items():
        where = f"optimizers.{label}.groups.{name}"
        key = part.groups.get(name)
        if key is None or not isinstance(hp.get(key), float):
            known = ", ".join(part.groups) or "none"
            raise InputError(
                f"{where}: {part.name!r} has no group with this field",
                suggest(name, part.groups) or f"groups of {part.name}: {known}",
            )
        if sampler != "bracket":
            raise InputError(
                f"{where}: the sampler {sampler!r} takes no groups",
                f'sampler = "bracket", or search = {{ {key} = "{span.text}" }}',
            )
        low, high = part.limits.get(key, (0.0, 2.0 ** LR_OCTAVES[1]))
        floor = max(math.log2(low) if low > 0 else LR_OCTAVES[0], LR_OCTAVES[0])
        ceiling = min(math.log2(high), LR_OCTAVES[1])
        if span.low < floor or span.high > ceiling:
            raise InputError(
                f"{where}: got {span.text!r}, allowed: {low:g} to {high:g}", "shrink the range"
            )
        grown = max(span.low - GROWTH, floor), min(span.high + GROWTH, ceiling)
        found[key] = Tuned(span.low, span.high, *grown)
    return found


def check_search(
    label: str, *, table: OptimizerTable, part: Part, hp: dict[str, Any], sampler: str
) -> None:
    """Raises InputError for a range outside the limits of the optimizer.

    `hp`: all hyperparameters of the optimizer.
    """
    for key in table.search:
        if not isinstance(hp.get(key), float):
            raise InputError(
                f"optimizers.{label}.search.{key}: {part.name!r} has no real-valued field {key!r}",
                suggest(key, hp) or f"fields of {part.name}: {', '.join(hp)}",
            )
    if table.search and sampler == "bracket":
        raise InputError(
            f"optimizers.{label}.search: the bracket sampler searches the learning rate alone",
            'name another sampler, for instance sampler = "tpe", or tune its groups',
        )
    floor, ceiling = lr_limits(part, hp)
    if table.lr.low < floor or table.lr.high > ceiling:
        raise InputError(
            f"optimizers.{label}.lr: got {table.lr.text!r}, "
            f"allowed: 2^{floor:.0f}..2^{ceiling:.0f} for {part.name}",
            "the update of a constrained method is a convex combination, so lr <= 1"
            if ceiling == 0
            else "shrink the range",
        )
    for key, values in table.search.items():
        limits = part.limits.get(key)
        if limits and not (limits[0] <= values.low and values.high <= limits[1]):
            raise InputError(
                f"optimizers.{label}.search.{key}: got {values.text!r}, "
                f"allowed: {limits[0]} to {limits[1]}",
                "shrink the range",
            )
