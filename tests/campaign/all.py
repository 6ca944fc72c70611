"""Runs every campaign of this folder and prints one Markdown page.

    python tests/campaign/all.py [--short] > campaign.md

--short: the smallest numbers, as the test suite runs them.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHORT = {
    "kill": ["--kills", "4"],
    "mutate": ["--cases", "60"],
    "writers": ["--writers", "3", "--rounds", "1"],
    "surroundings": ["--repeats", "1", "--only", "full_disk", "removed", "few_files"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    failed = []
    for name, arguments in SHORT.items():
        print(f"\n## {name}\n", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py")]
        done = subprocess.run([*command, *(arguments if options.short else [])])
        if done.returncode:
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
