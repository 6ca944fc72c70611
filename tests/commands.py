"""The command line in this process."""

import signal
import sys

import pytest

from hptransfer import cli


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["hptransfer", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def interruptible() -> None:
    """For a child process: obey Ctrl-C, which the background jobs of a shell ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
