"""Time of the whole quickstart, with bfloat16 products where they pay and with none.

A copy of the suite names the precision of every polar factor; float32 is the path of a processor
without bfloat16 instructions. Each way starts from no record and no remembered measurement. The
rate of float32 products of the same run stands beside the time, for machines differ. Prints a
Markdown table; asserts nothing about time.

    python tests/benchmarks/quickstart.py [--ways float32 mixed] [--max-seeds 3] [--steps N]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from replicates import with_polar

from hptransfer.cost.machine import usable_cores
from hptransfer.cost.speed import matmul_rate
from hptransfer.suite.file import suites_folder
from hptransfer.train import engine

CPU = torch.device("cpu")


def suite_text(way: str) -> str:
    text = (suites_folder() / "quickstart.toml").read_text()
    return with_polar(text, way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", default=["float32", "mixed"])
    parser.add_argument("--steps", type=int, help="Fewer steps, to see that this script works.")
    parser.add_argument("--max-seeds", type=int, help="Seeds at which an undecided verdict ends.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{engine.device_name(CPU)}, {usable_cores()} cores, torch {torch.__version__}\n")
    print("| polar factors | runs | minutes | of it training | GFLOP/s of one core | verdicts |")
    print("|---|---|---|---|---|---|")
    for way in options.ways:
        rate = matmul_rate(CPU) / 1e9
        with tempfile.TemporaryDirectory() as folder:
            suite = Path(folder) / "quick.toml"
            suite.write_text(suite_text(way))
            command = [sys.executable, "-m", "hptransfer", "run", str(suite), "--yes", "--quiet"]
            command += ["--results", folder, "--device", "cpu"]
            command += ["--steps", str(options.steps)] if options.steps else []
            command += ["--max-seeds", str(options.max_seeds)] if options.max_seeds else []
            began = time.perf_counter()
            own = {**os.environ, "XDG_CACHE_HOME": folder}
            subprocess.run(command, env=own, check=True, stdout=subprocess.DEVNULL)
            minutes = (time.perf_counter() - began) / 60
            results = Path(folder) / "quick"
            records = [
                json.loads(line)
                for path in results.glob("records-*.jsonl")
                for line in path.read_text().splitlines()
            ]
            metrics = json.loads((results / "metrics.json").read_text())
        trained = sum(record["seconds"] for record in records) / 60
        words = [each["verdict"] for suite in metrics["suites"] for each in suite["transfers"]]
        print(
            f"| {way} | {len(records)} | {minutes:.1f} | {trained:.1f} | {rate:.0f} "
            f"| {', '.join(words)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
