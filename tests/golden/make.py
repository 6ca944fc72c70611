"""Writes losses.json: 20-step float64 losses of every optimizer on every model.

    OMP_NUM_THREADS=1 python tests/golden/make.py

A changed loss changes what users measure: raise `REVISION` of the part that changed it.
"""

import json
import sys
from pathlib import Path

import torch

PLACE = Path(__file__).with_name("losses.json")


def losses(optimizer: str, model: str) -> dict[str, list[float] | float]:
    """Loss of every training step, and the held-out loss at the end."""
    from units import lanes, spec

    run = spec(optimizer, model, steps=20, batch=16, warmup=0.1, clip=1.0, seed=3)
    running = lanes([run], dtype=torch.float64)
    running.losses = running.losses.double()
    for t in range(run.steps):
        running.gradients(t)
        running.update(t)
    running.read_out()
    return {"train": running.losses[0].tolist(), "heldout": running.evaluate().item()}


def main() -> None:
    sys.path[:0] = [str(PLACE.parents[1]), str(PLACE.parents[2])]
    from units import MODELS, OPTIMIZERS

    torch.set_num_threads(1)
    table = {f"{o} {m}": losses(o, m) for m in MODELS for o in OPTIMIZERS}
    PLACE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
