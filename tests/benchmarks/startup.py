"""Seconds of `hptransfer --help`, beside an interpreter that imports typer and rich alone.

python tests/benchmarks/startup.py [--repeats 11]
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time

WAYS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import typer, rich.console'": ["-c", "import typer, rich.console"],
    "hptransfer --help": ["-m", "hptransfer", "--help"],
    "hptransfer list": ["-m", "hptransfer", "list"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name, arguments in WAYS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    print(f"Python {platform.python_version()}, medians of {options.repeats}\n")
    print("| command | seconds |")
    print("|---|---|")
    for name, spent in seconds.items():
        print(f"| `{name}` | {statistics.median(spent):.2f} |")


if __name__ == "__main__":
    main()
