"""Trials per minute of a proxy sweep: ours, the same trials in a loop, and a process a trial.

Ours is what `tune` runs: worker processes, with the lanes that the engine's calibration picks.
Prints a Markdown table of medians; asserts nothing about time.

    python tests/benchmarks/loop.py [--widths 64 128 256] [--trials 8] [--steps 20] [--repeats 5]
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hptransfer.cost.calibrate import calibrate
from hptransfer.cost.count import count
from hptransfer.cost.machine import usable_cores
from hptransfer.cost.placement import Placement
from hptransfer.run.workers import Ended, Job, Pool
from hptransfer.search.plan import pack
from hptransfer.spec import RunRecord, RunSpec, Unit
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve
from hptransfer.train import engine
from hptransfer.train.prepare import prepare


def specs_at(width: int, trials: int, steps: int, optimizer: str) -> list[RunSpec]:
    suite = load_suite("gpt_width", {"steps": steps, "eval_tokens": 4096})
    resolved = resolve(suite, engine.load_data(suite.data))
    template = resolved.template(optimizer, width)
    return [template.point(-8 + i / 2, 0) for i in range(trials)]


def in_units(specs: list[RunSpec], lanes: int) -> list[Unit]:
    return pack(specs, lambda _: lanes)


def pooled(pool: Pool, units: list[Unit], data: dict[str, object], workers: int) -> float:
    """Seconds that so many warm workers take for the units, with one thread each."""
    began, waiting = time.perf_counter(), list(units)
    while waiting or pool.in_flight:
        while waiting and len(pool.jobs) < workers:
            pool.submit(Job(waiting.pop(0), data, "cpu", Placement()))
        for message in pool.messages(timeout=1.0):
            if isinstance(message, Ended) and message.error:
                raise RuntimeError(message.traceback or message.error)
    return time.perf_counter() - began


def in_a_loop(specs: list[RunSpec], data: engine.Data, threads: int) -> float:
    """One trial after another in this process, all threads."""
    engine.configure(threads)
    began = time.perf_counter()
    for spec in specs:
        for message in engine.train(Unit((spec,)), data, torch.device("cpu")):
            assert not isinstance(message, RunRecord) or message.status == "done"
    return time.perf_counter() - began


def a_process_each(width: int, trials: int, steps: int, optimizer: str) -> float:
    """A fresh interpreter a trial, one after another, default threads, start-up included."""
    began = time.perf_counter()
    for i in range(trials):
        arguments = [str(width), str(trials), str(steps), optimizer, str(i)]
        subprocess.run([sys.executable, __file__, "--one", *arguments], check=True)
    return time.perf_counter() - began


def one(width: str, trials: str, steps: str, optimizer: str, index: str) -> None:
    spec = specs_at(int(width), int(trials), int(steps), optimizer)[int(index)]
    data = engine.load_data(load_suite("gpt_width").data)
    for _ in engine.train(Unit((spec,)), data, torch.device("cpu")):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--optimizer", default="scion_unconstrained")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one)
        return
    cores = usable_cores()
    suite = load_suite("gpt_width")
    data = engine.load_data(suite.data)
    print(f"{engine.device_name(torch.device('cpu'))}, {cores} cores, torch {torch.__version__}, ")
    print(f"Python {platform.python_version()}; {options.optimizer}, {options.trials} trials of ")
    print(f"{options.steps} steps; medians of {options.repeats}, trials per minute.\n")
    print("| width | lanes x workers | ours | loop | process a trial | ours/loop | ours/process |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch, Pool(Path(scratch), "b", 1e9) as pool:
        for width in options.widths:
            specs = specs_at(width, options.trials, options.steps, options.optimizer)
            engine.configure(1)
            prepared = prepare(specs[0], data)
            lanes = calibrate(prepared, count(prepared), torch.device("cpu")).lanes
            share = -(-len(specs) // cores)
            units = in_units(specs, min(lanes, share))
            warm = [Unit((s,)) for s in specs_at(width, cores, 1, options.optimizer)]
            pooled(pool, warm, suite.data, cores)
            seconds: dict[str, list[float]] = {"ours": [], "loop": [], "process": []}
            for _ in range(options.repeats):
                seconds["ours"].append(pooled(pool, units, suite.data, cores))
                seconds["loop"].append(in_a_loop(specs, data, cores))
                seconds["process"].append(
                    a_process_each(width, options.trials, options.steps, options.optimizer)
                )
            rate = {k: 60 * options.trials / statistics.median(v) for k, v in seconds.items()}
            print(
                f"| {width} | {units[0].lanes} x {cores} | {rate['ours']:.1f} | {rate['loop']:.1f} "
                f"| {rate['process']:.1f} | {rate['ours'] / rate['loop']:.2f} "
                f"| {rate['ours'] / rate['process']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
