"""Weights at the start of a run, each drawn from a generator of (seed, name) alone."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from hptransfer.geometry.norms import factorised_on
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, generator_for
from hptransfer.spec import Param, RunSpec

GPU_THREADS = 8  # a generator draws on one core


def drawn(
    specs: Sequence[RunSpec],
    optimizer: Callable[..., Rule],
    groups: list[list[Param]],
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """Weights of every group in turn, (k, *shape) of one lane or (k, lanes, *shape).

    For a GPU they are drawn side by side, ahead of the caller, and factorised there.
    """
    if device.type != "cuda":
        for alike in groups:
            jobs = _jobs(specs, optimizer, alike, device, dtype)
            yield _stacked({key: [job() for job in own] for key, own in jobs.items()}, specs)
        return
    with factorised_on(device), ThreadPoolExecutor(GPU_THREADS) as pool:
        ahead = [
            {key: [pool.submit(job) for job in own] for key, own in jobs.items()}
            for alike in groups
            for jobs in [_jobs(specs, optimizer, alike, device, dtype)]
        ]
        for futures in ahead:
            weights = {key: [future.result() for future in own] for key, own in futures.items()}
            futures.clear()  # the stack is a copy
            yield _stacked(weights, specs)


def _key(spec: RunSpec) -> str:
    """What decides the weights of a lane."""
    return json.dumps([spec.seed, spec.hp], sort_keys=True)


def _jobs(
    specs: Sequence[RunSpec],
    optimizer: Callable[..., Rule],
    alike: list[Param],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, list[Callable[[], Tensor]]]:
    """By key, what draws each of same-shaped parameters. Lanes of one key share the weights."""

    def draw(rule: Rule, seed: int, name: str) -> Tensor:
        return rule.init_weight(generator_for(seed, name)).to(device, dtype)

    jobs = {}
    for spec in specs:
        rule = rules.made(spec.optimizer["name"], optimizer, alike[0], spec.hp)
        jobs[_key(spec)] = [partial(draw, rule, spec.seed, p.name) for p in alike]
    return jobs


def _stacked(weights: dict[str, list[Tensor]], specs: Sequence[RunSpec]) -> Tensor:
    stacks = {key: torch.stack(own) for key, own in weights.items()}
    if len(specs) == 1:
        return stacks[_key(specs[0])]
    return torch.stack([stacks[_key(spec)] for spec in specs], dim=1)
