"""Time of one training step on a GPU: made by Python, and replayed as one CUDA graph.

Both in the same run, in turn. Losses after the same steps stand beside the times, for a replayed
step must be the same step. Prints a Markdown table; asserts nothing about time.

    python tests/benchmarks/replay.py [--widths 64 256 1024 4096] [--lanes 1 7] [--steps 50]
        [--device cpu: a rehearsal, where nothing is replayed]
"""

import argparse
import statistics
import time

import torch

from hptransfer.spec import RunSpec
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve
from hptransfer.train import engine, memory, replay
from hptransfer.train.lanes import Lanes
from hptransfer.train.replay import EAGER_STEPS, Steps

WEIGHTS = 2**31  # of all lanes together; more is left out


def unit_of(width: int, optimizer: str, lanes: int, steps: int) -> list[RunSpec]:
    suite = load_suite("gpu_width", {"steps": steps, "eval_tokens": 4096})
    resolved = resolve(suite, engine.load_data(suite.data))
    template = resolved.template(optimizer, width)
    return [template.point(-9.0 + i / 2, 0) for i in range(lanes)]


def timed(lanes: Lanes, graph: bool, steps: int) -> tuple[float, float, float]:
    """Median milliseconds of a step, GiB at the peak, and the mean of all losses."""
    running = Steps(lanes)
    running.graph = running.graph and graph
    peak = memory.watch_peak(lanes.device)
    seconds = []
    for t in range(steps):
        began = time.perf_counter()
        running.step(t)
        if lanes.device.type == "cuda":
            torch.cuda.synchronize()
        if t > EAGER_STEPS:  # the step before is the one that is recorded
            seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds), peak() / 2**30, lanes.losses.mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 7])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "scion_unconstrained"])
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = engine.pick_device(options.device)
    replay.GRAPH_ELEMENTS = WEIGHTS  # what is larger than the package replays is timed too
    data = engine.load_data(load_suite("gpu_width").data)
    print(f"{engine.device_name(device)}, torch {torch.__version__}; medians of {options.steps}.\n")
    print(
        "| width | optimizer | lanes | million weights | made, ms | replayed, ms | ratio "
        "| made, GiB | replayed, GiB | mean loss of both |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for width in options.widths:
        for optimizer in options.optimizers:
            for lanes in options.lanes:
                unit = unit_of(width, optimizer, lanes, options.steps)
                row = {}
                for graph in (False, True):
                    torch.manual_seed(0)
                    running = Lanes(unit, data, device, drawn=False)
                    size = sum(group.w.numel() for group in running.groups)
                    if size > WEIGHTS:
                        break
                    row[graph] = timed(running, graph, options.steps)
                    del running
                    memory.release()
                else:
                    (slow, above, loss), (fast, below, other) = row[False], row[True]
                    print(
                        f"| {width} | {optimizer} | {lanes} | {size / 1e6:.1f} | {slow:.2f} "
                        f"| {fast:.2f} | {slow / fast:.1f} | {above:.2f} | {below:.2f} "
                        f"| {loss:.4f}, {other:.4f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
