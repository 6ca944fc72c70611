"""Take the missing diagnostics of a study, and append each to its records."""

import time
from collections.abc import Iterator, Sequence

import torch

from hptransfer.records.claims import Claims
from hptransfer.records.diagnostics import DiagnosticStore, Point
from hptransfer.train.build import Data
from hptransfer.transport.diagnostic import measure

WAIT = 2.0  # seconds between looks at the records of other processes


def take(
    points: Sequence[Point], store: DiagnosticStore, data: Data, device: torch.device
) -> Iterator[str]:
    """Take every missing diagnostic of `points`; yields each in words.

    Processes on one study share them. Raises InputError where a run diverges before its step, or
    the disk does not take a record.
    """
    claims = Claims(store.folder)
    missing = [point for point in points if point.key not in store.read()]
    if not missing:
        return
    with claims.announce():
        while missing:
            done = len(missing)
            for point in missing:
                if not claims.claim([point.key]):
                    continue
                if point.key not in store.read():  # else another process has recorded it since
                    found = measure(point, data, device)
                    store.append(found)
                    yield (
                        f"lr 2^{point.run.log2_lr:g} seed {point.run.seed}: "
                        f"e1 {found.staleness:.3g}, e2 {found.curvature:.3g}, "
                        f"noise {found.noise:.3g}"
                    )
                claims.release([point.key], recorded=True)
            known = store.read()
            missing = [point for point in missing if point.key not in known]
            if len(missing) == done:
                time.sleep(WAIT)
