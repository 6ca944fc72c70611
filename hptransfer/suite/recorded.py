"""A suite as its file says now, against the runs that are recorded."""

from hptransfer.datasets import Unread
from hptransfer.spec import MOST, RunSpec
from hptransfer.suite import parts
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.resolved import Suite, resolve


def as_recorded(table: SuiteTable, kept: Suite) -> Suite:
    """The suite of a file, on the data set of the last run, which is not read.

    `kept`: the suite of that run, from its manifest. An optimizer or a setting that has changed
    since gives other runs, so no older record passes for one of them. So does a data set of
    another name, revision or fields; another content of the same data set is not seen.
    Raises InputError as `resolve` does.
    """
    run = next(iter(kept.templates.values()))
    sha256 = run.data.get("sha256", "")
    named = {**parts.identify("dataset", table.data), "sha256": sha256}
    named.pop("path", None)
    known = Unread(sha256, _heldout(kept, run)) if named == run.data else Unread()
    return resolve(table, known)


def _heldout(kept: Suite, run: RunSpec) -> int:
    """Held-out examples of the data; MOST where the run shows only that there are enough."""
    context = run.model.get("context")
    enough = context is not None and run.eval_examples >= max(1, kept.eval_tokens // context)
    return MOST if enough else run.eval_examples


def differing_fields(one: RunSpec, other: RunSpec) -> list[str]:
    """The fields in which two runs differ, each with both values: `hp.beta 0.9, not 0.95`."""
    a, b = _flat(one), _flat(other)
    names = dict.fromkeys([*a, *b])
    return [
        f"{name} {a.get(name, 'missing')}, not {b.get(name, 'missing')}"
        for name in names
        if a.get(name) != b.get(name) or (name in a) != (name in b)
    ]


def _flat(run: RunSpec) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in run.to_json().items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat
