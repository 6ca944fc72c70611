"""Memory of the process: kept between steps, returned between units, and its peak in a unit."""

import contextlib
import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): sets the peak resident set size to the present one


def keep_freed_memory() -> None:
    """Have glibc hand freed blocks out again; elsewhere nothing is done.

    Every step frees what the next one allocates. If the system had the pages back in between, it
    would map and zero thousands of them anew. Parameters: mallopt(3); 32 MiB is glibc's largest
    threshold for blocks that are mapped on their own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 32 * 2**20)


def return_freed_memory() -> None:
    """Have glibc give the blocks that it keeps to the system, for others; see malloc_trim(3)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def release() -> None:
    """Give unused CUDA memory back, to this process and to others.

    Objects that refer to themselves, such as a model whose blocks are recomputed, wait for the
    garbage collector.
    """
    gc.collect()
    torch.cuda.empty_cache()


def watch_peak(device: torch.device) -> Callable[[], int]:
    """Watch the memory from now on. Call the result once the watched tensors are gone: bytes that
    they needed at the peak, 0 where unknown.

    CUDA: the peak of the allocator. CPU: how far the resident set of this process fell from its
    peak, so that code loaded on the way does not count. Linux alone lets a process reset the peak;
    elsewhere a process knows the peak of its whole life, which may be another unit's.
    """
    if device.type == "cuda":
        torch.cuda.init()  # or the next line refuses a device with a number
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device)
    return_freed_memory()  # the blocks of an earlier unit are not this one's
    known = _reset_peak()

    def fall() -> int:
        return_freed_memory()
        peak, now = _resident("VmHWM"), _resident("VmRSS")
        return max(0, peak - now) if known and peak is not None and now is not None else 0

    return fall


def _reset_peak() -> bool:
    """Whether the system let us."""
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK)
        return True
    return False


def _resident(field: str) -> int | None:
    """Bytes of a line of /proc/self/status, which gives kB; None where there is none."""
    with contextlib.suppress(OSError):
        line = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
        return int(line[1]) * 1024 if line else None
    return None
