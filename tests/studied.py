"""A study of the noise laboratory that takes seconds, and the cells of it."""

import dataclasses
from pathlib import Path

from hptransfer.laboratory.descent import measure
from hptransfer.laboratory.file import load_study
from hptransfer.laboratory.plan import progress
from hptransfer.laboratory.study import Study
from hptransfer.records.cells import Cell, CellRecord

TINY = """
kind = "laboratory"
claim = "tiny"
objective = { name = "plateau", gap = 20.0 }
sigma = 4.0
tuning_seeds = 2
fresh_seeds = 2
cap = 60.0

[methods.scion]
use = "scion_unconstrained"
hp = { radius_hidden = 1.0, start = "first", polar = "eigh" }
log2_lr = [-2.0, 1.0]
alpha = [1.0, 0.5]
theory = "batched"

[[parts]]
name = "exponents"
methods = ["scion"]
index = [2.0]
log2_eps = [0.0, -0.5, -1.0]
directions = [2]
"""


def tiny_study(folder: Path) -> Study:
    (folder / "tiny.toml").write_text(TINY)
    return load_study(str(folder / "tiny.toml"))


def first(study: Study) -> Cell:
    cell = progress(study, {})[0].missing
    assert cell is not None
    return cell


def finish(study: Study) -> dict[str, CellRecord]:
    records: dict[str, CellRecord] = {}
    while (cell := progress(study, records)[0].missing) is not None:
        records[cell.key] = measure(cell)
    return records


def single(study: Study, **changes: object) -> Cell:
    """A cell of one setting and four seeds without noise to speak of."""
    series = next(study.series())
    cell = series.cell(1.0, (-1.0,), (0.0,), (4.0,))
    return dataclasses.replace(cell, **{"seeds": (0, 4), **changes})
