"""Intervals and optima as every document has them."""

from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.parabola import Interval
from hptransfer.documents import values


def interval_shape(interval: Interval) -> values.Interval:
    """A number with its interval as a document has it."""
    return values.Interval(interval.value, interval.low, interval.high)


def optimum_shape(best: Optimum | None) -> values.Optimum | None:
    """An optimum as a document has it; None without one."""
    if best is None:
        return None
    return values.Optimum(
        log2_lr_star=interval_shape(best.interval),
        standard_error=best.se,
        loss=best.loss,
        censored=best.censored,
        at_cliff=best.cliff,
        n_learning_rates=best.n_points,
        n_seeds=best.seeds,
        hp=best.hp,
    )
