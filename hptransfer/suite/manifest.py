"""A resolved suite <-> its manifest, the suite.json beside its records."""

import json
from typing import Any

from pydantic import Field

from hptransfer.errors import InputError, located
from hptransfer.spec import (
    BOUNDS,
    COUNT,
    FIRST_SCHEMA,
    LARGEST,
    SCHEMA,
    RunSpec,
    canonical,
    fault,
    fits,
)
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import checked, parse_suite
from hptransfer.suite.resolved import Suite
from hptransfer.suite.tables import Origin, Table, Tuned

GONE = ("fresh_seeds",)  # fields that a suite once had
LATER = ("build", "by_role")  # fields of an optimizer that a manifest has only where they are set
FIRST_GONE = ("eval_batches",)  # those of FIRST_SCHEMA alone


class _Resolved(Table):
    """The values of a manifest that a suite file does not have."""

    templates: dict[str, dict[str, Any]] = Field(default_factory=dict)
    bounds: dict[str, list[float]] = Field(default_factory=dict)
    decay_rates: dict[str, list[str]] = Field(default_factory=dict)
    ngrams: dict[str, float] = Field(default_factory=dict)
    tuned: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    source: str = ""
    changed: dict[str, int | str] = Field(default_factory=dict)


def as_manifest(suite: Suite) -> dict[str, Any]:
    """The manifest as JSON values: the fields of the file, templates, bounds and origin."""
    fields = suite.model_dump(mode="json", exclude={*_Resolved.model_fields, "origin"})
    for table in fields["optimizers"].values():
        for key in LATER:
            if not table[key]:
                del table[key]
    runs = {label: canonical(run.to_json()) for label, run in suite.templates.items()}
    return {
        **fields,
        "templates": {label: json.loads(run) for label, run in runs.items()},
        "bounds": {label: list(limits) for label, limits in suite.bounds.items()},
        "tuned": {
            label: {key: [float(x) for x in vars(span).values()] for key, span in own.items()}
            for label, own in suite.tuned.items()
        },
        "decay_rates": {label: list(names) for label, names in suite.decay_rates.items()},
        "ngrams": {str(n): loss for n, loss in suite.ngrams.items()},
        "source": suite.origin.source,
        "changed": dict(suite.origin.changed),
    }


def stored_suite(manifest: dict[str, Any], schema: int = SCHEMA) -> Suite:
    """A manifest without its key `schema` -> the suite. The manifest may have no templates.

    Raises InputError for a missing or a wrong value, and ValueError for a number or a text that
    JSON in UTF-8 cannot hold.
    """
    own = {key: value for key, value in manifest.items() if key in _Resolved.model_fields}
    past = (*GONE, *(FIRST_GONE if schema == FIRST_SCHEMA else ()))
    fields = {key: value for key, value in manifest.items() if key not in (*own, *past)}
    table = parse_suite(fields, {})
    resolved = checked(_Resolved, own)
    json.dumps(manifest, ensure_ascii=False, allow_nan=False).encode()  # raises ValueError
    for name in ("templates", "bounds"):
        labels = getattr(resolved, name).keys()
        if labels != (table.optimizers.keys() if resolved.templates else set()):
            raise InputError(f"{name}: not those of the optimizers")
    for key, value in resolved.changed.items():
        if not (type(value) is str if key == "data" else fits(value, COUNT)):
            raise InputError(f"changed.{key}: got {value!r:.40}")
    for label, template in resolved.templates.items():
        with located(f"templates.{label}"):
            _check_template(table, label, template, resolved.decay_rates.get(label, []))
    if table.data["name"] == "file" and type(table.data.get("path")) is not str:
        raise InputError("data.path: not a string")
    suite = Suite.of(
        table.model_copy(update={"origin": Origin(resolved.source, resolved.changed)}),
        {label: RunSpec.from_json(template) for label, template in resolved.templates.items()},
        {label: _limits(label, octaves) for label, octaves in resolved.bounds.items()},
        {label: tuple(names) for label, names in resolved.decay_rates.items()},
        {label: _tuned(table, label, resolved) for label in resolved.tuned},
    )
    for label in suite.templates if suite.tokens else ():
        for n in suite.axis_values:
            suite.template(label, n)  # raises where the tokens are no whole steps
    for n, loss in resolved.ngrams.items():
        if not n.isdecimal() or not fits(loss, ((int, float), 0, LARGEST)):
            raise InputError(f"ngrams.{n}: got {loss!r:.40}, needs nats by a number of tokens")
    return suite.model_copy(update={"ngrams": {int(n): x for n, x in resolved.ngrams.items()}})


def _check_template(
    table: SuiteTable, label: str, template: dict[str, Any], decay_rates: list[str]
) -> None:
    """Raises InputError for a template that lacks a value that a report needs."""
    if why := fault(template):
        raise InputError(why)
    for part in ("model", "data", "optimizer"):
        if "revision" not in template[part]:
            raise InputError(f"{part} without a revision")
    if table.axis == "depth" and not fits(template["model"].get("n_layer"), COUNT):
        raise InputError("model without n_layer, the axis")
    for key in decay_rates:
        if not fits(template["hp"].get(key), ((float,), 0, 1)):
            raise InputError(f"hp.{key}: not a decay rate between 0 and 1")
    for key in table.optimizers[label].search:
        if type(template["hp"].get(key)) is not float:
            raise InputError(f"hp.{key}: not a number, but it is searched")


def _tuned(table: SuiteTable, label: str, resolved: _Resolved) -> dict[str, Tuned]:
    """The tuned hyperparameters of a label. Raises InputError."""
    found = {}
    for key, octaves in resolved.tuned[label].items():
        template = resolved.templates.get(label, {"hp": {}})
        if label not in table.optimizers or type(template["hp"].get(key)) is not float:
            raise InputError(f"tuned.{label}.{key}: no hyperparameter of a run")
        if len(octaves) != 4 or not all(fits(x, BOUNDS["log2_lr"]) for x in octaves):
            raise InputError(f"tuned.{label}.{key}: got {octaves!r:.40}, needs four octaves")
        low, high, floor, ceiling = octaves
        if not floor <= low < high <= ceiling:
            raise InputError(f"tuned.{label}.{key}: got {octaves}, needs a rising range in another")
        found[key] = Tuned(low, high, floor, ceiling)
    return found


def _limits(label: str, octaves: list[float]) -> tuple[float, float]:
    """Least and largest log2 lr of a label. Raises InputError."""
    if len(octaves) != 2 or not all(fits(x, BOUNDS["log2_lr"]) for x in octaves):
        raise InputError(f"bounds.{label}: got {octaves!r:.40}, needs two octaves")
    if octaves[0] > octaves[1]:
        raise InputError(f"bounds.{label}: got {octaves}, needs a rising range")
    return octaves[0], octaves[1]
