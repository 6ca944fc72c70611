"""The transferred setting of a finished study, as TOML per parameter or as a Python script."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hptransfer import registry
from hptransfer.analysis.frame import groups, select
from hptransfer.analysis.group_values import GroupValue, group_values
from hptransfer.analysis.optimum import Optimum, optimum
from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.parts import describe
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train import engine
from hptransfer.train.foreign import group_fields
from hptransfer.train.prepare import Prepared, prepare, takes_model

__all__ = [
    "Setting",
    "settings",
    "to_python",
    "to_toml",
]


@dataclass(frozen=True)
class Setting:
    """One optimizer at one target.

    `spec`: its run. `address`, `model`: what names optimizer and model in a script. `parameters`:
    role and values per parameter. `dims`: arguments of the model that depend on the data. `source`:
    where the learning rate comes from, in words. `has_rules`: the optimizer gives a rule per
    parameter, which a torch.optim.Optimizer does not.
    """

    label: str
    spec: RunSpec
    address: str
    model: str
    parameters: dict[str, dict[str, Any]]
    dims: dict[str, Any]
    source: str
    has_rules: bool = True


def settings(
    table: SuiteTable, frame: pd.DataFrame, n: int, labels: list[str]
) -> dict[str, Setting | None]:
    """Label -> the setting at axis value `n`, with the carried learning rate.

    None for an optimizer without an optimum at the proxy. `frame`: the records of the suite.
    Raises InputError for an unknown part.
    """
    data = engine.load_data(table.data)
    suite = resolve(table, data)
    rows = select(suite, frame)
    parts, tuned = groups(rows), group_values(suite, rows)
    result: dict[str, Setting | None] = {}
    for label in labels:
        own = parts.get((label, suite.proxy))
        best = None if own is None else optimum(own)
        if best is None:
            result[label] = None
            continue
        spec = suite.template(label, n).point(suite.clip_lr(label, best.log2_lr), 0, **best.hp)
        source = _source(suite, best, [each for each in tuned if each.optimizer == label])
        optimizer = describe(label, suite.optimizers[label])
        model = registry.describe("model", suite.model["name"])
        addresses = (optimizer.address, model.target)
        prepared = prepare(spec, data)
        facts = (_parameters(prepared), data.dims, source, prepared.vectorises)
        result[label] = Setting(label, spec, *addresses, *facts)
    return result


def _source(suite: Suite, best: Optimum, tuned: list[GroupValue]) -> str:
    """Where the setting comes from, in words."""
    text = f"tuned at {suite.axis} {suite.proxy} on {best.n_points} learning rates"
    text += f", optimum at an edge ({best.censored})" if best.censored else ""
    for each in tuned:
        text += f"; {each.hyperparameter} 2^{each.log2_value:g} of {each.n_values} values"
        text += f", at an edge ({each.censored})" if each.censored else ""
    return text


def _parameters(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Parameter -> role and values of its rule, or of its group in a torch optimizer.

    Without values where a function of the model makes the groups.
    """
    spec = prepared.spec
    if takes_model(prepared.optimizer):
        return {p.name: {"role": p.role} for p in prepared.params}
    if not prepared.vectorises:
        return {p.name: {"role": p.role, **group_fields(spec, p.role)} for p in prepared.params}
    table = {}
    for p in prepared.params:
        own = getattr(prepared.rule(p), "settings", None)
        table[p.name] = {"role": p.role, **(own(spec.lr) if own else {"lr": spec.lr})}
    return table


def to_toml(settings: list[Setting]) -> str:
    """A table per optimizer: the fields of its run, its hyperparameters, a table per parameter."""
    lines = ["# lr: of one step at the peak of the schedule, per unit of the direction"]
    for each in settings:
        spec = each.spec
        run = {
            "optimizer": each.address,
            "source": each.source,
            "width": spec.width,
            "lr": spec.lr,
            "log2_lr": spec.log2_lr,
            **{k: getattr(spec, k) for k in ("steps", "batch", "schedule", "warmup", "clip")},
            "precision": spec.precision,
        }
        lines += ["", f"[{_key(each.label)}]", *_pairs(run)]
        lines += ["", f"[{_key(each.label)}.hp]", *_pairs(spec.hp)]
        for name, values in each.parameters.items():
            lines += ["", f"[{_key(each.label)}.parameters.{_key(name)}]", *_pairs(values)]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """A value as TOML, which shares JSON's strings, numbers, booleans and lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _pairs(values: dict[str, Any]) -> list[str]:
    """`key = value` lines; without None, because TOML has no null."""
    return [f"{_key(k)} = {_toml(v)}" for k, v in values.items() if v is not None]


def to_python(each: Setting) -> str:
    """A script that builds the model, its optimizer and its schedule, and takes one step.

    Each value stands in it as its repr, so that no value can be code. Raises InputError for a
    torch.optim.Optimizer, which needs no script.
    """
    spec = each.spec
    if not each.has_rules:
        raise InputError(
            f"export: {each.label} is a torch.optim.Optimizer",
            f"give it lr = {spec.lr!r} and {spec.hp}",
        )
    fields = {k: v for k, v in spec.model.items() if k not in ("name", "revision")}
    defaults = registry.describe("model", each.model).defaults
    fields |= {k: v for k, v in each.dims.items() if k in defaults}
    text = "context" in fields
    shape = (fields["context"],) if text else tuple(each.dims["in_shape"])
    base = spec.base.get("width", spec.width)
    values = {
        "title": f"{each.label} at width {spec.width}, lr 2^{spec.log2_lr:g}: {each.source}.",
        "target": each.model,
        "optimizer": each.address,
        "steps": spec.steps,
        "hp": spec.hp,
        "model": fields,
        "width": spec.width,
        "base": base,
        "wider": 2 * base,
        "log2_lr": spec.log2_lr,
        "schedule": spec.schedule,
        "warmup": spec.warmup,
        "clip": spec.clip,
        "shape": (spec.batch, *shape),
        "examples": (spec.batch,),
        "classes": each.dims["vocab"] if text else each.dims["n_classes"],
    }
    script = _SCRIPT.replace("BATCH", _TOKENS if text else _EXAMPLES)
    script = script.replace("CLIP", _CLIP if spec.clip else "")
    at_base = spec.width == base  # where no role shows
    script = script.replace("WIDER\n", _WIDER if at_base else "")
    script = script.replace("SHAPES", "base=base, wider=wider" if at_base else "base=base")
    return script.format(**{name: repr(value) for name, value in values.items()})


_SCRIPT = '''{title}

import torch
import torch.nn.functional as F

import hptransfer.optim
from hptransfer import registry

STEPS = {steps}
HP = {hp}
MODEL = {model}

make = registry.load("model", {target})
model = make({width}, **MODEL)
base = make({base}, **MODEL)
WIDER
hptransfer.optim.init_(model, {optimizer}, SHAPES, **HP)
optimizer = hptransfer.optim.optimizer(model, {optimizer}, lr=2.0**{log2_lr}, SHAPES, **HP)
schedule = hptransfer.optim.scheduler(
    optimizer, steps=STEPS, schedule={schedule}, warmup={warmup}
)


def step(x: torch.Tensor, y: torch.Tensor) -> float:
    """One training step on a batch; the loss in nats."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
    loss.backward()
CLIP    optimizer.step()
    schedule.step()
    return loss.item()


if __name__ == "__main__":
    BATCH
    print(step(x, y))  # put your data here
    optimizer.eval()  # before an evaluation or a checkpoint; then optimizer.train()
'''
_CLIP = "    torch.nn.utils.clip_grad_norm_(model.parameters(), {clip})\n"
_WIDER = "wider = make({wider}, **MODEL)  # the roles of the parameters show beside it\n"
_TOKENS = "x, y = torch.randint({classes}, {shape}), torch.randint({classes}, {shape})"
_EXAMPLES = "x, y = torch.randn({shape}), torch.randint({classes}, {examples})"
