"""Trials per hour of `tune` against today's practice, at the narrow widths of a proxy sweep.

Ours is the command itself, start-up, calibrated lanes and processes, records and study included;
a first call, not timed, calibrates. The practice's time a trial does not depend on how many follow
each other, so fewer of them (--practice) are timed.
Today's practice is `baseline.py`: a fresh process a trial, one at a time with torch's default
threads, and one a core at once with one thread each (two on a GPU). Same model, data, steps, batch
and evaluation.
Prints a Markdown table of medians and, with --plot, draws trials per hour against width; asserts
nothing about time.

    python tests/benchmarks/sweep.py [--widths 64 128 256] [--trials 16] [--steps 150] [--repeats 5]
        [--device cuda]
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hptransfer.cost.machine import usable_cores
from hptransfer.datasets import Tokens
from hptransfer.suite.file import load_suite
from hptransfer.train import engine

HERE = Path(__file__).parent
SUITE = """
claim = "a sweep to be timed"
model = {{ name = "gpt", n_layer = 2, head_size = 32, context = 64 }}
data = "python_source"
base = {{ width = 64 }}
proxy = {width}
steps = {steps}
batch = 16
sampler = "random"
trials = {trials}

[optimizers.{optimizer}]
lr = "2^-10..2^-5"
{more}
"""


def ours(folder: Path, width: int, options: argparse.Namespace) -> float:
    """Seconds of `hptransfer tune` for `trials` runs."""
    more = "warmup = 0.0\nclip = 1.0" if options.optimizer == "adamw" else 'hp = {polar = "jordan"}'
    place = folder / "timed.toml"
    fields = {"steps": options.steps, "trials": options.trials, "optimizer": options.optimizer}
    place.write_text(SUITE.format(width=width, more=more, **fields))
    with tempfile.TemporaryDirectory(dir=folder) as results:
        lanes = ["--lanes", str(options.lanes)] if options.lanes else []
        where = ["--results", results, "--device", options.device]
        arguments = ["tune", str(place), *where, "--quiet", "--yes", *lanes]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hptransfer", *arguments], check=True, stdout=subprocess.DEVNULL
        )
        spent = time.perf_counter() - began
        [records] = Path(results).glob("timed/records-*.jsonl")
        done = len(records.read_text().splitlines())
    return spent * options.trials / done


def practice(
    data: Path, width: int, options: argparse.Namespace, at_once: int, threads: int
) -> float:
    """Seconds of `trials` runs of baseline.py, `at_once` side by side, from fewer of them."""
    arguments = [str(data), "--width", str(width), "--steps", str(options.steps)]
    arguments += ["--optimizer", options.optimizer, "--threads", str(threads)]
    arguments += ["--device", options.device]
    began = time.perf_counter()
    for first in range(0, options.practice, at_once):
        running = [
            subprocess.Popen(
                [sys.executable, str(HERE / "baseline.py"), *arguments, "--seed", str(first + i)],
                stdout=subprocess.DEVNULL,
            )
            for i in range(at_once)
        ]
        for each in running:
            if each.wait() != 0:
                raise RuntimeError("baseline.py failed")
    return (time.perf_counter() - began) * options.trials / options.practice


def plot(rates: dict[int, dict[str, float]], place: Path) -> None:
    """Trials per hour against width, one line a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in next(iter(rates.values())):
        axes.plot(list(rates), [rate[name] for rate in rates.values()], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(rates), [str(width) for width in rates])
    axes.set(xlabel="width", ylabel="trials per hour")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(place, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--practice", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lanes", type=int, help="Instead of the calibrated number.")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, help="Write an SVG here.")
    options = parser.parse_args()
    device = engine.pick_device(options.device)
    cores = 2 if device.type == "cuda" else usable_cores()
    options.practice = -(-options.practice // cores) * cores  # every round full
    tokens = engine.load_data(load_suite("gpt_width").data)
    assert isinstance(tokens, Tokens)
    print(
        f"{engine.device_name(device)}, {usable_cores()} cores, "
        f"torch {torch.__version__}, "
        f"Python {platform.python_version()}; {options.optimizer}, {options.trials} trials of "
        f"{options.steps} steps, medians of {options.repeats}; trials per hour.\n"
    )
    names = ("hptransfer tune", "one process a trial", f"{cores} one-thread processes")
    print(f"| width | {' | '.join(names)} | ours / one | ours / {cores} |")
    print("|---|---|---|---|---|---|")
    rates = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "data.bin"
        data.write_bytes(tokens.train.tobytes() + tokens.heldout.tobytes())
        for width in options.widths:
            ways: list[Callable[[], float]] = [
                lambda width=width: ours(folder, width, options),
                lambda width=width: practice(data, width, options, 1, 0),
                lambda width=width: practice(data, width, options, cores, 1),
            ]
            ways[0]()  # calibrate once, as a first command of a user would
            seconds: list[list[float]] = [[], [], []]
            for _ in range(options.repeats):
                for spent, way in zip(seconds, ways, strict=True):
                    spent.append(way())
            rate = [3600 * options.trials / statistics.median(spent) for spent in seconds]
            rates[width] = dict(zip(names, rate, strict=True))
            shown = " | ".join(f"{each:.0f}" for each in rate)
            print(
                f"| {width} | {shown} | {rate[0] / rate[1]:.2f} | {rate[0] / rate[2]:.2f} |",
                flush=True,
            )
    if options.plot:
        plot(rates, options.plot)


if __name__ == "__main__":
    main()
