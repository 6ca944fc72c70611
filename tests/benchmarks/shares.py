"""A step in one process per core with one thread each, against fewer processes with more threads.

A calibration times these where a step is long; here they are timed for every width and optimizer of
a suite. All processes of a placement train at once. Prints a Markdown table; asserts nothing about
time.

    python tests/benchmarks/shares.py [SUITE ...]
"""

import argparse
import platform
import tempfile
from pathlib import Path

import torch

from hptransfer.run.session import Options, Session
from hptransfer.run.workers import Timing
from hptransfer.suite.file import load_suite
from hptransfer.train import engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=["quickstart", "gpt_width", "mlp_width"])
    options = parser.parse_args()
    print(
        f"{engine.device_name(torch.device('cpu'))}, torch {torch.__version__}, "
        f"Python {platform.python_version()}; a step of one lane.\n"
    )
    print("| suite | optimizer | width | processes x threads | ms a step | over the first |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.suites:
            suite = load_suite(name)
            session = Session(suite, Options(Path(scratch), device="cpu"), list(suite.optimizers))
            with session.pool as pool:
                for label in suite.optimizers:
                    for width in (suite.proxy, *suite.targets):
                        spec = session.suite.template(label, width)
                        first = 0.0
                        for placement in session.costs.placements(spec):
                            found = pool.time(Timing(spec, suite.data, "cpu", placement, 1))
                            first = first or found.shared
                            print(
                                f"| {name} | {label} | {width} "
                                f"| {placement.processes} x {placement.threads} "
                                f"| {1e3 * found.step:.1f} | {found.shared / first:.2f} |",
                                flush=True,
                            )


if __name__ == "__main__":
    main()
