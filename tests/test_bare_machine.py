"""A machine that lists no instruction, has no /proc and forks no process trains every run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
from matplotlib import font_manager

from commanded import SUITE

# Python runs this before anything else, in every process that the command starts too.
BARE = """
import ctypes, errno, os, pathlib, sys, sysconfig
import torch

sysconfig.get_config_vars()  # whose file bears the platform's name

load = ctypes.CDLL
real = load(None)

class NoExtensions:
    def __getattr__(self, name):
        if name.startswith("malloc") or name.startswith("mallopt"):
            raise AttributeError(name)
        return getattr(real, name)

def without_proc(method):
    def call(self, *args, **kwargs):
        if str(self).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return method(self, *args, **kwargs)
    return call

pathlib.Path.read_text = without_proc(pathlib.Path.read_text)
pathlib.Path.write_text = without_proc(pathlib.Path.write_text)
pathlib.Path.stat = without_proc(pathlib.Path.stat)
def library(name=None, *args, **kwargs):
    return NoExtensions() if name is None else load(name, *args, **kwargs)

ctypes.CDLL = library
for name in ("sched_getaffinity", "process_cpu_count"):
    if hasattr(os, name):
        delattr(os, name)
torch.backends.cpu.get_cpu_capability = lambda: "DEFAULT"
torch.backends.mkldnn.is_available = lambda: False
torch.cpu.get_capabilities = lambda: {}
torch.cuda.is_available = lambda: False
torch.set_flush_denormal = lambda mode: False
sys.platform = "darwin"
"""


def fonts() -> str:
    """The folder of matplotlib's list of fonts, which an older one makes with a Mac's own tool."""
    font_manager.findfont("DejaVu Sans")
    return matplotlib.get_cachedir()


def bare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    own |= {"XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "100"}
    own["MPLCONFIGDIR"] = fonts()
    command = [sys.executable, "-m", "hptransfer", *arguments]
    return subprocess.run(
        command, cwd=folder, env=own, capture_output=True, text=True, timeout=400, check=False
    )


def test_a_machine_without_any_capability_plans_and_trains(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BARE)
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 600)
    (tmp_path / "tiny.toml").write_text(SUITE.replace("TEXT", str(tmp_path / "text.txt")))
    planned = bare(tmp_path, "plan", "tiny.toml")
    assert planned.returncode == 0, planned.stderr
    ran = bare(tmp_path, "run", "tiny.toml", "--trials", "3", "--yes", "--workers", "2")
    assert ran.returncode == 0, ran.stderr
    lines = [
        line
        for path in (tmp_path / "results" / "tiny").glob("records-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    records = [json.loads(line) for line in lines]
    assert records
    for record in records:
        assert record["status"] == "done"
        assert record["env"]["fast_bfloat16"] is False
        assert record["peak_memory"] == 0
