"""The polar factor's accuracy and time: method, steps, precision and form, by width.

Square matrices, and one of 4:1, with singular values log-uniform in [1e-3, 1] in random directions,
so that no SVD is needed: the extreme singular values of D come from Lanczos on D^T D. Below 128
`mixed` is float32.
Prints a Markdown table with medians of the time; asserts nothing.

    python tests/benchmarks/polar.py [--widths 64 128 ... 4096] [--repeats 5] [--threads 2]
"""

import argparse
import platform
import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor

from hptransfer.cost.machine import usable_cores
from hptransfer.geometry.polar import PolarDtype, PolarForm, PolarMethod, polar
from hptransfer.train import engine

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
RECTANGLE = 1024  # the small side of the 4:1 matrix, or the largest width below it
SLOW = 2048  # from here on fewer repeats
LANCZOS = 120


class Case(NamedTuple):
    method: PolarMethod
    steps: int
    dtype: PolarDtype
    form: PolarForm = "plain"


CASES = (
    Case("jordan", 5, "bfloat16"),
    *(Case("polar_express", k, dtype) for dtype in ("mixed", "float32") for k in (5, 6, 8)),
    Case("polar_express", 8, "float32", "gram"),
)
LONG_CASES = (Case("jordan", 5, "bfloat16", "gram"), Case("polar_express", 8, "mixed", "gram"))


def matrix(d_out: int, d_in: int, spectrum: Tensor) -> Tensor:
    """U diag(spectrum) V^T, float32 from float64; U and V from QR of Gaussians."""
    u, v = (
        torch.linalg.qr(torch.randn(d, len(spectrum), dtype=torch.float64))[0]
        for d in (d_out, d_in)
    )
    return ((u * spectrum) @ v.mT).float()


def extremes(d: Tensor) -> tuple[float, float]:
    """Smallest and largest singular value of a tall D, by Lanczos on D^T D - 1 in float64."""
    d = d.double()
    n = min(LANCZOS, d.shape[1])
    basis = torch.zeros(d.shape[1], n, dtype=torch.float64)
    tridiagonal = torch.zeros(n, n, dtype=torch.float64)
    v = torch.randn(d.shape[1], dtype=torch.float64)
    for j in range(n):
        basis[:, j] = v / v.norm()
        v = d.mT @ (d @ basis[:, j]) - basis[:, j]
        tridiagonal[j, j] = basis[:, j] @ v
        for _ in range(2):  # once leaves rounding along the directions already found
            v = v - basis[:, : j + 1] @ (basis[:, : j + 1].mT @ v)
        if j + 1 < n:
            tridiagonal[j, j + 1] = tridiagonal[j + 1, j] = v.norm()
    values = (1 + torch.linalg.eigvalsh(tridiagonal)).clamp(min=0).sqrt()
    return values[0].item(), values[-1].item()


def timed(m: Tensor, case: Case, repeats: int) -> tuple[Tensor, float]:
    """D and the median time in milliseconds."""
    d, times = m, []
    for _ in range(repeats):
        began = time.perf_counter()
        d = polar(m, **case._asdict())
        times.append(time.perf_counter() - began)
    return d, 1e3 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    narrow = max([w for w in options.widths if w <= RECTANGLE], default=RECTANGLE)
    shapes = [*((w, w) for w in sorted(options.widths)), (4 * narrow, narrow)]
    print(
        f"{engine.device_name(torch.device('cpu'))}, {options.threads} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}; singular values "
        f"log-uniform in [1e-3, 1]; medians of {options.repeats} (fewer from width {SLOW})\n"
    )
    print(
        "| shape | method, steps | precision | form | max abs(σ - 1) | ‖D‖_op | <M,D>/‖M‖_* | ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for d_out, d_in in shapes:
        spectrum = torch.logspace(0, -3, d_in, dtype=torch.float64)
        m = matrix(d_out, d_in, spectrum)
        repeats = options.repeats if d_in < SLOW else max(1, options.repeats * SLOW // d_in // 2)
        for case in CASES + (LONG_CASES if d_out > d_in else ()):
            d, milliseconds = timed(m, case, repeats)
            low, high = extremes(d)
            gain = (m.double() * d.double()).sum().item() / spectrum.sum().item()
            print(
                f"| {d_out} x {d_in} | {case.method} {case.steps} | {case.dtype} | {case.form} "
                f"| {max(abs(low - 1), abs(high - 1)):.1e} | {high:.4f} | {gain:.5f} "
                f"| {milliseconds:.3g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
