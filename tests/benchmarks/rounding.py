"""How far the final loss of one run moves with what changes its rounding alone.

    python tests/benchmarks/rounding.py [--suite quickstart] [--width 256] [--seeds 3]

Each run of the suite at the carried lr is trained again with two threads, in micro-batches, as one
of two lanes, and with bfloat16 products in its polar factors where it has some. The table holds the
root mean square of the differences, in nats: `rounding` among a suite's thresholds.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace

import torch

from hptransfer.analysis.frame import searches, select
from hptransfer.analysis.optimum import optimum
from hptransfer.records.store import Store
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train import engine

CPU = torch.device("cpu")
Change = Callable[[RunSpec], float | None]


def loss(runs: list[RunSpec], data: engine.Data, **options: int) -> float:
    """Final loss of the first of these runs, trained as lanes of one unit."""
    ends = engine.train(Unit(tuple(runs)), data, CPU, **options)  # pyright: ignore[reportArgumentType]
    first = next(end for end in ends if isinstance(end, RunRecord))
    return first.loss


def changes(data: engine.Data) -> dict[str, Change]:
    """What is changed -> the loss of a run under it, None where the run has nothing of the kind."""

    def threads(run: RunSpec) -> float:
        torch.set_num_threads(2)
        try:
            return loss([run], data)
        finally:
            torch.set_num_threads(1)

    def mixed(run: RunSpec) -> float | None:
        if run.hp.get("polar_dtype") != "float32":
            return None
        return loss([replace(run, hp={**run.hp, "polar_dtype": "mixed"})], data)

    return {
        "two threads": threads,
        "micro-batches": lambda run: loss([run], data, micro_batch=max(1, run.batch // 2)),
        "two lanes": lambda run: loss([run, run.point(run.log2_lr - 1, run.seed)], data),
        "bfloat16 polar products": mixed,
    }


def carried(suite: Suite, label: str, store: Store) -> float:
    """The lr that the records carry, or the middle of the start grid."""
    own = searches(suite, select(suite, store.frame())).get(label, {})
    best = optimum(own[suite.proxy]) if suite.proxy in own else None
    return sum(suite.start_grid(label)) / 2 if best is None else best.log2_lr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="quickstart")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", default="results/reference")
    options = parser.parse_args()
    engine.configure(threads=1)
    table = load_suite(options.suite)
    data = engine.load_data(table.data)
    suite = resolve(table, data)
    store = Store(options.results, suite.name)
    names = changes(data)
    print(
        f"{options.suite}, width {options.width}, {options.seeds} seeds, torch {torch.__version__}"
    )
    print(f"\n| optimizer | log2 lr | {' | '.join(names)} |")
    print(f"|---|---|{'---|' * len(names)}")
    for label in suite.templates:
        lr = suite.clip_lr(label, carried(suite, label, store))
        squares: dict[str, list[float]] = {name: [] for name in names}
        for seed in range(options.seeds):
            run = suite.template(label, options.width).point(lr, seed)
            plain = loss([run], data)
            for name, change in names.items():
                other = change(run)
                if other is not None:
                    squares[name].append((other - plain) ** 2)
        cells = [f"{math.sqrt(sum(s) / len(s)):.5f}" if s else "" for s in squares.values()]
        print(f"| {label} | {lr:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
