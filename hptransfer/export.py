"""The transferred setting of a finished study: per-parameter TOML, and Python that runs."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hptransfer import registry
from hptransfer.analysis.metrics import optimum, select
from hptransfer.errors import InputError
from hptransfer.optimizers import rules
from hptransfer.spec import RunSpec
from hptransfer.suite.claim import Suite
from hptransfer.train import engine
from hptransfer.train.build import describe_params
from hptransfer.train.lanes import vectorises

__all__ = [
    "Setting",
    "settings",
    "to_python",
    "to_toml",
]


@dataclass(frozen=True)
class Setting:
    """One optimizer at one target: its run, and where the learning rate comes from."""

    label: str
    spec: RunSpec
    address: str
    model: str
    parameters: dict[str, dict[str, Any]]
    dims: dict[str, Any]
    source: str


def settings(
    suite: Suite, frame: pd.DataFrame, n: int, labels: list[str]
) -> dict[str, Setting | None]:
    """By label: the carried learning rate and the per-parameter table at axis value n.

    None stands for an optimizer that has not been tuned at the proxy. Raises InputError for an
    unknown part.
    """
    data = engine.load_data(suite.data)
    suite = suite.resolve(data.sha256)
    rows = select(suite, frame)
    made: dict[str, Setting | None] = {}
    for label in labels:
        own = rows[(rows.optimizer == label) & (rows.n == suite.proxy) & (rows.stage == "search")]
        best = optimum(own[own.status != "failed"])
        if best is None:
            made[label] = None
            continue
        spec = suite.template(label, n).point(suite.clip_lr(label, best.log2_lr), 0, **best.hp)
        source = f"tuned at {suite.axis} {suite.proxy} on {best.n_points} learning rates"
        if best.censored:
            source += f", optimum at an edge ({best.censored})"
        optimizer = registry.describe("optimizer", suite.optimizers[label].use or label)
        model = registry.describe("model", suite.model["name"])
        addresses = (optimizer.address, model.target)
        parameters = _parameters(spec, data)
        made[label] = Setting(label, spec, *addresses, parameters, data.dims, source)
    return made


def _parameters(spec: RunSpec, data: engine.Data) -> dict[str, dict[str, Any]]:
    """Parameter -> role and what its rule does; a torch optimizer has one lr for all."""
    if not vectorises(spec):
        return {p.name: {"role": p.role, "lr": spec.lr} for p in describe_params(spec, data)}
    factory = registry.load_spec("optimizer", spec.optimizer)
    table = {}
    for p in describe_params(spec, data):
        rule = rules.made(spec.optimizer["name"], factory, p, spec.hp)
        said = getattr(rule, "settings", None)
        table[p.name] = {"role": p.role, **(said(spec.lr) if said else {"lr": spec.lr})}
    return table


def to_toml(found: list[Setting]) -> str:
    """One table an optimizer: the run's fields, hyperparameters, and a table a parameter."""
    lines = ["# lr: of one step at the peak of the schedule, per unit of the direction"]
    for each in found:
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
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def _pairs(values: dict[str, Any]) -> list[str]:
    """TOML shares JSON's strings, numbers, booleans and lists; it has no null."""
    return [f"{_key(k)} = {json.dumps(v)}" for k, v in values.items() if v is not None]


def to_python(each: Setting) -> str:
    """A script that builds the model, its optimizer and its schedule, and takes one step.

    Raises InputError for a torch.optim.Optimizer, which needs none of this.
    """
    spec = each.spec
    if not vectorises(spec):
        raise InputError(
            f"export: {each.label} is a torch.optim.Optimizer",
            f"give it lr = {spec.lr!r} and {spec.hp}",
        )
    module, _, name = each.model.rpartition(":")
    fields = {k: v for k, v in spec.model.items() if k not in ("name", "revision")}
    asked = registry.describe("model", each.model).defaults
    fields |= {k: v for k, v in each.dims.items() if k in asked}
    given = "".join(f", {k}={v!r}" for k, v in fields.items())
    base = spec.base.get("width", spec.width)
    text = "context" in fields
    shape = f"({spec.batch}, {fields['context']})" if text else f"({spec.batch}, *{_shape(each)})"
    x = f"torch.randint({each.dims['vocab']}, {shape})" if text else f"torch.randn({shape})"
    classes = each.dims["vocab"] if text else each.dims["n_classes"]
    targets = f"torch.randint({classes}, {shape if text else f'({spec.batch},)'})"
    clip = f"torch.nn.utils.clip_grad_norm_(model.parameters(), {spec.clip})"
    label = json.dumps(each.label)[1:-1]  # what would end the docstring is escaped
    return f'''"""{label} at width {spec.width}, lr 2^{spec.log2_lr:g}: {each.source}."""

import torch
import torch.nn.functional as F

import hptransfer.optim
{_import(module, name)}

STEPS = {spec.steps}
HP = {spec.hp!r}

model = {name}({spec.width}{given})
base = {name}({base}{given})
hptransfer.optim.init_(model, {each.address!r}, base=base, **HP)
optimizer = hptransfer.optim.optimizer(
    model, {each.address!r}, lr=2.0**{spec.log2_lr!r}, base=base, **HP
)
schedule = hptransfer.optim.scheduler(
    optimizer, steps=STEPS, schedule={spec.schedule!r}, warmup={spec.warmup!r}
)


def step(x: torch.Tensor, y: torch.Tensor) -> float:
    """One training step on a batch; the loss in nats."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
    loss.backward()
{f"    {clip}{chr(10)}" if spec.clip else ""}    optimizer.step()
    schedule.step()
    return loss.item()


if __name__ == "__main__":
    print(step({x}, {targets}))  # your data go here
    optimizer.eval()  # before an evaluation or a checkpoint; optimizer.train() to go on
'''


def _shape(each: Setting) -> str:
    return repr(tuple(each.dims["in_shape"]))


def _import(module: str, name: str) -> str:
    if not module.endswith(".py"):
        return f"from {module} import {name}"
    load = f"registry.load('model', {f'{module}:{name}'!r})"
    return f"from hptransfer import registry\n\n{name} = {load}"
