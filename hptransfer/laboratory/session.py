"""Measure the missing cells of a study in worker processes, and append each to the records."""

import math
import multiprocessing as mp
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext

from hptransfer.errors import InputError
from hptransfer.laboratory.plan import Progress, progress
from hptransfer.laboratory.study import Study
from hptransfer.records.cells import Cell, CellRecord, CellStore
from hptransfer.records.claims import Claims

WAIT = 2.0  # seconds between looks at the records of other processes


def run(study: Study, store: CellStore, workers: int, context: BaseContext) -> Iterator[str]:
    """Measure every missing cell; yields each new point in words. `context`: how workers start.

    Closing the generator keeps what is recorded. Processes on one study share its cells.
    Raises InputError where a worker dies, or the disk does not take a record.
    """
    claims = Claims(store.folder)
    with claims.announce(), _pool(workers, context) as pool:
        under_way: dict[Future[CellRecord], str] = {}
        known = progress(study, store.read())
        try:
            while any(each.missing for each in known):
                for cell in by_steps(known):
                    if len(under_way) == workers:
                        break
                    key = cell.key
                    if key in under_way.values() or not claims.claim([key]):
                        continue
                    if key in store.read():  # another process has recorded it since
                        claims.release([key], recorded=True)
                    else:
                        under_way[pool.submit(_measure, cell)] = key
                for future in _finished(under_way):
                    key, record = under_way.pop(future), future.result()
                    store.append(record)
                    claims.release([key], recorded=True)
                before, known = known, progress(study, store.read())
                yield from _new_points(before, known)
        except BrokenProcessPool:
            raise InputError(
                "a worker process died",
                "mostly too little memory: fewer workers",
                cures=("workers",),
            ) from None
        finally:
            workers_of = list((pool._processes or {}).values())  # ends what is under way
            pool.shutdown(wait=False, cancel_futures=True)
            for process in workers_of:
                process.terminate()


def by_steps(known: list[Progress]) -> list[Cell]:
    """The missing cells, those of few steps of all lanes first: all series come forward alike.

    So a study that is interrupted has the large goals of every series, and fresh seeds come soon
    after the tuning seeds.
    """
    cells = [each.missing for each in known if each.missing is not None]
    return sorted(cells, key=lambda cell: cell.cap * math.prod(cell.shape))


def _finished(under_way: dict[Future[CellRecord], str]) -> set[Future[CellRecord]]:
    """The next cells that end; none after WAIT seconds, for other processes may bring news."""
    if not under_way:
        time.sleep(WAIT)
        return set()
    return wait(under_way, WAIT, FIRST_COMPLETED).done


def _new_points(before: list[Progress], now: list[Progress]) -> Iterator[str]:
    for old, new in zip(before, now, strict=True):
        for point in new.points[len(old.points) :]:
            yield (
                f"{new.series.name} eps 2^{math.log2(point.eps):g}: {point.mean:.3g} calls, "
                f"{point.outcome}"
            )


def _pool(count: int, context: BaseContext) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin)


def _begin() -> None:
    """In a worker: one thread; Ctrl-C is the parent's; it ends when the parent is gone."""
    import signal

    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = mp.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _measure(cell: Cell) -> CellRecord:
    from hptransfer.laboratory.descent import measure

    return measure(cell)
