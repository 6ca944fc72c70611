"""Whether bfloat16 pays on a CPU: a training step of the GPT in both precisions, by width.

One lane and one thread, as a worker trains. Steps of the two alternate. `loss` is the held-out loss
after --steps steps of AdamW from the same weights on the same batches. Prints a Markdown table of
medians; asserts nothing.

    python tests/benchmarks/precision.py [--widths 64 128 256 512] [--steps 40]
"""

import argparse
import platform
import statistics
import time
from dataclasses import replace

import torch

from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve
from hptransfer.train import engine
from hptransfer.train.lanes import Lanes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    engine.configure(1)
    suite = load_suite("gpt_width", {"steps": options.steps})
    data = engine.load_data(suite.data)
    suite = resolve(suite, data)
    device = torch.device("cpu")
    print(
        f"{engine.device_name(device)}, 1 thread, torch {torch.__version__}, "
        f"Python {platform.python_version()}; batch {suite.batch}, {options.steps} steps\n"
    )
    print(
        "| width | float32, ms | bfloat16, ms | bfloat16 / float32 "
        "| loss in float32 | loss in bfloat16 |"
    )
    print("|---|---|---|---|---|---|")
    for width in options.widths:
        spec = suite.template("adamw", width).point(-8.0, 0)
        both = [Lanes([replace(spec, precision=p)], data, device) for p in ("float32", "bfloat16")]
        seconds: list[list[float]] = [[], []]
        for t in range(options.steps):
            for lanes, spent in zip(both, seconds, strict=True):
                began = time.perf_counter()
                lanes.gradients(t)
                lanes.update(t)
                spent.append(time.perf_counter() - began)
        single, half = (1e3 * statistics.median(spent) for spent in seconds)
        losses = [lanes.evaluate().item() for lanes in both]
        print(
            f"| {width} | {single:.1f} | {half:.1f} | {half / single:.2f} "
            f"| {losses[0]:.3f} | {losses[1]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
