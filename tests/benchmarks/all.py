"""Runs every benchmark of this folder and prints one Markdown page.

    python tests/benchmarks/all.py [--short] > benchmarks.md

--short: the smallest sizes, to see that every script works.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHORT = {
    "startup": ["--repeats", "1"],
    "report": ["--counts", "1000"],
    "analyze": ["--counts", "1000"],
    "buffers": ["--width", "64"],
    "polar": ["--widths", "64", "--repeats", "1"],
    "step": ["--widths", "64", "--layers", "1", "--repeats", "1"],
    "accuracy": ["--widths", "64", "--layers", "1", "--repeats", "1"],
    "quickstart": ["--ways", "float32", "--steps", "2"],
    "loop": ["--widths", "32", "--trials", "2", "--steps", "2", "--repeats", "1"],
    "sweep": ["--widths", "32", "--trials", "2", "--steps", "2", "--repeats", "1"],
    "precision": ["--widths", "64", "--steps", "4"],
    "shares": ["quickstart"],
    "wide": ["--widths", "64", "--steps", "2"],
    "estimate": ["quickstart", "--steps", "2", "--trials", "2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    for name, arguments in SHORT.items():
        print(f"\n## {name}\n", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py")]
        subprocess.run([*command, *(arguments if options.short else [])], check=True)


if __name__ == "__main__":
    main()
