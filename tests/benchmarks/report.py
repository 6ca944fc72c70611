"""Time and memory of `hptransfer report` on many records.

The records are those of the reference quickstart, repeated under other seeds. Prints a Markdown
table; asserts nothing.

    python tests/benchmarks/report.py [--counts 10000 100000]
"""

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hptransfer.spec import RunSpec

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "quickstart"


def fill(folder: Path, count: int) -> None:
    """A results folder of `count` records."""
    own = folder / "quickstart"
    own.mkdir(parents=True)
    shutil.copy(REFERENCE / "suite.json", own)
    lines = [
        json.loads(line)
        for path in sorted(REFERENCE.glob("records-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    with (own / "records-many.jsonl").open("w") as stream:
        for i in range(count):
            copy, line = divmod(i, len(lines))
            record = lines[line]
            seed = record["spec"]["seed"]
            seed += 3 * copy
            spec = replace(RunSpec.from_json(record["spec"]), seed=seed)
            made = {**record, "key": spec.key, "spec": spec.to_json()}
            stream.write(json.dumps(made, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    print("| records | seconds | peak MiB | report.html, kB |")
    print("|---|---|---|---|")
    for count in sorted(options.counts):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            fill(folder, count)
            command = [sys.executable, "-m", "hptransfer", "report", "quickstart"]
            began = time.perf_counter()
            subprocess.run(
                [*command, "--results", str(folder)], check=True, stdout=subprocess.DEVNULL
            )
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            size = (folder / "quickstart" / "report.html").stat().st_size / 1000
        print(f"| {count:,} | {seconds:.1f} | {peak:.0f} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
