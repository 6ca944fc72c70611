"""The coordinate check, measured: how far every layer's output moves, at several widths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.train.build import Data
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import Prepared, foreign_parts, prepare

GATE_STEPS = 5
LOGITS = "logits"
When = Literal["init", "gate", "late"]


@dataclass(frozen=True)
class Coordinate:
    """One layer of one run at one time: RMS of its output on the probe batch, and of its change.

    `when`: at the start, after the steps of the gate, at the end. Both are `inf` once the run has
    diverged.
    """

    optimizer: str
    log2_lr: float
    width: int
    seed: int
    layer: str
    when: When
    step: int
    rms: float
    change: float


@dataclass(frozen=True)
class Measured:
    """A finished run of the check; `loss`: of the probe batch at the end, nats."""

    optimizer: str
    width: int
    seed: int
    loss: float
    rows: list[Coordinate]


def measure(
    label: str,
    run: RunSpec,
    data: Data,
    widths: Sequence[int],
    seeds: Sequence[int],
    device: torch.device,
    *,
    gate_steps: int = GATE_STEPS,
    zero_head: bool = True,
) -> Iterator[Measured]:
    """Train `run` at every width and seed and watch its layers; `run.steps` is the late point.

    A seed has the same training batches at every width; the probe batch is one held-out batch, the
    same in all runs. `zero_head`: the output layer starts at 0, whatever the optimizer draws for
    it. A random head of the right scale gives logits of size width^-1/2; while these last they tilt
    the change of the logits at narrow widths, whatever the updates do.
    Raises InputError where the widths cannot give a slope, or the steps no gate.
    """
    if len(set(widths)) < 2:
        shown = ", ".join(map(str, widths)) or "none"
        raise InputError(
            f"widths: got {shown}, needs at least two that differ", "a slope has two ends"
        )
    if not 0 < gate_steps <= run.steps:
        raise InputError(
            f"steps: got {run.steps}, needs at least the {gate_steps} of the gate",
            "the change is measured after the first steps and after the last",
        )
    for width in sorted(set(widths)):
        at_width = replace(run.at("width", width), eval_examples=run.batch)
        with foreign_parts(run):
            prepared = prepare(at_width, data)
        for seed in seeds:
            with foreign_parts(run):
                at = at_width.point(run.log2_lr, seed)
                measured = _one(label, at, prepared, device, gate_steps, zero_head)
            yield measured


def _one(
    label: str,
    run: RunSpec,
    prepared: Prepared,
    device: torch.device,
    gate_steps: int,
    zero_head: bool,
) -> Measured:
    # One lane: optimizers and models of a user need not vectorise to be checked.
    lanes = Lanes([run], prepared.data, device, prepared=prepared)
    for group in lanes.groups:
        if zero_head and group.p.role == "output" and not group.p.tied:
            group.w.zero_()
    start, loss = probe(lanes)
    rows: list[Coordinate] = []
    done = 0

    def note(when: When, now: dict[str, Tensor]) -> None:
        sizes = {layer: (_rms(h), _rms(h - start[layer])) for layer, h in now.items()}
        alive = done == 0 or bool(lanes.finite(done - 1))
        alive = alive and all(x < float("inf") for both in sizes.values() for x in both)
        for layer, both in sizes.items():
            told = both if alive else (float("inf"), float("inf"))
            rows.append(
                Coordinate(label, run.log2_lr, run.width, run.seed, layer, when, done, *told)
            )

    note("init", start)
    stops: tuple[tuple[When, int], ...] = ("gate", gate_steps), ("late", run.steps)
    for when, until in stops:
        for t in range(done, until):
            lanes.gradients(t)
            lanes.update(t)
        done = until
        now, loss = probe(lanes)
        note(when, now)
    return Measured(label, run.width, run.seed, loss, rows)


def _rms(h: Tensor) -> float:
    """Root mean square over everything; float64, in which no square of a float32 overflows."""
    return h.double().square().mean().sqrt().item()


def probe(lanes: Lanes) -> tuple[dict[str, Tensor], float]:
    """Output of every layer on the first held-out batch, and its loss, nats; of a single lane.

    Taken at the point that is evaluated, X where the weights hold a transported Y. Afterwards the
    run is what it was, bit for bit. A layer is a module with a weight of its own (not a gain, not a
    bias); the model's output is called `logits`, whichever layer gives it.
    """
    kept = [group.w.clone() for group in lanes.groups]
    lanes.read_out()
    raw: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            raw[name] = output[0] if isinstance(output, tuple) else output
            seen[name] = raw[name].detach().clone()  # what follows may write into the output

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in _layers(lanes.model).items()]
    try:
        loss = lanes.evaluate().item()
    finally:
        for handle in handles:
            handle.remove()
    if lanes.foreign is not None:
        lanes.foreign.train()  # undoes the swap of a schedule-free optimizer
    for group, w in zip(lanes.groups, kept, strict=True):
        group.w.copy_(w)
    output = raw[LOGITS]
    return {n: h for n, h in seen.items() if n == LOGITS or raw[n] is not output}, loss


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that train a matrix or a kernel, in the model's order, and the model itself."""
    inner = {
        name: module
        for name, module in model.named_modules()
        if name and any(p.ndim > 1 and p.requires_grad for p in module.parameters(recurse=False))
    }
    return {**inner, LOGITS: model}
