"""The fields of groups that were tuned at the proxy: which value won, among how many."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hptransfer.analysis.frame import tuned_point
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import finished


@dataclass(frozen=True)
class GroupValue:
    """A hyperparameter that the proxy tuned beside the lr, and the value that is carried.

    `log2_value`: octaves. `n_values`: values tried. `n_runs`: runs at the proxy that only served to
    tune, over all tuned hyperparameters of the optimizer. `censored`: the edge of the tried values
    at which the best one lies.
    """

    optimizer: str
    hyperparameter: str
    log2_value: float
    n_values: int
    n_runs: int
    censored: Literal["low", "high"] | None


def group_values(suite: Question, rows: pd.DataFrame) -> list[GroupValue]:
    """One per tuned hyperparameter with a loss at the proxy, labels as the suite orders them.

    `rows`: rows of frame.select.
    """
    found = []
    for label, spans in suite.tuned.items():
        proxy = finished(rows[(rows["optimizer"] == label) & (rows["n"] == suite.proxy)])
        best = tuned_point(proxy)
        if best is None:
            continue
        points = [json.loads(point) for point in proxy["hp_point"].unique()]
        for name, span in spans.items():
            values = {point[name] for point in points}
            value = json.loads(best)[name]
            found.append(
                GroupValue(
                    optimizer=label,
                    hyperparameter=name,
                    log2_value=round(8 * math.log2(value)) / 8,
                    n_values=len(values),
                    n_runs=int(proxy["tuning"].sum()),
                    censored=span.edge(values, value),
                )
            )
    return found
