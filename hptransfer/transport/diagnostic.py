"""The diagnostic: how stale a momentum is, what a gradient ahead of X adds, how large the noise is.

All three are errors of the momentum as an estimate of the gradient at X, in the dual norm that the
optimizer's steepest direction belongs to. Ours, from no paper.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.optimizers.rules import as_matrix
from hptransfer.optimizers.scion import LMO
from hptransfer.optimizers.transported import Transported
from hptransfer.records.diagnostics import Diagnostic, Point
from hptransfer.train.build import Data
from hptransfer.train.environment import environment
from hptransfer.train.gradient_noise import gradients
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared, prepare

MEMORY = 5.0  # memories 1/(1-beta) of the momentum over which its noise is gathered
CHUNK = 64  # examples of a backward pass
TURNS = 6  # in which the two methods are timed
TIMED = 5  # steps of a turn

Weights = dict[str, Tensor]
Gradient = Callable[[Weights], Weights]


@dataclass(frozen=True)
class Errors:
    """Per parameter: g(X), g(X) - g(Xbar), and (g(X + a) + g(X - a) - 2 g(X)) / 2."""

    gradient: Weights
    staleness: Weights
    curvature: Weights


def errors(gradient: Gradient, at: Weights, mean: Weights, ahead: Weights) -> Errors:
    """The errors at X = `at` with Xbar = `mean` and a = `ahead`; four calls of `gradient`."""
    here = gradient(at)
    lagging = gradient(mean)
    before = gradient({name: x + ahead[name] for name, x in at.items()})
    behind = gradient({name: x - ahead[name] for name, x in at.items()})
    return Errors(
        here,
        {name: g - lagging[name] for name, g in here.items()},
        {name: (before[name] + behind[name]) / 2 - g for name, g in here.items()},
    )


def dual_norm(rules: Mapping[str, LMO], g: Weights) -> float:
    """Sum over parameters of radius times dual norm: the largest <g, D> over one step at lr 1."""
    duals = (
        rule.radius * rule.norm.dual(as_matrix(rule.p, g[name])).double().sum()
        for name, rule in rules.items()
    )
    return float(sum(duals, torch.zeros((), dtype=torch.float64)))


class MomentumNoise:
    """Half the difference of the momenta of two half batches, which has the law of the noise."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.difference: Weights = {}
        self.weight = 0.0

    def add(self, halves: Mapping[str, Tensor]) -> None:
        """Take in the mean gradients of both halves of a batch, (2, *shape) each."""
        for name, g in halves.items():
            new = (g[0] - g[1]) / 2
            old = self.difference.get(name, torch.zeros_like(new))
            self.difference[name] = torch.lerp(new, old, self.beta)
        self.weight = self.beta * self.weight + 1 - self.beta

    def read(self) -> Weights:
        """As of a momentum whose weights have the sum 1."""
        return {name: d / self.weight for name, d in self.difference.items()}


def measure(point: Point, data: Data, device: torch.device) -> Diagnostic:
    """Train the run of `point` up to its step, and take the diagnostic there.

    Raises InputError where the run diverges, and AssertionError for a run with transport.
    """
    run = point.run
    prepared = prepare(run, data)
    rules = _rules(prepared)
    lanes = Lanes([run], data, device, prepared=prepared)
    at, mean, last, noise = _followed(lanes, point.step, float(run.hp["beta"]))
    ahead = kappa(float(run.hp["beta"]), point.step)
    x, y = _examples(lanes, point.examples)
    half = point.examples // 2
    parts = [
        errors(
            lambda w, xs=xs, ys=ys: _gradient(lanes, w, xs, ys),
            at, mean, {name: ahead * u for name, u in last.items()},
        )
        for xs, ys in zip(x.split(half), y.split(half), strict=True)
    ]  # fmt: skip

    def whole(read: Callable[[Errors], Weights]) -> float:
        first, second = (read(part) for part in parts)
        return dual_norm(rules, {name: (g + second[name]) / 2 for name, g in first.items()})

    def halves(read: Callable[[Errors], Weights]) -> float:
        return sum(dual_norm(rules, read(part)) for part in parts) / 2

    found = {
        "gradient": whole(lambda e: e.gradient),
        "staleness": whole(lambda e: e.staleness),
        "curvature": whole(lambda e: e.curvature),
        "noise": dual_norm(rules, noise.read()),
        "staleness_half": halves(lambda e: e.staleness),
        "curvature_half": halves(lambda e: e.curvature),
    }
    if not all(math.isfinite(value) for value in found.values()):
        raise InputError(
            f"the run at lr 2^{run.log2_lr:g} diverged by step {point.step}",
            "a lower range of learning rates",
        )
    plain, transported = _seconds(prepared, device)
    env = environment(device, 1, run.batch)
    return Diagnostic(
        point, **found, plain_seconds=plain, ahead_seconds=transported, env=env,
        finished=time.time(),
    )  # fmt: skip


def kappa(beta: float, gradients_seen: int) -> float:
    """Updates ahead of X at which transported Scion of strength 1 takes its next gradient.

    As in Transported with a zero start.
    """
    return beta * (1 - beta**gradients_seen) / (1 - beta)


def _rules(prepared: Prepared) -> dict[str, LMO]:
    rules = {}
    for p in prepared.params:
        rule = prepared.rule(p)
        assert isinstance(rule, Transported), f"{prepared.spec.optimizer['name']} has no transport"
        assert rule.transport == 0, "the diagnostic is that of a run without transport"
        rules[p.name] = rule.scion
    return rules


def _followed(
    lanes: Lanes, steps: int, beta: float
) -> tuple[Weights, Weights, Weights, MomentumNoise]:
    """Train so many steps: X, its average with weight beta, the last update, the noise.

    The average and the noise include the batch of the step that comes next, as its momentum does.
    """
    since = steps - math.ceil(MEMORY / (1 - beta))
    noise = MomentumNoise(beta)
    names = list(lanes.leaves)
    before = now = _weights(lanes)
    mean: Weights = {name: torch.zeros_like(x) for name, x in now.items()}
    for t in range(steps + 1):
        if t > 0:
            lanes.gradients(t - 1)
            lanes.update(t - 1)
            before, now = now, _weights(lanes)
        mean = {name: torch.lerp(x, mean[name], beta) for name, x in now.items()}
        if t >= since:
            x, y, _ = lanes.batches.train(t)
            halves = gradients(lanes, names, x.unflatten(0, (2, -1)), y.unflatten(0, (2, -1)))
            noise.add(dict(zip(names, halves, strict=True)))
    weight = 1 - beta ** (steps + 1)
    mean = {name: x / weight for name, x in mean.items()}
    return now, mean, {name: x - before[name] for name, x in now.items()}, noise


def _weights(lanes: Lanes) -> Weights:
    return {name: leaf.detach().clone() for name, leaf in lanes.leaves.items()}


def _examples(lanes: Lanes, count: int) -> tuple[Tensor, Tensor]:
    """The first examples after those of the run."""

    def drawn() -> Iterator[tuple[Tensor, Tensor]]:
        steps = lanes.spec.steps
        for t in range(steps, steps + math.ceil(count / lanes.spec.batch)):
            x, y, _ = lanes.batches.train(t)
            yield x, y

    x, y = (torch.cat(part)[:count] for part in zip(*drawn(), strict=True))
    return x, y


def _gradient(lanes: Lanes, weights: Weights, x: Tensor, y: Tensor) -> Weights:
    """Mean gradient of these examples at other weights than those of the run."""
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
    total: list[Tensor] = []
    for xs, ys in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        loss = lanes.loss(leaves, xs, ys) * (len(xs) / len(x))
        parts = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        total = [a + b for a, b in zip(total, parts, strict=True)] if total else list(parts)
    return dict(zip(leaves, total, strict=True))


def _seconds(prepared: Prepared, device: torch.device) -> tuple[float, float]:
    """Processor seconds of a step of Scion and of transported Scion, one lane each.

    Those of the processor, for a clock would count what else runs on the machine. The methods take
    turns, and the fastest turn of each counts.
    """
    spec = prepared.spec
    part = registry.describe("optimizer", "scion_unconstrained")
    plain = {k: v for k, v in spec.hp.items() if k in part.defaults}
    optimizer = {"name": part.name, "revision": part.revision}
    specs = (
        replace(spec, optimizer=optimizer, hp=plain),
        replace(spec, hp={**spec.hp, "transport": 0.5}),
    )
    running = [
        Lanes([each], prepared.data, device, prepared=prepare(each, prepared.data))
        for each in specs
    ]
    turns = [[_turn(lanes) for lanes in running] for _ in range(TURNS)]
    plain_seconds, ahead_seconds = (min(each) for each in zip(*turns, strict=True))
    return plain_seconds, ahead_seconds


def _turn(lanes: Lanes) -> float:
    """Mean processor seconds of TIMED steps."""
    began = time.process_time()
    for t in range(TIMED):
        lanes.gradients(t % lanes.spec.steps)
        lanes.update(t % lanes.spec.steps)
    return (time.process_time() - began) / TIMED
