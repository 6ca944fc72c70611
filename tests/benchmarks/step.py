"""Time and memory of one optimizer step on the parameters of a 12-layer GPT.

Against torch.optim.Muon, the Scion of pytorch-optimizer, and the floor: the FLOPs of the plain
form's matrix products over the best bfloat16 matrix-product rate of the same run; the Gram form
needs fewer on long matrices. Beside it these products themselves, in batches up to the size of
ours, with nothing else of a step: small ones do not reach that rate. Muon and Scion at equal
polynomial (5 Jordan steps), then our accurate default, whose products alone are timed too, as are
the polar factors of both with no momentum before them and no move after. Prints a Markdown table of
medians; asserts nothing about time.

    python tests/benchmarks/step.py [--widths 64 256 768] [--layers 12] [--repeats 5] [--device cpu]
"""

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

import hptransfer.optim
from hptransfer.cost.machine import usable_cores
from hptransfer.geometry.polar import (
    BFLOAT16_ROWS,
    GRAM_ASPECT,
    GRAM_ROWS_BFLOAT16,
    JORDAN,
    JORDAN_STEPS,
    PLAIN_STEPS,
    POLAR_EXPRESS,
    PolarMethod,
    Row,
    polar,
)
from hptransfer.geometry.processor import fast_bfloat16
from hptransfer.models.gpt import gpt
from hptransfer.train import engine
from hptransfer.train.groups import GROUP_ELEMENTS, GROUP_LEAST

PRODUCT_COUNT = 10
PRODUCTS = "products of 5 plain Jordan steps alone"
DEFAULT_PRODUCTS = "products of the default alone"
Step = Callable[[], object]
Made = Callable[[], Step]  # with what the step works on
FACTORS: dict[str, PolarMethod] = {
    "ours: polar factors alone, Jordan": "jordan",
    "ours: polar factors alone, default": "polar_express",
}


def timed(
    steps: dict[str, Made], device: torch.device, repeats: int
) -> dict[str, tuple[float, int]]:
    """Median seconds of each, and on CUDA the bytes allocated above what was there before.

    Round after round over all of them, so that a machine that slows down slows all. On CUDA one
    after another: all at once would not fit.
    """
    if device.type == "cuda" and len(steps) > 1:
        alone = {name: timed({name: step}, device, repeats) for name, step in steps.items()}
        return {name: found[name] for name, found in alone.items()}
    ready = {name: made() for name, made in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks = dict.fromkeys(steps, 0)
    for lap in range(repeats + 1):  # the first is a warm-up
        for name, step in ready.items():
            before = 0
            wait(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            began = time.perf_counter()
            step()
            wait(device)
            if lap:
                seconds[name].append(time.perf_counter() - began)
            if lap and device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated(device) - before
    return {name: (statistics.median(seconds[name]), peaks[name]) for name in steps}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product(device: torch.device, dtype: torch.dtype, n: int) -> Step:
    """PRODUCT_COUNT n x n products, after which the floor is reckoned."""
    a = torch.randn(n, n, device=device).to(dtype)
    return lambda: [a @ a for _ in range(PRODUCT_COUNT)]


def jordan_flops(model: nn.Module) -> float:
    """Of 5 steps on every hidden matrix: 2 n^2 (2 m + n) a step, n the smaller side."""
    total = 0.0
    for name, p in model.named_parameters():
        if name.startswith("blocks"):
            n, m = sorted(p.shape)
            total += 5 * 2 * n * n * (2 * m + n)
    return total


def stacked(model: nn.Module, device: torch.device, wide: bool) -> list[Tensor]:
    """Hidden matrices of norm 1, in batches up to the size of ours.

    `wide`: tall ones turned, and together with the wide ones, which a step of ours keeps apart.
    """
    hidden = [p for name, p in model.named_parameters() if name.startswith("blocks")]
    kind = "cuda" if device.type == "cuda" else "cpu"
    stacks: list[Tensor] = []
    for shape, alike in groupby(
        sorted(tuple(sorted(p.shape) if wide else p.shape) for p in hidden)
    ):
        x = torch.randn(len(list(alike)), *shape, device=device)
        x = x / torch.linalg.matrix_norm(x, keepdim=True)
        size = max(GROUP_ELEMENTS[kind] // math.prod(shape), GROUP_LEAST[kind])
        stacks += [part.clone() for part in x.split(size)]
    return stacks


def plain(x: Tensor, rows: Iterable[Row]) -> Tensor:
    """The three products of each plain step."""
    for a, b, c in rows:
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x


def jordan_products(model: nn.Module, device: torch.device) -> Step:
    """The products of 5 Jordan steps in bfloat16."""
    stacks = [x.bfloat16() for x in stacked(model, device, wide=True)]
    return lambda: [plain(x, JORDAN_STEPS * [JORDAN]) for x in stacks]


def default_products(model: nn.Module, device: torch.device) -> Step:
    """Those of the default's 8 steps in bfloat16: of a long matrix the first four and the last are
    plain, and the three between them on its Gram matrix."""
    stacks = [x.bfloat16() for x in stacked(model, device, wide=True)]

    def eight(x: Tensor) -> Tensor:
        if x.shape[-1] < GRAM_ASPECT * x.shape[-2] or x.shape[-2] < GRAM_ROWS_BFLOAT16:
            return plain(x, POLAR_EXPRESS)
        x = plain(x, POLAR_EXPRESS[:PLAIN_STEPS])
        gram = torch.bmm(x, x.mT)
        (_, b, c), *later = POLAR_EXPRESS[PLAIN_STEPS:-1]
        total = poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        for _, b, c in later:
            gram = torch.bmm(torch.bmm(poly, gram), poly)
            poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            total = torch.bmm(poly, total)
        return plain(torch.bmm(total, x), POLAR_EXPRESS[-1:])

    return lambda: [eight(x) for x in stacks]


def polar_factors(model: nn.Module, device: torch.device, method: PolarMethod) -> Step:
    """What a step of ours takes of its momenta."""
    stacks = stacked(model, device, wide=False)
    return lambda: [polar(x, method) for x in stacks]


def with_gradients(model: nn.Module) -> nn.Module:
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


def contestants(width: int, layers: int, device: torch.device) -> dict[str, Made]:
    """What makes each step, on a model of its own, so that none warms another's caches."""

    def model() -> nn.Module:
        with device:  # drawn there: a CPU takes seconds for wide ones
            return with_gradients(gpt(width, n_layer=layers))

    def hidden(own: nn.Module) -> list[Tensor]:
        return [p for name, p in own.named_parameters() if name.startswith("blocks")]

    def ours(name: str, **hp: Any) -> Step:
        own = model()
        for key, p in own.named_parameters():  # the others are given hidden matrices only
            if not key.startswith("blocks"):
                p.grad = None
        with torch.device("meta"):
            base = gpt(64 if width != 64 else 128, n_layer=layers)
        return hptransfer.optim.optimizer(own, name, lr=1e-3, base=base, **hp).step

    found: dict[str, Made] = {
        "torch.optim.Muon": lambda: torch.optim.Muon(hidden(model()), lr=1e-3).step
    }
    try:
        from pytorch_optimizer import SCION

        found["pytorch-optimizer SCION"] = lambda: SCION(hidden(model()), lr=1e-3).step
    except ImportError:
        print("pytorch-optimizer is not installed: its Scion is left out\n")
    names = {"muon": "muon", "scion": "scion_unconstrained", "transported": "transported_scion"}
    for kind, hp in (("Jordan", {"polar": "jordan"}), ("default", {})):
        for short, name in names.items():
            found[f"ours: {short}, {kind}"] = partial(ours, name, **hp)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 768])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = engine.pick_device(options.device)
    print(
        f"{engine.device_name(device)}, {usable_cores()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}; {options.layers} layers, medians of "
        f"{options.repeats}, milliseconds.\n"
    )
    print("| width | step | ms | over the fastest other | of the bf16 floor | extra MiB |")
    print("|---|---|---|---|---|---|")
    for width in options.widths:
        n = 8192 if device.type == "cuda" else min(2048, max(512, 4 * width))
        steps: dict[str, Made] = {"product": partial(product, device, torch.bfloat16, n)}
        with torch.device("meta"):
            shapes = gpt(width, n_layer=options.layers)
        steps[PRODUCTS] = partial(jordan_products, shapes, device)
        if width >= BFLOAT16_ROWS and fast_bfloat16(device):  # else they are float32 ones
            steps[DEFAULT_PRODUCTS] = partial(default_products, shapes, device)
        for name, method in FACTORS.items():
            steps[name] = partial(polar_factors, shapes, device, method)
        steps |= contestants(width, options.layers, device)
        found = timed(steps, device, options.repeats)
        flops = jordan_flops(shapes)
        rate = max(PRODUCT_COUNT * 2 * n**3 / found.pop("product")[0], flops / found[PRODUCTS][0])
        floor = flops / rate
        alone = (PRODUCTS, DEFAULT_PRODUCTS)
        others = [name for name in found if name not in alone and not name.startswith("ours")]
        fastest = min(found[name][0] for name in others)
        for name, (seconds, peak) in found.items():
            share = f"{floor / seconds:.0%}" if "default" not in name else "-"
            memory = f"{peak / 2**20:.0f}" if peak else "-"
            print(
                f"| {width} | {name} | {1e3 * seconds:.1f} | {seconds / fastest:.2f} "
                f"| {share} | {memory} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
