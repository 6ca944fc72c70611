"""A made-up suite whose optimizer tunes a group's field, and all of its records."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from frames import record, to_frame
from hptransfer.datasets import Unread
from hptransfer.search.plan import plan
from hptransfer.spec import RunSpec
from hptransfer.suite.file import parse_suite
from hptransfer.suite.resolved import Suite, resolve

Loss = Callable[[RunSpec], float]


def suite_of(table: dict[str, Any] | None = None, **changes: Any) -> Suite:
    own = {"lr": "2^-8..2^-2", "groups": {"aux": {"lr": "2^-9..2^-4"}}, **(table or {})}
    whole = {
        "name": "made_up",
        "claim": "none",
        "model": "gpt",
        "data": "python_source",
        "proxy": 32,
        "targets": [64],
        "steps": 10,
        "batch": 2,
        "max_seeds": 3,
        "optimizers": {"muon": own},
        **changes,
    }
    return resolve(parse_suite(whole, {}), Unread("0" * 64))


def bowl(aux: float, lr: float) -> Loss:
    """A valley that is oblique in the two rates, lowest at 2^aux and 2^lr."""

    def loss(spec: RunSpec) -> float:
        a, b = math.log2(spec.hp["aux_lr"]) - aux, spec.log2_lr - lr
        return 2.5 + 0.08 * (a**2 + b**2 + 0.6 * a * b) + 0.001 * spec.seed

    return loss


def whole(suite: Suite, loss: Loss, order: int | None = None) -> pd.DataFrame:
    """Records of every run that the suite needs; with `order` one answer at a time."""
    lot = np.random.default_rng(order)
    rows: list[dict[str, Any]] = []
    for _ in range(800):
        todo = plan(suite, to_frame(rows))
        if not todo:
            return to_frame(rows)
        if order is not None:
            todo = [todo[lot.integers(len(todo))]]
        rows += [{**record(s, s.width, s.log2_lr), "loss": loss(s)} for s in todo]
    raise AssertionError("the suite does not end")
