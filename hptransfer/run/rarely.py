"""A clock for work that is due now and then, at a small share of the time."""

import contextlib
import time
from collections.abc import Iterator


class Rarely:
    """A clock for work that is due every `seconds`, and takes at most 2% of the time."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time for the work."""
        return time.monotonic() >= self._next

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Do the work in this block, which sets the time of the next."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._next = now + max(self._seconds, 50 * (now - began))
