"""What one GPU is asked, in order of worth: tests, a tuned and carried width, benchmarks, batches.

Every stage has a limit of its own, writes what it found into --out before the next begins, and a
stage that fails or runs out of time does not keep the next from its turn. --resume skips what is
done there; records are kept at every stage, so a search goes on where it was cut off. No network is
needed.

    python tests/benchmarks/gpu.py [--out results/reference/gpu_width] [--limit 300] [--resume]
    python tests/benchmarks/gpu.py --device cpu --small --out /tmp/rehearsal

--small: the smallest sizes, to see on a CPU that every stage works, without a limit for each.
Writes OUT/stages.json (status and seconds of each stage), OUT/STAGE.log, and the records and the
report of `gpu_width` beside them where OUT has its name.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hptransfer.cost.machine import usable_cores
from hptransfer.train import engine

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BATCHES = """
claim = "Scion's best lr stays within half an octave over batch sizes; AdamW's does not"
model = {{ name = "gpt", n_layer = 2, head_size = 32, context = 64 }}
data = "python_source"
base = {{ width = 64 }}
axis = "batch_size"
width = {width}
proxy = {proxy}
targets = [{targets}]
steps = {steps}
batch = {proxy}
precision = "bfloat16"

[optimizers.adamw]
lr = "2^-11..2^-7"
warmup = 0.1
clip = 1.0

[optimizers.scion_unconstrained]
lr = "2^-6..2^-2"
"""


@dataclass(frozen=True)
class Stage:
    """A command with its limit in seconds. `least`: not begun with fewer seconds left."""

    name: str
    command: list[str]
    limit: float
    least: float = 10.0


@dataclass(frozen=True)
class Outcome:
    """`status`: done, failed, cut (by its limit) or skipped (no time left)."""

    status: str
    seconds: float = 0.0
    code: int | None = None


def stages(options: argparse.Namespace) -> list[Stage]:
    """Every stage in order of worth."""
    out, device, small = options.out, options.device, options.small
    where = ["--device", device, "--results", str(out.parent), "--yes"]
    beside = ["--device", device, "--results", str(out / "more"), "--yes"]
    short = ["--steps", "2"] if small else []
    narrow, wide = ("32", "64") if small else ("256", "4096")

    def ours(verb: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "hptransfer", verb, *arguments]

    def script(name: str, *arguments: str) -> list[str]:
        return [sys.executable, str(HERE / f"{name}.py"), "--device", device, *arguments]

    def chosen(*labels: str) -> list[str]:
        return [word for label in labels for word in ("--optimizer", label)]

    carried = ["gpu_width", "--from", narrow, "--to", wide, *where, *short]
    verified = ["--verify", *chosen("adamw", "scion_unconstrained")]
    files = [
        str(ROOT / "tests" / f"test_{name}.py")
        for name in ("engine", "lanes", "lanes_gpu", "polar", "replay")
    ]
    widths = ["64"] if small else ["256", "1024", "4096"]
    tests = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *files]
    marked = ["-m", "gpu", "-n", str(min(8, usable_cores())), "-W", "default"]
    marked += ["--junitxml", str(out / "tests.xml")]
    searched = ["--trials", "3"] if small else []
    few = ["--widths", "32", "--lanes", "1", "--steps", "8"] if small else []
    return [
        Stage("tests", [*tests, *(["--co"] if small else []), *marked], 120),
        Stage("tune", ours("tune", "gpu_width", "--width", narrow, *where, *short, *searched), 90),
        Stage("transfer", ours("transfer", *carried, "--seeds", "3", *searched), 180),
        Stage("verify", ours("transfer", *carried, *verified, *searched), 200, 20),
        Stage("report", ours("report", "gpu_width", *where[2:4]), 40),
        Stage("replay", script("replay", *few), 60, 20),
        Stage(
            "step",
            script("step", "--widths", *widths, "--layers", "1" if small else "2"),
            90,
            20,
        ),
        Stage(
            "wide",
            script("wide", "--widths", *widths[-1:], "--context", "64" if small else "1024"),
            90,
            20,
        ),
        Stage(
            "sweep",
            script(
                "sweep",
                *("--widths", narrow, "--repeats", "1", "--trials", "2" if small else "16"),
                *("--practice", "2", "--steps", "2" if small else "150"),
            ),
            120,
            40,
        ),
        Stage("batches", ours("run", str(out / "batches.toml"), *beside, *searched), 200, 40),
    ]


def run(stage: Stage, limit: float, log: Path) -> Outcome:
    """The stage in a process group of its own: interrupted at its limit, killed 5 s later."""
    began = time.perf_counter()
    with log.open("w") as file:
        file.write(" ".join(stage.command) + "\n")
        file.flush()
        process = subprocess.Popen(
            stage.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        for order in (None, signal.SIGINT, signal.SIGKILL):
            if order is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, order)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(limit if order is None else 5.0)
                status = "cut" if order is not None else "failed" if code else "done"
                return Outcome(status, time.perf_counter() - began, code)
    return Outcome("cut", time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "gpu_width")
    parser.add_argument("--limit", type=float, default=300, help="Seconds for all stages.")
    parser.add_argument("--resume", action="store_true", help="Skip the stages that are done.")
    parser.add_argument("--only", nargs="+", help="These stages alone.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="The smallest sizes.")
    options = parser.parse_args()
    began = time.perf_counter()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = (
        {"width": 64, "proxy": 2, "targets": 4, "steps": 2}
        if options.small
        else {"width": 1024, "proxy": 16, "targets": "64, 256", "steps": 100}
    )
    (options.out / "batches.toml").write_text(BATCHES.format(**sizes))
    place = options.out / "stages.json"
    found = json.loads(place.read_text()) if options.resume and place.is_file() else {}
    device = engine.pick_device(options.device)
    found["machine"] = {
        "device": engine.device_name(device),
        "cores": usable_cores(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for stage in stages(options):
        if found.get(stage.name, {}).get("status") == "done":
            continue
        if options.only and stage.name not in options.only:
            continue
        left = options.limit - (time.perf_counter() - began)
        log = options.out / f"{stage.name}.log"
        outcome = (
            run(stage, left if options.small else min(left, stage.limit), log)
            if left >= stage.least
            else Outcome("skipped")
        )
        found[stage.name] = asdict(outcome)
        place.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{stage.name}: {outcome.status}, {outcome.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
