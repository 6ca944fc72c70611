"""Time of one optimizer step at equal accuracy of its polar factor, from float32 momenta.

A factor D of M is accurate when its operator norm is within 1e-3 of 1 and <M, D> is at least 0.999
of the nuclear norm of M, for every hidden matrix. Each optimizer takes the fewest steps that reach
this; one that never does is listed so, with its best. The matrices have random singular vectors and
singular values 1/k, so that the smallest is 1/n of the largest. torch.optim.Muon gets the
coefficients that converge, (1.875, -1.25, 0.375). All are timed in turn. Prints a Markdown table of
medians; asserts nothing about time.

    python tests/benchmarks/accuracy.py [--widths 64 256 768] [--layers 12] [--repeats 5]
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from pytorch_optimizer import SCION
from pytorch_optimizer.optimizer.scion import LMONorm
from torch import Tensor, nn

import hptransfer.optim
from hptransfer.cost.machine import usable_cores
from hptransfer.geometry.polar import ProductDtype, polar
from hptransfer.models.gpt import gpt
from hptransfer.train import engine

CONVERGENT = (1.875, -1.25, 0.375)
NORM_ERROR = 1e-3
DUAL_SHARE = 0.999
MOST_STEPS = 40

Step = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """`factor(m, n)`: the polar factor of m by n steps; `make(model, n)`: its optimizer step."""

    factor: Callable[[Tensor, int], Tensor]
    make: Callable[[nn.Module, int], Step]


@dataclass(frozen=True)
class Accuracy:
    """The worst over all matrices: | ||D||_op - 1 |, and <M, D> over ||M||_*."""

    error: float
    share: float

    @property
    def reached(self) -> bool:
        return self.error <= NORM_ERROR and self.share >= DUAL_SHARE


def hidden(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if name.startswith("blocks")]


def spectrum_matrix(shape: tuple[int, int]) -> Tensor:
    """Random singular vectors, singular values 1/k."""
    n = min(shape)
    u, v = (torch.linalg.qr(torch.randn(side, n)).Q for side in shape)
    return u @ (v / torch.arange(1.0, n + 1)).mT


def by_muon(m: Tensor, steps: int) -> Tensor:
    p = nn.Parameter(torch.zeros_like(m))
    p.grad = m.clone()
    own = {"ns_coefficients": CONVERGENT, "ns_steps": steps}
    torch.optim.Muon([p], lr=1.0, weight_decay=0, momentum=0, nesterov=False, **own).step()
    return -p.detach() / max(1.0, m.shape[0] / m.shape[1]) ** 0.5


def muon_step(model: nn.Module, steps: int) -> Step:
    return torch.optim.Muon(hidden(model), ns_coefficients=CONVERGENT, ns_steps=steps).step


def by_scion(m: Tensor, steps: int) -> Tensor:
    p = nn.Parameter(torch.zeros_like(m))
    p.grad = m.clone()
    kwargs = {"num_steps": steps}
    SCION([p], lr=1.0, momentum=1.0, norm_type=LMONorm.SPECTRAL, norm_kwargs=kwargs).step()
    return -p.detach() * (m.shape[1] / m.shape[0]) ** 0.5


def scion_step(model: nn.Module, steps: int) -> Step:
    kwargs = {"num_steps": steps}
    return SCION(hidden(model), lr=1e-3, norm_type=LMONorm.SPECTRAL, norm_kwargs=kwargs).step


def ours(name: str, dtype: ProductDtype = "float32") -> Contestant:
    def factor(m: Tensor, steps: int) -> Tensor:
        return polar(m, "polar_express", dtype, steps)

    def make(model: nn.Module, steps: int) -> Step:
        for key, p in model.named_parameters():  # the others are given hidden matrices only
            if not key.startswith("blocks"):
                p.grad = None
        width, layers = hidden(model)[0].shape[1], list(model.get_submodule("blocks").children())
        with torch.device("meta"):
            base = gpt(2 * width, n_layer=len(layers))
        own = {"polar_dtype": dtype, "polar_steps": steps}
        return hptransfer.optim.optimizer(model, name, lr=1e-3, base=base, **own).step

    return Contestant(factor, make)


REFERENCE = "ours: scion_unconstrained"
CONTESTANTS = {
    "ours: muon": ours("muon"),
    REFERENCE: ours("scion_unconstrained"),
    "ours: transported_scion": ours("transported_scion"),
    "ours: scion_unconstrained, products as this processor makes them fastest": ours(
        "scion_unconstrained", "mixed"
    ),
    "torch.optim.Muon": Contestant(by_muon, muon_step),
    "pytorch-optimizer SCION": Contestant(by_scion, scion_step),
}


def accuracy(
    factor: Callable[[Tensor, int], Tensor], matrices: Iterable[Tensor], n: int
) -> Accuracy:
    errors, shares = [], []
    for m in matrices:
        d = factor(m, n).double()
        errors.append(abs(torch.linalg.matrix_norm(d, 2).item() - 1))
        nuclear = torch.linalg.matrix_norm(m.double(), "nuc")
        shares.append(((m * d).sum() / nuclear).item())
    return Accuracy(max(errors), min(shares))


def fewest(contestant: Contestant, matrices: list[Tensor]) -> tuple[int, Accuracy]:
    """The fewest steps that reach the accuracy, else those of the smallest error."""
    tried: dict[int, Accuracy] = {}
    for n in range(1, MOST_STEPS + 1):
        tried[n] = accuracy(contestant.factor, matrices, n)
        if tried[n].reached:
            return n, tried[n]
    best = min(tried, key=lambda n: max(tried[n].error, 1 - tried[n].share))
    return best, tried[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 768])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cpu")
    print(
        f"{engine.device_name(device)}, {usable_cores()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}; {options.layers} layers, "
        f"medians of {options.repeats}.\n"
    )
    print("| width | optimizer | fewest steps | norm off by | of the dual norm | ms | ratio |")
    print("|---|---|---|---|---|---|---|")
    for width in options.widths:
        shapes = sorted({(p.shape[0], p.shape[1]) for p in hidden(gpt(width, n_layer=1))})
        matrices = [spectrum_matrix(shape) for shape in shapes]
        found = {name: fewest(c, matrices) for name, c in CONTESTANTS.items()}
        steps = {}
        for name, contestant in CONTESTANTS.items():
            model = gpt(width, n_layer=options.layers)
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            steps[name] = contestant.make(model, found[name][0])
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for lap in range(options.repeats + 1):  # the first is a warm-up
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                if lap:
                    seconds[name].append(time.perf_counter() - began)
        medians = {name: statistics.median(own) for name, own in seconds.items()}
        least = medians[REFERENCE]
        for name, (n, reached) in found.items():
            count = str(n) if reached.reached else f"never; best at {n}"
            print(
                f"| {width} | {name} | {count} | {reached.error:.1e} | {reached.share:.4f} "
                f"| {1e3 * medians[name]:.1f} | {medians[name] / least:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
