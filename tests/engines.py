"""Programs that a test needs beside Python: where one is missing, the test is skipped."""

import importlib.util
import os
import shutil

import pytest

POSTGRES = "HPTRANSFER_POSTGRES"  # the URL of a server on which a test may make databases


def needs(engine: str, present: bool) -> None:
    """Skip the test where `engine` is missing; fail it there under `.ci/run engines`."""
    if present:
        return
    reason = f"needs {engine}; .ci/run engines brings it"
    if os.environ.get("HPTRANSFER_ENGINES"):
        pytest.fail(reason)
    pytest.skip(reason)


def needs_postgres() -> str:
    """URL of the server."""
    needs("a PostgreSQL server", POSTGRES in os.environ)
    needs("the package psycopg", importlib.util.find_spec("psycopg") is not None)
    return os.environ[POSTGRES]


def needs_chromium() -> str:
    """Path of the browser."""
    path = shutil.which("chromium")
    needs("Chromium", path is not None)
    needs("the package playwright", importlib.util.find_spec("playwright") is not None)
    return str(path)
