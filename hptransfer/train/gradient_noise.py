"""Gradient noise, measured: norms of pair differences of gradients at fixed weights, per layer."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from hptransfer.documents.tails import LayerKind
from hptransfer.errors import InputError
from hptransfer.spec import Param, RunSpec
from hptransfer.train.build import Data
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import foreign_parts, prepare

MOMENTS = (0.0, 0.1, 0.5, 1.0)
"""Shares of the training steps after which the noise is measured."""
PIECES = 4
"""Pieces of work per moment and batch size."""
CHUNK_PAIRS = 64  # pairs whose gradients are held at once; also the largest average of examples
CHUNK_ELEMENTS = 2**23  # numbers in the gradients that are held at once
ENTRIES = 2**16  # entries per layer that are kept
SQUARINGS = 10  # of the Gram matrix in a spectral norm
LEAST_AVERAGES = 16  # averages of one size, below which their mean norm is too noisy


@dataclass
class LayerNoise:
    """Noise of one layer: sizes of D = G - G' for pairs of independent gradients.

    `kind`: the role of the weight. `frobenius`, `spectral`: norms of D, (pairs,);
    a kernel counts as the matrix (d_out, d_in k^2). `entries`: the entries of the first D, flat.
    `averages`: B -> mean Frobenius norm of the average of B matrices D.
    """

    layer: str
    kind: LayerKind
    shape: tuple[int, ...]
    step: int
    batch: int
    frobenius: NDArray[np.float64]
    spectral: NDArray[np.float64]
    entries: NDArray[np.float64]
    averages: dict[int, float]


@dataclass(frozen=True)
class Piece:
    """A finished piece of the work; `layers`: the noise, in the last piece of a step and batch."""

    step: int
    batch: int
    pairs: int
    layers: list[LayerNoise]


def moments(steps: int) -> list[int]:
    """Numbers of steps after which the noise is measured, rising, without repeats."""
    return sorted({round(share * steps) for share in MOMENTS})


def batches(run: RunSpec) -> list[int]:
    """Examples per gradient: one, and as many as a step of training has."""
    return sorted({1, run.batch})


def measure(run: RunSpec, data: Data, device: torch.device, *, pairs: int) -> Iterator[Piece]:
    """Train `run` and stop at `moments` to draw `pairs` pairs of gradients per batch size.

    A moment and batch size gives PIECES pieces. The gradients are taken where training takes them,
    on fresh training examples drawn with replacement. Matrices and kernels are measured, vectors
    are not. Raises InputError where the run diverges, or a model of somebody else's does not map.
    """
    with foreign_parts(run):
        lanes = Lanes([run], data, device, prepared=prepare(run, data))
    drawn = _examples(lanes)
    done = 0
    for step in moments(run.steps):
        with foreign_parts(run):
            for t in range(done, step):
                lanes.gradients(t)
                lanes.update(t)
        done = step
        for batch in batches(run):
            with foreign_parts(run):
                yield from _at(lanes, drawn, step, batch, pairs)


def _diverged(run: RunSpec, steps: int) -> InputError:
    return InputError(
        f"{run.optimizer['name']} at lr 2^{run.log2_lr:g}: diverged by step {steps}",
        "tune the suite first, or name another optimizer: a diverged run has no gradients",
    )


def _at(
    lanes: Lanes, drawn: Iterator[tuple[Tensor, Tensor]], step: int, batch: int, pairs: int
) -> Iterator[Piece]:
    """The pieces of one moment and batch size."""
    gathered = [_Gathered(p) for group in lanes.groups for p in _matrices(group.p, group.names)]
    held = CHUNK_ELEMENTS // (2 * sum(math.prod(each.p.shape) for each in gathered))
    chunk = 2 ** int(math.log2(min(max(held, 1), CHUNK_PAIRS)))
    ends = [round(pairs * (i + 1) / PIECES) for i in range(PIECES)]
    done = 0
    for end in ends:
        while done < end:
            n = min(chunk, end - done)
            x, y = _taken(drawn, 2 * n, batch)
            noise = gradients(lanes, [each.p.name for each in gathered], x, y)
            if not all(bool(g.isfinite().all()) for g in noise):
                raise _diverged(lanes.spec, step)
            for each, g in zip(gathered, noise, strict=True):
                each.add(g[::2] - g[1::2])
            done += n
        finished = [each.noise(step, batch) for each in gathered] if done == pairs else []
        yield Piece(step, batch, done, finished)


def _matrices(p: Param, names: Sequence[str]) -> list[Param]:
    return [replace(p, name=name) for name in names] if p.role != "vector" else []


def _examples(lanes: Lanes) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches after those of the run, without end."""
    for t in itertools.count(lanes.spec.steps):
        x, y, _ = lanes.batches.train(t)
        yield x, y


def _taken(drawn: Iterator[tuple[Tensor, Tensor]], n: int, batch: int) -> tuple[Tensor, Tensor]:
    """x, y of n batches of their own, (n, batch, ...)."""
    parts: list[tuple[Tensor, Tensor]] = []
    while sum(len(x) for x, _ in parts) < n * batch:
        parts.append(next(drawn))
    x, y = (torch.cat(part)[: n * batch] for part in zip(*parts, strict=True))
    return x.unflatten(0, (n, batch)), y.unflatten(0, (n, batch))


def gradients(lanes: Lanes, names: Sequence[str], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Gradients of n batches at the weights of a single lane: per name (n, *shape).

    `x`, `y`: (n, batch, ...). The weights, their gradients and the run stay as they are.
    """
    n = len(x)
    weights = {
        name: leaf.detach().expand(n, *leaf.shape).requires_grad_()
        for name, leaf in lanes.leaves.items()
    }
    losses = vmap(lanes.loss)(weights, x, y)
    wanted = [weights[name] for name in names]
    return torch.autograd.grad(losses.sum(), wanted, materialize_grads=True)


@dataclass
class _Gathered:
    """What has been seen of one layer so far; `sums`: B -> norms of averages of B matrices."""

    p: Param
    frobenius: list[Tensor] = field(default_factory=list)
    spectral: list[Tensor] = field(default_factory=list)
    entries: list[Tensor] = field(default_factory=list)
    sums: dict[int, list[Tensor]] = field(default_factory=dict)

    def add(self, difference: Tensor) -> None:
        """Take in D of n pairs, (n, *shape); stacked matrices stand one under the other."""
        d = difference.flatten(1, 1 + self.p.stacked).flatten(2)
        self.frobenius.append(_frobenius(d).cpu())
        self.spectral.append(_spectral(d).cpu())
        if sum(map(len, self.entries)) < ENTRIES:
            self.entries.append(d[: math.ceil(ENTRIES / d[0].numel())].flatten().cpu())
        count = 1
        while len(d):
            self.sums.setdefault(count, []).append(_frobenius(d).cpu() / count)
            even = len(d) // 2 * 2
            d, count = d[0:even:2] + d[1:even:2], 2 * count

    def noise(self, step: int, batch: int) -> LayerNoise:
        """The layer's noise, after the last pair."""
        averages = {b: torch.cat(norms) for b, norms in self.sums.items()}
        return LayerNoise(
            layer=self.p.name.removesuffix(".weight"),
            kind=_kind(self.p),
            shape=self.p.shape,
            step=step,
            batch=batch,
            frobenius=torch.cat(self.frobenius).double().numpy(),
            spectral=torch.cat(self.spectral).double().numpy(),
            entries=torch.cat(self.entries)[:ENTRIES].double().numpy(),
            averages={
                b: norms.double().mean().item()
                for b, norms in averages.items()
                if len(norms) >= LEAST_AVERAGES
            },
        )


def _kind(p: Param) -> LayerKind:
    if p.embedding:
        return "embedding"
    assert p.role != "vector", f"{p.name} is no matrix"
    return p.role


def _scaled(d: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices with largest entry 1 and that entry, (n,): squares of tiny noise underflow."""
    largest = d.abs().amax(dim=(1, 2))
    return d / torch.where(largest > 0, largest, 1)[:, None, None], largest


def _frobenius(d: Tensor) -> Tensor:
    """(n, rows, columns) -> (n,)."""
    unit, largest = _scaled(d)
    return largest * torch.linalg.vector_norm(unit, dim=(1, 2))


def _spectral(d: Tensor) -> Tensor:
    """Largest singular value of each matrix, (n, rows, columns) -> (n,), r the smaller side.

    The Gram matrix G is squared SQUARINGS = K times and scaled to trace 1 each time:
    ||G^(2^K)||_tr^(2^-K) exceeds the largest eigenvalue by a factor of at most r^(2^-K). LAPACK's
    eigenvalues do not converge on some of these matrices, whose rank is two.
    """
    unit, largest = _scaled(d if d.shape[1] <= d.shape[2] else d.mT)
    power = unit @ unit.mT
    log = torch.zeros_like(largest)
    for k in range(SQUARINGS + 1):
        power = power @ power if k else power
        trace = power.diagonal(dim1=1, dim2=2).sum(1)
        trace = torch.where(largest > 0, trace, 1)
        log += trace.log() / 2**k
        power = power / trace[:, None, None]
    return largest * (log / 2).exp()
