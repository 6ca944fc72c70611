"""A server process that imports torch once, while the caller plans, and forks every worker."""

import multiprocessing as mp
import os
import signal
import sys
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

LOADED = ["hptransfer.run.workers"]


def context() -> ForkServerContext | SpawnContext:
    """How workers start. Only Linux forks them: elsewhere a fork may break system libraries."""
    if sys.platform != "linux":
        return mp.get_context("spawn")
    server = mp.get_context("forkserver")
    server.set_forkserver_preload(LOADED)
    return server


def start() -> None:
    """Start the server, which imports while the caller goes on. A second call does nothing.

    The server and its workers ignore Ctrl-C: the caller ends them. The server looks for modules in
    the current folder only where the caller does.
    """
    if isinstance(context(), SpawnContext):
        return
    safe = {} if {"", os.getcwd()} & set(sys.path) else {"PYTHONSAFEPATH": "1"}
    kept = {name: os.environ.get(name) for name in safe}
    resource_tracker.ensure_running()  # first, for it unblocks Ctrl-C in the end
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(safe)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
