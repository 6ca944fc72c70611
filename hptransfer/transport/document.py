"""The numbers of a study of transport as a document, and its losses as CSV."""

import csv
import io
from collections.abc import Sequence

from hptransfer.analysis.parabola import Interval as Measured
from hptransfer.documents.transport import Transport, TransportArm, TransportCell
from hptransfer.documents.values import Interval
from hptransfer.transport.gains import Arm, Known, prediction
from hptransfer.transport.study import Study


def document(study: Study, found: Sequence[Known], n_runs: int, n_expected: int) -> Transport:
    """The numbers of a study."""
    return Transport(
        study=study.name,
        claim=study.claim,
        prediction=prediction(study, found),
        n_runs=n_runs,
        n_expected=n_expected,
        cells=[_cell(study, each) for each in found],
    )


def _cell(study: Study, each: Known) -> TransportCell:
    cell = each.cell
    return TransportCell(
        model=cell.model,
        batch=cell.batch,
        beta=cell.beta,
        schedule=cell.schedule,
        arms=[_arm(arm) for arm in each.arms],
        log2_staleness_over_curvature=_plain(each.straightness),
        log2_staleness_over_noise=_plain(each.signal),
        n_diagnostics=len(each.diagnostics),
        condition=each.condition,
        verdict=each.verdict(study.tol),
    )


def _arm(arm: Arm) -> TransportArm:
    return TransportArm(
        strength=arm.strength,
        decay=arm.decay,
        from_diagnostic=arm.star,
        log2_lr=arm.best.log2_lr,
        at_edge=arm.best.at_edge,
        loss=arm.best.mean,
        n_seeds=len(arm.best.losses),
        gain=Interval() if arm.gain is None else _plain(arm.gain.difference),
    )


def gains_csv(found: Sequence[Known]) -> str:
    """One row per arm and seed."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["model", "batch", "beta", "schedule", "strength", "decay", "from_diagnostic", "log2_lr",
         "seed", "loss"]
    )  # fmt: skip
    for each in found:
        cell = each.cell
        for arm in each.arms:
            for seed, loss in sorted(arm.best.losses.items()):
                writer.writerow(
                    [cell.model, cell.batch, cell.beta, cell.schedule, arm.strength, arm.decay,
                     arm.star, arm.best.log2_lr, seed, loss]
                )  # fmt: skip
    return file.getvalue()


def _plain(interval: Measured) -> Interval:
    return Interval(interval.value, interval.low, interval.high)
