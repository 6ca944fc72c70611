"""A resolved suite <-> its manifest, the suite.json beside its records."""

import json
from typing import Any

from hptransfer.errors import InputError
from hptransfer.spec import RunSpec, canonical
from hptransfer.suite.claim import Suite
from hptransfer.suite.file import parse_suite
from hptransfer.suite.tables import Origin

_RESOLVED = ("templates", "bounds", "source", "changed")  # beside the fields of the file


def as_manifest(suite: Suite) -> dict[str, Any]:
    """JSON values: the fields of the file, templates, bounds, and where the suite came from."""
    fields = suite.model_dump(mode="json", exclude={"templates", "bounds", "origin"})
    runs = {label: canonical(run.to_json()) for label, run in suite.templates.items()}
    return {
        **fields,
        "templates": {label: json.loads(run) for label, run in runs.items()},
        "bounds": {label: list(limits) for label, limits in suite.bounds.items()},
        "source": suite.origin.source,
        "changed": dict(suite.origin.changed),
    }


def stored_suite(manifest: dict[str, Any]) -> Suite:
    """The suite of a manifest.

    Raises InputError for a missing or a wrong value, and AttributeError, TypeError or ValueError
    for templates and bounds that `as_manifest` cannot have made.
    """
    table = parse_suite({key: value for key, value in manifest.items() if key not in _RESOLVED}, {})
    for key in _RESOLVED:
        if key not in manifest:
            raise InputError(f"{key}: missing", "the next run writes it")
    templates = {label: RunSpec.from_json(run) for label, run in manifest["templates"].items()}
    bounds = {label: (float(a), float(b)) for label, (a, b) in manifest["bounds"].items()}
    if not table.optimizers.keys() == templates.keys() == bounds.keys():
        raise ValueError("its optimizers, templates and bounds have different labels")
    origin = Origin(manifest["source"], manifest["changed"])
    return Suite.of(table.model_copy(update={"origin": origin}), templates, bounds)
