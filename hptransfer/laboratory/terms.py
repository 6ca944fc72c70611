"""The three terms of the theory, each measured alone, beside its law."""

from functools import cache

import numpy as np
import torch

from hptransfer.datasets.noise import Array, Noise, Stream
from hptransfer.laboratory.figures import Measured
from hptransfer.models.plateau import plateau
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, Step
from hptransfer.optimizers.scion import scion_unconstrained
from hptransfer.optimizers.transported import transported_scion
from hptransfer.spec import Param

LANES, SETTLED = 512, 12  # momenta, and steps times alpha until they have settled
HESSIAN = 1 / 16  # L2 of the steady path, whose curvature is 1 where it ends


def noise_left(index: float, log2_alpha: Array) -> Measured:
    """Scale of the noise in a settled momentum over that of a sample, against alpha.

    Law of a stable noise of this index: alpha / (1 - (1 - alpha)^index)^(1/index).
    """
    noise = Noise("gauss" if index == 2 else "skew", index, 1.0, LANES, spread="all")
    stream, lane, batch = Stream(noise, range(1)), np.zeros(1, int), np.full(1, float(LANES))
    measured = []
    single = _spread(np.concatenate([stream.means(t, lane, batch)[0] for t in range(16)]))
    for alpha in 2.0**log2_alpha:
        m, seen = np.zeros(LANES), []
        settled = round(SETTLED / alpha)
        for t in range(settled + 16 * round(1 / alpha)):
            m += alpha * (stream.means(t, lane, batch)[0] - m)
            if t >= settled and (t - settled) % round(1 / alpha) == 0:
                seen.append(m.copy())
        measured.append(_spread(np.concatenate(seen)) / single)
    law = 2.0**log2_alpha / (1 - (1 - 2.0**log2_alpha) ** index) ** (1 / index)
    return Measured(f"p = {index:g}", log2_alpha, np.log2(measured), np.log2(law))


def _spread(values: Array) -> float:
    """Distance of the quartiles: a scale also where the variance is infinite."""
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low)


def staleness(method: str, log2_memory: Array, alpha: float = 1 / 16) -> Measured:
    """Error of a momentum on a steady path, against lr / alpha, without noise.

    `method`: batched or transported. The gradient is x + L2 x^2 / 2, the path ends at x = 0. Laws:
    lr beta/alpha + L2/2 lr^2 (beta + beta^2)/alpha^2, and L2 lr^2 beta / (2 alpha^2).
    """
    beta, lr = 1 - alpha, alpha * 2.0**log2_memory
    p = Param("x", "hidden", (1, 1), (1, 1))
    make = transported_scion if method == "transported" else scion_unconstrained
    more = {"transport": 1.0, "transport_schedule": "constant"} if make is transported_scion else {}
    rule = make(p, beta=beta, radius_hidden=1.0, start="first", **more)
    steps = round(3 * SETTLED / alpha)
    errors = [_error_at_0(rule, size, steps) for size in lr.tolist()]
    law = HESSIAN * lr**2 * beta / (2 * alpha**2)
    if method == "batched":
        law = lr * beta / alpha + HESSIAN / 2 * lr**2 * (beta + beta**2) / alpha**2
    return Measured(method, log2_memory, np.log2(errors), np.log2(law))


def _error_at_0(rule: Rule, lr: float, steps: int) -> float:
    """|momentum - gradient| where the path comes to x = 0."""
    w = torch.full((1, 1, 1), lr * steps, dtype=torch.float64)
    state, size = rules.init_state(rule, w), torch.tensor(lr, dtype=torch.float64)
    for t in range(steps + 1):
        # Curvature never turns the sign on this path, so X moves by lr at every step.
        g = w + HESSIAN * w**2 / 2
        w, state = rules.update(rule, g, state, w, Step(t, size, size, size))
    return abs(state["m"].item())


def travel(log2_lr: Array, gap: float = 100.0) -> Measured:
    """Steps to the goal eps = 1 without noise, against lr. Law: Delta / (lr eps)."""
    model = plateau(2, eps=1.0, gap=gap)
    p = Param("x", "hidden", (2, 1), (2, 1), parts=2)
    rule = scion_unconstrained(p, beta=0.0, radius_hidden=1.0, start="first")
    taken = []
    for lr in 2.0**log2_lr:
        w, size = model.start()[None], torch.tensor(lr, dtype=torch.float64)
        state, total, t = rules.init_state(rule, w), 0.0, 0
        while t == 0 or total > t:
            g = model.gradient(w)
            total += model.dual_of(g).item()
            w, state = rules.update(rule, g, state, w, Step(t, size, size, size))
            t += 1
        taken.append(t)
    return Measured("scion", log2_lr, np.log2(taken), np.log2(gap / 2.0**log2_lr))


@cache
def terms() -> tuple[list[Measured], list[Measured], list[Measured]]:
    """Noise against alpha, staleness against lr / alpha and steps against lr, each alone."""
    alphas = np.arange(-6.0, 0.5)
    return (
        [noise_left(index, alphas) for index in (1.25, 1.5, 2.0)],
        [staleness(method, np.arange(-4.0, 2.5)) for method in ("batched", "transported")],
        [travel(np.arange(-3.0, 1.5))],
    )
