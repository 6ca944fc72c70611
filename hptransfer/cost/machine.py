"""What the machine has: cores that this process may use, and bytes of memory."""

import os

import torch


def usable_cores() -> int:
    """Cores that this process may run on, at least one. macOS does not tell a process its own."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    if count is not None:
        return count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is not None:
        return len(affinity(0))
    return os.cpu_count() or 1


def memory_of(device: torch.device) -> int:
    """Bytes of the whole card, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
