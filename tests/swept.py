"""Made-up sweeps in the forms in which people keep theirs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hptransfer.foreign.names import Asked
from hptransfer.foreign.read import of_bytes
from hptransfer.foreign.rows import Reading, reading
from hptransfer.foreign.sweep import Sweep, sweep

SWEEPS = Path(__file__).parents[2] / "shared" / "sweeps"  # beside the checkout, where they are
WIDTHS = (64, 256)
OCTAVES = tuple(np.arange(-10.0, -3.5, 0.5))
Center = Callable[[int], float]


def holds(n: int) -> float:
    """The best log2 lr where it does not move."""
    return -7.1


def drifts(n: int) -> float:
    """The best log2 lr where it moves by one octave per doubling."""
    return -6.1 - float(np.log2(n / 64))


def runs(
    centers: Mapping[str, Center],
    *,
    widths: Iterable[int] = WIDTHS,
    octaves: Iterable[float] = OCTAVES,
    seeds: int = 3,
    noise: float = 0.002,
    curvature: float = 0.1,
) -> list[dict[str, Any]]:
    """One table per run: optimizer, width, lr, seed, loss; a parabola in log2 lr with noise."""
    rng = np.random.default_rng(0)
    return [
        {
            "optimizer": label,
            "width": n,
            "lr": float(f"{2.0**x:.8g}"),
            "seed": seed,
            "loss": round(3 + curvature * (x - center(n)) ** 2 + noise * float(rng.normal()), 6),
        }
        for label, center in centers.items()
        for n in widths
        for x in octaves
        for seed in range(seeds)
    ]


BOTH = {"adamw": drifts, "muon": holds}


def csv(rows: Iterable[Mapping[str, Any]], separator: str = ",") -> str:
    """The rows as text; an empty cell for None."""
    listed = list(rows)
    names = list(listed[0])
    cells = [["" if row[name] is None else str(row[name]) for name in names] for row in listed]
    return "\n".join(separator.join(line) for line in [names, *cells]) + "\n"


def read(text: str | bytes, **asked: Any) -> Reading:
    """What a table in `runs.csv` says."""
    data = text.encode() if isinstance(text, str) else text
    return reading(of_bytes(data, "runs.csv"), Asked(**asked), "runs")


def question(rows: Iterable[Mapping[str, Any]], **options: Any) -> tuple[Sweep, Reading]:
    """The sweep of some rows, and its reading."""
    found = read(csv(rows))
    return sweep(found, **options), found


def same(found: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two readings have the same runs."""
    names = ["optimizer", "n", "log2_lr", "seed", "status", "loss"]
    return (
        found[names]
        .astype({"optimizer": str, "status": str})
        .equals(other[names].astype({"optimizer": str, "status": str}))
    )
