"""The same suite run in ways that change its rounding alone: do its verdicts stay?

Each way is a whole study from no record: as the suite says, with the kernels of a processor that
has only AVX2, with those of one that has neither, and with bfloat16 products in the polar factors.
A way that is interrupted goes on where it stopped. The table holds the verdicts at the largest
target; a verdict equals the majority if most ways give it. Losses of the same way and processor
are equal to the last digit, so a way is run once.

    python tests/benchmarks/replicates.py --results FOLDER [--suite quickstart] [--steps N]
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch

from hptransfer.suite.file import suites_folder
from hptransfer.train import engine

KERNELS = {  # what the libraries under torch read, by the most that a processor is to have
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "sse": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}
PRECISIONS = ("float32", "mixed")
WAYS = [
    ("float32", None),
    ("float32", "avx2"),
    ("float32", "sse"),
    ("mixed", None),
    ("mixed", "avx2"),
]


def with_polar(text: str, precision: str) -> str:
    """A suite's text with another number format in every polar factor."""
    changed = text.replace('polar_dtype = "float32"', f'polar_dtype = "{precision}"')
    assert 'polar_dtype = "float32"' in text, "the suite says no precision of its polar factors"
    return changed


def study(options: argparse.Namespace, precision: str, kernels: str | None) -> dict[str, str]:
    """Label -> verdict at the largest target, of one whole study."""
    folder = Path(options.results) / f"{precision}-{kernels or 'own'}"
    folder.mkdir(parents=True, exist_ok=True)
    suite = folder / f"{options.suite}.toml"
    suite.write_text(with_polar((suites_folder() / suite.name).read_text(), precision))
    command = [sys.executable, "-m", "hptransfer", "run", str(suite), "--yes", "--quiet"]
    command += ["--results", str(folder), "--device", "cpu"]
    command += ["--steps", str(options.steps)] if options.steps else []
    own = {**os.environ, **KERNELS.get(kernels or "", {}), "XDG_CACHE_HOME": str(folder)}
    subprocess.run(command, env=own, check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads((folder / options.suite / "metrics.json").read_text())["suites"][0]
    last = max(each["target"] for each in metrics["transfers"])
    edge = {True: " (on the edge)", False: ""}
    return {
        each["optimizer"]: each["verdict"] + edge[each["on_edge"]]
        for each in metrics["transfers"]
        if each["target"] == last
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", required=True)
    parser.add_argument("--suite", default="quickstart")
    parser.add_argument("--steps", type=int, help="Fewer steps, to see that this script works.")
    options = parser.parse_args()
    print(
        f"{options.suite} on {engine.device_name(torch.device('cpu'))}, torch {torch.__version__}\n"
    )
    seen: list[dict[str, str]] = []
    for precision, kernels in WAYS:
        seen.append(study(options, precision, kernels))
        if len(seen) == 1:
            print(f"| polar factors | kernels | {' | '.join(seen[0])} |")
            print("|---" * (2 + len(seen[0])) + "|")
        cells = " | ".join(seen[-1].values())
        print(f"| {precision} | {kernels or 'its own'} | {cells} |", flush=True)
    plain = [{label: word.split(" (")[0] for label, word in each.items()} for each in seen]
    equal = sum(Counter(each[label] for each in plain).most_common(1)[0][1] for label in plain[0])
    print(f"\n{equal} of {len(plain) * len(plain[0])} verdicts equal the majority.")


if __name__ == "__main__":
    main()
