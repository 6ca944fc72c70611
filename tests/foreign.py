"""Runs of the models of the zoo, which stand in its files as a user's own."""

from pathlib import Path
from typing import Any

import torch

from hptransfer import registry
from hptransfer.spec import RunSpec
from hptransfer.testing.common import small_spec, tiny_images, tiny_text
from hptransfer.train.build import Data
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared, prepare

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def address(name: str) -> str:
    """file.py:name of a model that trains or is refused."""
    refused = f"def {name}(" in (text := (HERE / "zoo_refused.py").read_text()) or (
        f"class {name}(" in text
    )
    return f"{HERE / ('zoo_refused.py' if refused else 'zoo_models.py')}:{name}"


def run_of(name: str, optimizer: str = "adamw", **changes: Any) -> tuple[RunSpec, Data]:
    """A small run of a model of the zoo, width 32 over base 16, and its data."""
    model = registry.describe("model", address(name))
    given = {"batch": 8, "steps": 6, "base": {"width": 16}, "log2_lr": -6.0, **changes}
    spec = small_spec(registry.describe("optimizer", optimizer), model, 32, **given)
    return spec, tiny_text() if "context" in model.defaults else tiny_images()


def prepared_of(name: str, optimizer: str = "adamw", **changes: Any) -> Prepared:
    return prepare(*run_of(name, optimizer, **changes))


def trained(prepared: Prepared, lanes: int = 1, seeds: tuple[int, ...] = (0,)) -> Lanes:
    """Lanes an octave apart after all their steps."""
    spec = prepared.spec
    runs = [spec.point(spec.log2_lr - i, seeds[i % len(seeds)]) for i in range(lanes)]
    running = Lanes(runs, prepared.data, CPU, prepared=prepared)
    for t in range(spec.steps):
        running.gradients(t)
        running.update(t)
    return running


def by_name(prepared: Prepared) -> dict[str, Any]:
    return {p.name: p for p in prepared.params}
