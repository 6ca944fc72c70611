"""Tails of made-up noise: a run of two stacked layers and a head, without training."""

from typing import Any

import numpy as np

from hptransfer.analysis import tails
from hptransfer.report.tails import Measured, tails_json
from hptransfer.suite.resolved import Suite

PAIRS = 1000
STEPS = (0, 10, 50, 100)
INDEX = {"blocks.0.q": 1.0, "blocks.1.q": 8.0, "head": 0.0}
"""Layer -> tail index of its norms under single examples; 0 for no noise."""


def layer(name: str, step: int, batch: int, index: float) -> tails.LayerTail:
    """A layer whose norms are quantiles of a Pareto law, or all 0."""
    survival = (np.arange(PAIRS) + 0.5) / PAIRS
    sizes = survival ** (-1 / index) if index else np.zeros(PAIRS)
    found = tails.tail(sizes)
    return tails.LayerTail(name, "hidden", (8, 8), step, batch, found, found, 1.25, 1.9)


def measured(suite: Suite, label: str = "adamw", **changes: Any) -> Measured:
    """The tails of a run of the suite at its proxy; batches are lighter than single examples."""
    layers = [
        layer(name, step, batch, index * (1 if batch == 1 else 4))
        for step in STEPS
        for batch in (1, 8)
        for name, index in INDEX.items()
    ]
    fields: dict[str, Any] = {
        "optimizer": label,
        "axis_value": suite.proxy,
        "log2_lr": -6.0,
        "lr_source": "best recorded",
        "steps": 100,
        "pairs": PAIRS,
        "settings": suite.identity(label, suite.proxy),
        "layers": layers,
    }
    return Measured(**{**fields, **changes})


def document(suite: Suite, *runs: Measured) -> dict[str, Any]:
    """tails.json of these runs, by default of one by adamw."""
    return tails_json(suite.name, suite.axis, runs or [measured(suite)])
