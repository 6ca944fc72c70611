"""The tables of the settings: what differs among the optimizers, what all runs share."""

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from hptransfer.analysis.frame import groups
from hptransfer.analysis.group_values import GroupValue, group_values
from hptransfer.analysis.sentences import axis_name, power_of_two
from hptransfer.report.cells import DASH, Table, word
from hptransfer.spec import FIRST_SCHEMA, RunSpec
from hptransfer.suite.resolved import Suite


def _evaluated(spec: RunSpec) -> str:
    count = spec.eval_examples * (spec.batch if spec.schema == FIRST_SCHEMA else 1)
    context = spec.model.get("context")
    return f"{count * context:,} tokens" if context else f"{count:,} examples"


def fairness(suite: Suite, rows: pd.DataFrame) -> Table:
    """Settings by optimizer; a setting that is not the same for all carries a mark."""
    labels, parts = list(suite.templates), groups(rows)
    tuned = group_values(suite, rows)
    specs = {label: suite.template(label) for label in labels}

    def counted(label: str, column: str) -> str:
        counts = [
            f"{part[column].nunique()} at {n}"
            for (o, n), part in sorted(parts.items())
            if o == label
        ]
        return ", ".join(counts) or "none yet"

    settings: dict[str, list[str]] = {
        "function": [str(specs[x].optimizer["name"]) for x in labels],
        "revision": [str(specs[x].optimizer["revision"]) for x in labels],
        "weights at init": [f"by {specs[x].optimizer['name']}" for x in labels],
        "lr start range": [suite.optimizers[x].lr.text for x in labels],
        "schedule": [specs[x].schedule for x in labels],
        "warm-up, % of steps": [f"{100 * specs[x].warmup:g}" for x in labels],
        "gradient clipping": [f"{specs[x].clip:g}" if specs[x].clip else "none" for x in labels],
        "precision": [specs[x].precision for x in labels],
        "steps": [str(specs[x].steps) for x in labels],
        "batch": [str(specs[x].batch) for x in labels],
        "evaluation": [_evaluated(specs[x]) for x in labels],
        "sampler": [str(suite.setting(x, "sampler")) for x in labels],
        "trials at most": [str(suite.setting(x, "trials")) for x in labels],
        "learning rates tried": [counted(x, "log2_lr") for x in labels],
        "seeds": [counted(x, "seed") for x in labels],
        "tuned besides lr": [_tuned(suite, x, tuned) for x in labels],
    }
    for key in sorted({key for spec in specs.values() for key in spec.hp}):
        settings[f"hp: {key}"] = [
            "tuned" if key in suite.searched(x) else _plain(specs[x].hp.get(key, DASH))
            for x in labels
        ]
    settings |= _group_fields(specs)
    body = [
        [
            word(name, "head"),
            word("differs" if len(set(values)) > 1 else "", "flag"),
            *(word(value) for value in values),
        ]
        for name, values in settings.items()
    ]
    return Table("Fairness", ("setting", "", *labels), body)


def _group_fields(specs: dict[str, RunSpec]) -> dict[str, list[str]]:
    """What the groups of a torch optimizer are told by role, by setting."""
    by_role = {label: spec.optimizer.get("by_role", {}) for label, spec in specs.items()}
    named = sorted({(role, key) for own in by_role.values() for role in own for key in own[role]})
    return {
        f"group of {role}: {key}": [
            _plain(own.get(role, {}).get(key, DASH)) for own in by_role.values()
        ]
        for role, key in named
    }


def _tuned(suite: Suite, label: str, tuned: list[GroupValue]) -> str:
    """What a label tunes beside the lr, over which range, and what came out of how many trials."""
    words = [f"{key} in {values}" for key, values in suite.optimizers[label].search.items()]
    found = {each.hyperparameter: each for each in tuned if each.optimizer == label}
    for key, span in suite.tuned.get(label, {}).items():
        text = f"{key} in 2^{span.low:g}..2^{span.high:g}"
        if key in found:
            best = found[key]
            text += f": {power_of_two(best.log2_value)} of {best.n_values} values"
            text += f" (censored {best.censored})" if best.censored else ""
        words.append(text)
    if found:
        words.append(f"{next(iter(found.values())).n_runs} runs for it")
    return ", ".join(words) or "nothing"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def shared(suite: Suite) -> list[tuple[str, str]]:
    """What every run of the suite has in common, for the head of the fairness section."""

    def fields(values: dict[str, Any], leave: Iterable[str] = ()) -> str:
        kept = {k: v for k, v in values.items() if k not in ("name", *leave)}
        listed = ", ".join(
            f"{k} {json.dumps(v) if isinstance(v, list | dict) else _plain(v)}"
            for k, v in kept.items()
        )
        return f"{values['name']} ({listed})" if listed else str(values["name"])

    first = suite.template(next(iter(suite.templates)))
    depth = ("n_layer",) if suite.axis == "depth" else ()
    return [
        ("model", fields(first.model, depth)),
        ("data", fields(first.data)),
        ("base", ", ".join(f"{k} {v}" for k, v in suite.base.items()) or "none"),
        ("axis", f"{axis_name(suite)}: proxy {suite.proxy}, targets {suite.targets or 'none'}"),
        *([("waypoints", f"{suite.waypoints}, on one seed")] if suite.waypoints else []),
    ]
