"""Time and memory of `hptransfer analyze` on a large table.

Made-up runs of four optimizers at five widths. The ratio is to pandas.read_csv of the same file in
another process. Prints a Markdown table; asserts nothing.

    python tests/benchmarks/analyze.py [--counts 10000 1000000]
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

WIDTHS = (64, 128, 256, 512, 1024)
LABELS = ("adamw", "muon", "scion", "sgd")
OCTAVES = np.arange(-12, -2, 0.5)


def fill(path: Path, count: int) -> None:
    """A table of about `count` runs in a random order; AdamW's optimum drifts."""
    rng = np.random.default_rng(0)
    seeds = range(max(count // (len(LABELS) * len(WIDTHS) * len(OCTAVES)), 1))
    names = ["optimizer", "width", "log2_lr", "seed"]
    made = pd.MultiIndex.from_product([LABELS, WIDTHS, OCTAVES, seeds], names=names)
    table = made.to_frame(index=False)
    drift = (table["optimizer"] == "adamw") * np.log2(table["width"] / WIDTHS[0])
    loss = 3 + 0.05 * (table["log2_lr"] + 7 + drift) ** 2 + 0.02 * rng.normal(size=len(table))
    table = table.assign(lr=2.0 ** table["log2_lr"], val_loss=loss).drop(columns="log2_lr")
    table.sample(frac=1, random_state=0).to_csv(path, index=False)


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds on the clock and of the processor, and the largest memory in MiB, of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 1_000_000])
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    print("| rows | seconds | processor seconds | of read_csv | ratio | peak MiB |")
    print("|---|---|---|---|---|---|")
    for count in sorted(options.counts):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "runs.csv"
            fill(path, count)
            plain = [sys.executable, "-c", f"import pandas; pandas.read_csv({str(path)!r})"]
            _, floor, _ = measured(plain)
            command = [sys.executable, "-m", "hptransfer", "analyze", str(path), "--results"]
            seconds, own, peak = measured([*command, scratch])
        row = f"{seconds:.1f} | {own:.1f} | {floor:.1f} | {own / floor:.1f} | {peak:.0f}"
        print(f"| {count:,} | {row} |", flush=True)


if __name__ == "__main__":
    main()
