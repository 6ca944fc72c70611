"""A server process that imports torch once, while the caller plans, and forks every worker."""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Generator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import (
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from types import ModuleType

LOADED = ["hptransfer.run.workers"]
LONGEST = 60  # bytes of the folder of the server's socket, whose path has a limit of about 100


class _Forked(ForkServerProcess):
    def start(self) -> None:
        with _without_program():
            super().start()


class _Spawned(SpawnProcess):
    def start(self) -> None:
        with _without_program():
            super().start()


class _ForkServer(ForkServerContext):
    Process = _Forked


class _Spawn(SpawnContext):
    Process = _Spawned


def context() -> ForkServerContext | SpawnContext:
    """How workers start.

    Only Linux forks them: elsewhere a fork may break system libraries. Nor are they forked where
    the folder of temporary files has so long a name that no socket can lie in it.
    """
    if sys.platform != "linux" or len(os.fsencode(tempfile.gettempdir())) > LONGEST:
        return _Spawn()
    server = _ForkServer()
    server.set_forkserver_preload(LOADED)
    return server


@contextlib.contextmanager
def _without_program() -> Generator[None]:
    """The process that starts here does not import the program that calls.

    A script that calls without a guard would else run again in each worker, and a program from
    stdin cannot be imported.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


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
