"""One-sample t-tests with Holm's correction, and the intervals that agree with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from hptransfer.analysis.parabola import Interval

LEVEL = 0.05  # chance that any true difference of 0 is called one
NAN = float("nan")


@dataclass(frozen=True)
class Tested:
    """One of several differences: its interval, and p before and after the correction.

    NaN bounds and p where fewer than two values are there.
    """

    difference: Interval
    n: int
    p: float = NAN
    p_holm: float = NAN

    @property
    def differs(self) -> bool:
        return self.p_holm <= LEVEL


def holm(samples: Sequence[Sequence[float]]) -> list[Tested]:
    """A two-sided t-test of each sample against a mean of 0, in the order given.

    The k-th smallest of m p-values counts m - k + 1 times, and no less than the one before it. The
    interval of a sample has the level at which that decides, so it excludes 0 where the test
    rejects and nowhere else. Source: Holm 1979, "A simple sequentially rejective multiple test
    procedure".
    """
    values = [np.asarray(sample, float) for sample in samples]
    tested = [i for i, sample in enumerate(values) if len(sample) > 1]
    p = np.array([_p(values[i]) for i in tested])
    order = np.argsort(p, kind="stable")
    times = len(p) - np.arange(len(p))
    adjusted = np.maximum.accumulate(times * p[order])
    made = [Tested(Interval(float(v.mean()) if len(v) else NAN), len(v)) for v in values]
    for rank, k in enumerate(order):
        sample, p_holm = values[tested[k]], float(adjusted[rank])
        level = LEVEL * p[k] / p_holm if p_holm > 0 else LEVEL / times[rank]
        half = float(student.isf(level / 2, len(sample) - 1)) * _standard_error(sample)
        mean = float(sample.mean())
        made[tested[k]] = Tested(
            Interval(mean, mean - half, mean + half), len(sample), float(p[k]), min(p_holm, 1.0)
        )
    return made


def _standard_error(sample: np.ndarray) -> float:
    return float(np.std(sample, ddof=1) / np.sqrt(len(sample)))


def _p(sample: np.ndarray) -> float:
    """Two-sided p of a t-test against 0; equal values leave no doubt."""
    mean, error = float(sample.mean()), _standard_error(sample)
    if error == 0:
        return float(mean == 0)
    return float(2 * student.sf(abs(mean) / error, len(sample) - 1))
