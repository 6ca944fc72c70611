"""What a record says of where it was made: versions, commit, device, threads."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hptransfer import __version__
from hptransfer.geometry.processor import fast_bfloat16


@cache
def _git_sha() -> str:
    """Commit of the source, if it runs from a checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return ""
    run = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip()


@cache
def _versions() -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "hptransfer": __version__,
        "torch": str(torch.__version__),  # with its build, such as +cu130, unlike the package's
    }
    for name in ("numpy", "optuna", "sympy", "mlxtend", "botocore"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def device_name(device: torch.device) -> str:
    """Model of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    linux = Path("/proc/cpuinfo")
    for line in linux.read_text().splitlines() if linux.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device, lanes: int, micro_batch: int) -> dict[str, Any]:
    """`env` of a record. Nothing in it changes a loss by more than rounding."""
    return {
        "versions": _versions(),
        "git": _git_sha(),
        "device": device_name(device),
        "kind": device.type,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "lanes": lanes,
        "micro_batch": micro_batch,
        "fast_bfloat16": fast_bfloat16(device),
    }
