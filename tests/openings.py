"""Processes that open one database at the same time."""

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from hptransfer.errors import InputError
from hptransfer.search import database


def _open(url: str, start: Barrier, outcomes: "Queue[str]") -> None:
    start.wait()
    try:
        with database.opened(url):
            outcomes.put("used")
    except InputError as error:
        outcomes.put(str(error))


def together(url: str, count: int = 3) -> list[str]:
    """What so many processes say: `used`, or why not."""
    context = multiprocessing.get_context("spawn")
    start, outcomes = context.Barrier(count), context.Queue()
    each = [context.Process(target=_open, args=(url, start, outcomes)) for _ in range(count)]
    for process in each:
        process.start()
    told = [outcomes.get(timeout=300) for _ in each]
    for process in each:
        process.join()
    return told
