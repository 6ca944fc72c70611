"""The wide run: model-FLOPs and hardware utilisation, peak memory, and the plain loop beside it.

Utilisation is FLOPs over time over the matrix-product rate measured in the same run: bfloat16 on a
GPU, float32 on a CPU. `model` counts the forward and backward pass alone, `hardware` the
optimizer's products too. The plain loops are the same model under torch.optim.AdamW, and under
torch.optim.Muon with AdamW beside it, one process, all threads. `muon/jordan` takes the five steps
of the latter. Prints a Markdown table; asserts nothing.

    python tests/benchmarks/wide.py [--widths 512] [--batch 16] [--context 64] [--device cpu]
    python tests/benchmarks/wide.py --device cuda --widths 4096 --batch 128 --context 1024
"""

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from baseline import optimizers

from hptransfer import registry
from hptransfer.cost.count import Cost, count
from hptransfer.cost.machine import memory_of, usable_cores
from hptransfer.cost.placement import place
from hptransfer.datasets import Tokens, Unread
from hptransfer.models.gpt import gpt
from hptransfer.spec import RunSpec
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve
from hptransfer.train import engine
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import prepare

LABELS = ["adamw", "muon/jordan", "muon", "scion_unconstrained"]
PLAIN = {"plain AdamW": "adamw", "plain Muon": "muon"}


def spec_at(width: int, label: str, options: argparse.Namespace) -> RunSpec:
    """`label`: an optimizer, with its polar factor after a slash where that is not the default."""
    name, _, polar = label.partition("/")
    suite = load_suite("gpt_width", {"steps": 1000, "batch": options.batch})
    resolved = resolve(suite, Unread())
    spec = resolved.template("adamw", width).to_json()
    part = registry.describe("optimizer", name)
    spec["optimizer"] = {"name": name, "revision": part.revision}
    spec["hp"] = part.defaults | ({"polar": polar} if polar else {})
    spec["model"] = {**spec["model"], "context": options.context, "n_layer": options.layers}
    spec["precision"] = "bfloat16" if options.device != "cpu" else "float32"
    spec["clip"] = 0.0
    return RunSpec.from_json(spec).point(-8.0, 0)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(
    spec: RunSpec, cost: Cost, data: Tokens, device: torch.device
) -> tuple[Callable[[], None], int]:
    """A step, and examples a backward pass."""
    placement = place(cost, spec.batch, 0.9 * memory_of(device))
    assert placement is not None
    assert placement.micro_batch is not None
    parts, again = placement.micro_batch, placement.recompute
    lanes = Lanes([spec], data, device, micro_batch=parts, recompute=again, drawn=False)
    count = itertools.count()

    def step() -> None:
        t = next(count) % spec.steps
        lanes.gradients(t)
        lanes.update(t)

    return step, parts


def plain(spec: RunSpec, device: torch.device, micro_batch: int, name: str) -> Callable[[], None]:
    """A step of the same model in a loop of one's own, under torch's optimizers."""
    context, n_layer = spec.model["context"], spec.model["n_layer"]
    with device:
        model = gpt(spec.width, context=context, n_layer=n_layer)
    moving = optimizers(model, name, spec.lr)
    x = torch.randint(256, (spec.batch, context), device=device)
    bf16 = spec.precision == "bfloat16"

    def step() -> None:
        for part in x.split(micro_batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(part)
            loss = F.cross_entropy(logits.float().flatten(0, 1), part.flatten())
            (loss * len(part) / spec.batch).backward()
        for optimizer in moving:
            optimizer.step()
            optimizer.zero_grad()

    return step


def in_turn(
    ways: dict[str, Callable[[], None]], steps: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each, step by step in turn, so that a machine that slows slows all."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for lap in range(2 + steps):
        for name, step in ways.items():
            wait(device)
            began = time.perf_counter()
            step()
            wait(device)
            if lap >= 2:
                took[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def rate(device: torch.device) -> float:
    """FLOP/s of a matrix product of size 4096 in the precision of the run, the best of 5."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        wait(device)
        began = time.perf_counter()
        torch.mm(a, a)
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[512])
    parser.add_argument("--optimizers", nargs="+", default=LABELS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = engine.pick_device(options.device)
    data = engine.load_data(load_suite("gpt_width").data)
    assert isinstance(data, Tokens)
    peak_rate = rate(device)
    over = " | ".join(f"over {name}" for name in PLAIN)
    print(
        f"{engine.device_name(device)}, {usable_cores()} cores, "
        f"torch {torch.__version__}, Python {platform.python_version()}; "
        f"{options.batch * options.context:,} tokens a step, {options.layers} layers, "
        f"{peak_rate / 1e12:.2f} TFLOP/s\n"
    )
    print(f"| width | run | ms a step | {over} | model | hardware | micro-batch | GiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for width in options.widths:
        ways, costs, shown = {}, {}, {}
        for name in options.optimizers:
            spec = spec_at(width, name, options)
            costs[name] = count(prepare(spec, data))
            step, micro_batch = ours(spec, costs[name], data, device)
            used = f"{costs[name].memory / 2**30:.1f} (estimated)"
            if device.type == "cuda":  # one model at a time is there, so the peak is its own
                alone = in_turn({name: step}, options.steps, device)
                used = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}"
                del step
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            else:
                alone, ways[name] = {}, step
            shown[name] = micro_batch, used, alone
        first = spec_at(width, options.optimizers[0], options)
        for name, optimizer in PLAIN.items():
            ways[name] = plain(first, device, shown[options.optimizers[0]][0], optimizer)
        took = in_turn(ways, options.steps, device)
        for _, _, alone in shown.values():
            took |= alone

        def ratios(seconds: float, took: dict[str, float] = took) -> str:
            return " | ".join(f"{seconds / took[name]:.2f}" for name in PLAIN)

        for name in PLAIN:
            print(f"| {width} | {name} | {1e3 * took[name]:.0f} | {ratios(took[name])} | | | | |")
        for name, cost in costs.items():
            seconds, (micro_batch, used, _) = took[name], shown[name]
            model = cost.model_flops / seconds / peak_rate
            hardware = (cost.model_flops + cost.optimizer_flops) / seconds / peak_rate
            print(
                f"| {width} | {name} | {1e3 * seconds:.0f} | {ratios(seconds)} "
                f"| {model:.0%} | {hardware:.0%} | {micro_batch} | {used} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
