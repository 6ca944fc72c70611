"""Intervals and optima as every document has them."""

from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.transfer import NORMAL_95, Interval
from hptransfer.documents import values

NAN = float("nan")


def interval_shape(interval: Interval) -> values.Interval:
    """A number with its interval as a document has it."""
    return values.Interval(interval.value, interval.low, interval.high)


def optimum_shape(best: Optimum | None) -> values.Optimum | None:
    """An optimum as a document has it; None without one."""
    if best is None:
        return None
    half = NORMAL_95 * best.se if best.seeds > 1 else NAN
    return values.Optimum(
        log2_lr_star=values.Interval(best.log2_lr, best.log2_lr - half, best.log2_lr + half),
        standard_error=best.se,
        loss=best.loss,
        censored=best.censored,
        at_cliff=best.cliff,
        n_learning_rates=best.n_points,
        n_seeds=best.seeds,
        hp=best.hp,
    )
