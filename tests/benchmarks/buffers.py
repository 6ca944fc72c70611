"""Memory that each optimizer holds between steps, as a multiple of the weights.

Counts the tensors of a training run (weights, gradients, optimizer state) after two steps, and on
CUDA the allocator's peak during the update as well. Prints a Markdown table; asserts nothing.

    python tests/benchmarks/buffers.py [--width 256] [--device cpu]
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve
from hptransfer.train import engine
from hptransfer.train.lanes import Lanes


def held(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = engine.pick_device(options.device)
    suite = load_suite("gpt_width", {"batch": 1})
    data = engine.load_data(suite.data)
    template = resolve(suite, data).template("adamw", options.width)
    print(f"GPT of width {options.width} on {engine.device_name(device)}, float32\n")
    print("| optimizer | weights | gradients | state | sum | peak of the update |")
    print("|---|---|---|---|---|---|")
    for name in registry.BUILTINS["optimizer"]:
        part = registry.describe("optimizer", name)
        table = {"name": name, "revision": part.revision}
        spec = replace(template, optimizer=table, hp=part.defaults, clip=0.0).point(-8.0, 0)
        lanes = Lanes([spec], data, device)
        more = before = 0
        for t in range(2):
            lanes.gradients(t)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            lanes.update(t)
            if device.type == "cuda":  # data and cuBLAS's own buffers are no part of it
                more = torch.cuda.max_memory_allocated(device) - before
        weights = held([group.w for group in lanes.groups])
        gradients = held([g for group in lanes.groups for g in group.g])
        state = held([s for group in lanes.groups for s in group.state.values()])
        peak = more + weights + gradients + state if device.type == "cuda" else 0
        shares = [x / weights for x in (weights, gradients, state, weights + gradients + state)]
        shown = " | ".join(f"{share:.2f}" for share in shares)
        print(f"| `{name}` | {shown} | {f'{peak / weights:.2f}' if peak else '-'} |", flush=True)


if __name__ == "__main__":
    main()
