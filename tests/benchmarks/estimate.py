"""What `plan` says a suite takes, what it took, and how much of that was bookkeeping.

Each suite is run as it is, or shortened by the options, into an empty folder, or into one that
stays; speeds are measured anew. Bookkeeping is the CPU time of the parent process between the start
of the first unit and the end (plans, studies, records, progress), as a share of the elapsed time of
all processes.

    python tests/benchmarks/estimate.py [SUITE ...] [--steps N] [--trials N] [--eval-batches N]
        [--results FOLDER] [--device cpu]
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import torch

from hptransfer.cost.machine import usable_cores
from hptransfer.run.session import Options, Session
from hptransfer.suite.file import load_suite, suite_names
from hptransfer.train import engine


def measured(
    name: str, changes: dict[str, int], results: Path, device: str
) -> tuple[float, float, float]:
    """Seconds estimated and taken, and the share of bookkeeping."""
    suite = load_suite(name, changes)
    session = Session(suite, Options(results, device=device), list(suite.optimizers))
    if session.known():
        raise SystemExit(f"{results} holds runs of {name} already: name an empty folder")
    expected = sum(cell.seconds for cell in session.expected(start=True))
    began, busy = time.perf_counter(), time.process_time()
    for _ in session.run():
        pass
    taken, busy = time.perf_counter() - began, time.process_time() - busy
    return expected, taken, busy / (taken * session.workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=["quickstart"], help="all: every suite")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--eval-tokens", type=int)
    parser.add_argument("--results", type=Path, help="Keep the runs here, for `hptransfer report`.")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    names = suite_names() if options.suites == ["all"] else options.suites
    shortened = ("steps", "trials", "eval_tokens")
    changes = {k: v for k in shortened if (v := getattr(options, k)) is not None}
    device = engine.pick_device(options.device)
    print(
        f"{engine.device_name(device)}, {usable_cores()} cores, "
        f"torch {torch.__version__}, Python {platform.python_version()}; "
        f"{changes or 'suites as they are'}\n"
    )
    print("| suite | estimated, s | taken, s | ratio | bookkeeping |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch  # speeds of an earlier call do not count
        for name in names:
            place = options.results or Path(scratch)
            expected, taken, share = measured(name, changes, place, options.device)
            print(
                f"| {name} | {expected:.0f} | {taken:.0f} | {expected / taken:.2f} | {share:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
