"""What the runs at a target cost, and what tuning at the proxy saves."""

from dataclasses import dataclass, replace

import pandas as pd

from hptransfer.analysis.statuses import count

NAN = float("nan")


@dataclass(frozen=True)
class MeasuredCost:
    """Runs at the target and the price of tuning; NaN where no run tells.

    `peak_memory`: bytes, of a whole unit. `tuning_*`: spent at the proxy, on the lr and on the
    fields of groups. `direct_*`: as many trials at the target, at the mean price of a finished run
    there. `saving_*`: their ratio.
    """

    seconds_per_step: float = NAN
    peak_memory: float = NAN
    lanes_max: int | None = None
    tokens_per_second: float = NAN
    flops_per_second: float = NAN
    n_diverged: int = 0
    n_failed: int = 0
    tuning_flops: float = NAN
    tuning_seconds: float = NAN
    direct_flops: float = NAN
    direct_seconds: float = NAN

    @property
    def saving_flops(self) -> float:
        return self.direct_flops / self.tuning_flops if self.tuning_flops else NAN

    @property
    def saving_seconds(self) -> float:
        return self.direct_seconds / self.tuning_seconds if self.tuning_seconds else NAN


def measured_cost(at_proxy: pd.DataFrame | None, at_target: pd.DataFrame | None) -> MeasuredCost:
    """Tuning at the proxy against as many trials at the target. None: no runs there.

    Of runs that were made elsewhere it is not known.
    """
    if any(rows is not None and "flops" not in rows for rows in (at_proxy, at_target)):
        if at_target is None:
            return MeasuredCost()
        lost, failed = count(at_target, "diverged"), count(at_target, "failed")
        return MeasuredCost(n_diverged=lost, n_failed=failed)
    trials = NAN if at_proxy is None else len(at_proxy)
    cost = MeasuredCost() if at_target is None else _at_target(at_target, trials)
    if at_proxy is None:
        return cost
    flops, seconds = (float(at_proxy[name].sum()) for name in ("flops", "seconds"))
    return replace(cost, tuning_flops=flops, tuning_seconds=seconds)


def _at_target(rows: pd.DataFrame, trials: float) -> MeasuredCost:
    """The runs at the target, and the price of so many `trials` there."""
    cost = MeasuredCost(n_diverged=count(rows, "diverged"), n_failed=count(rows, "failed"))
    done = rows[rows["status"] == "done"]
    if not len(done):
        return cost
    seconds = float(done["seconds"].sum()) or NAN  # 0: unknown
    return replace(
        cost,
        seconds_per_step=float((done["seconds"] / done["steps"]).mean()),
        peak_memory=float(done["peak_memory"].max()) or NAN,  # 0: unknown
        lanes_max=int(done["lanes"].max()),
        tokens_per_second=float(done["tokens"].sum()) / seconds,
        flops_per_second=float(done["flops"].sum()) / seconds,
        direct_flops=float(done["flops"].mean()) * trials,
        direct_seconds=float(done["seconds"].mean()) * trials,
    )
