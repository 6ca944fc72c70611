"""What the runs of a suite cost on a device, and how they share it: found once, then known."""

import contextlib
import os
from dataclasses import astuple
from functools import partial
from typing import Any, NoReturn

import torch

from hptransfer.cost.estimate import (
    Estimate,
    Fit,
    Share,
    Speed,
    calibrate,
    estimate,
    fit,
    memory_of,
)
from hptransfer.cost.remembered import Known, sources
from hptransfer.errors import InputError
from hptransfer.registry import BUILTINS
from hptransfer.run.workers import Pool, Probe
from hptransfer.spec import Param, RunSpec
from hptransfer.suite.claim import Suite
from hptransfer.train import engine
from hptransfer.train.build import Data, Described, describe_params, foreign_parts
from hptransfer.train.lanes import vectorises

_SCHEDULE = ("steps", "schedule", "warmup")  # no cost of a step depends on these fields


class Costs:
    """FLOPs, memory and speed of a suite's runs, and the share of the device that each takes.

    `workers`, `lanes`: as told, None where they are to be measured, in workers of the `pool`.
    """

    def __init__(
        self,
        suite: Suite,
        data: Data,
        device: torch.device,
        pool: Pool,
        workers: int | None,
        lanes: int | None,
    ) -> None:
        self._suite, self._data, self._device, self._pool = suite, data, device, pool
        self._told, self._lanes = workers, lanes
        self.workers = workers or self._most_workers()
        self._known = Known()
        # by cell, which decides them
        self._costs: dict[str, Estimate] = {}
        self._described: dict[str, Described] = {}
        self._shares: dict[str, list[Share]] = {}
        self._speeds: dict[str, Speed] = {}
        self._beside: dict[str, list[Any]] = {}  # as `_known`, measured while others trained

    def _most_workers(self) -> int:
        """A process a core on CPU, where oversubscribed threads cost; one on a GPU."""
        if self._device.type == "cuda":
            return 1
        return len(os.sched_getaffinity(0))

    def memory(self, spec: RunSpec) -> int:
        """Bytes that one process needs which trains such runs."""
        return self.how(spec).memory * self.lanes(spec)

    def how(self, spec: RunSpec) -> Fit:
        """Micro-batch and recomputation with which a run fits. Raises InputError if none does."""
        found = self.share(spec).fit
        assert found is not None
        return found

    def share(self, spec: RunSpec) -> Share:
        """What a process that trains such a run has of the device, as a calibration finds it.

        Raises InputError where no run fits.
        """
        shares = self.shares(spec)
        if len(shares) == 1:
            return shares[0]
        return next(s for s in shares if s.processes == self.speed(spec).processes)

    def shares(self, spec: RunSpec) -> list[Share]:
        """What it may have: that of a process a core, of half as many processes, and so on.

        Where processes were told, and on a GPU, theirs alone. Left out is where a run does not fit,
        and where it must recompute and need not with fewer. Raises InputError where none is left.
        """
        if spec.cell not in self._shares:
            counts = [self.workers]
            while self._told is None and counts[-1] > 1:
                counts.append(counts[-1] // 2)
            cores = len(os.sched_getaffinity(0))
            found = [
                Share(count, max(1, cores // count), fit)
                for count in counts
                if (fit := self._fit(spec, self._room(count))) is not None
            ]
            if not found:
                self._refuse(spec, self._room(counts[-1]))
            kept = [share for share in found if share.fit and not share.fit.recompute]
            self._shares[spec.cell] = kept or found
        return self._shares[spec.cell]

    def _room(self, processes: int) -> float:
        """Bytes for each."""
        return 0.9 * memory_of(self._device) / processes

    def _fit(self, spec: RunSpec, room: float) -> Fit | None:
        told = self._suite.micro_batch, self._suite.recompute
        return fit(self.cost(spec), spec.batch, room, *told)

    def cost(self, spec: RunSpec) -> Estimate:
        if spec.cell not in self._costs:
            key = Known.key("cost", sources(), spec.identity(*spec.lane_fields, *_SCHEDULE))
            found = self._known.get(key)
            with foreign_parts(spec):
                cost = Estimate(*map(int, found)) if found else estimate(spec, self._data)
            self._known.put(key, list(astuple(cost)))
            self._costs[spec.cell] = cost
        return self._costs[spec.cell]

    def described(self, spec: RunSpec) -> Described:
        if spec.cell not in self._described:
            key = Known.key("parameters", sources(), spec.identity(*spec.lane_fields, *_SCHEDULE))
            # a model of somebody's own may be made of files that no key knows
            builtin = spec.model["name"] in BUILTINS["model"]
            found = self._known.get(key) if builtin else None
            params = [Param.from_json(p) for p in found or ()] or describe_params(spec, self._data)
            if builtin:
                self._known.put(key, [p.to_json() for p in params])
            flops = self.cost(spec).flops if vectorises(spec) else None
            self._described[spec.cell] = Described(params, flops)
        return self._described[spec.cell]

    def speed(self, spec: RunSpec) -> Speed:
        """As measured here before, or now; beside a run for this session alone."""
        if spec.cell not in self._speeds:
            shares = self.shares(spec)
            # machine, versions, processes and threads, and what decides the time of a step
            where = (engine.device_name(self._device), [astuple(share) for share in shares])
            kind = spec.identity(*spec.lane_fields, *_SCHEDULE, "eval_batches", "data")
            key = Known.key("speed and processes", sources(), *where, kind)
            found = self._known.get(key) or self._beside.get(key)
            if found is None:
                training = bool(self._pool.in_flight)
                found = list(astuple(self._measured(spec, shares, training)))
                if training:
                    self._beside[key] = found
                else:
                    self._known.put(key, found)
            lanes, step, evaluation, processes = found
            self._speeds[spec.cell] = Speed(int(lanes), step, evaluation, int(processes))
        return self._speeds[spec.cell]

    def _measured(self, spec: RunSpec, shares: list[Share], training: bool) -> Speed:
        engine.configure(shares[0].threads)
        together = None if training or self.workers == 1 else partial(self._together, spec)
        with foreign_parts(spec):
            speed = calibrate(spec, self._data, self._device, shares, together)
        engine.return_freed_memory()  # to the workers
        return speed

    def _together(self, spec: RunSpec, share: Share, lanes: int) -> Speed:
        """Speed while all processes train: they share caches, memory and the clock of the CPU."""
        return self._pool.measure(Probe(spec, self._suite.data, str(self._device), share, lanes))

    def lanes(self, spec: RunSpec) -> int:
        if not vectorises(spec) or self.how(spec).recompute:
            return 1
        return self._lanes or self.speed(spec).lanes

    def _refuse(self, spec: RunSpec, room: float) -> NoReturn:
        axis, width = self._suite.axis, spec.width
        fits = None
        while axis == "width" and fits is None and width > 1:
            width //= 2
            with contextlib.suppress(InputError):  # a width that the model cannot have
                fits = self._fit(spec.at("width", width), room)
        cost = self.cost(spec)
        least = cost.fixed + min(cost.activations, cost.recomputed) // spec.batch
        name = spec.optimizer["name"]
        fewer = "fewer --workers or " if (self._told or 1) > 1 else ""
        raise InputError(
            f"{name} at {axis} {spec.axis_value(axis)} needs about {least / 2**30:.1f} GiB, "
            f"one example at a time; {engine.device_name(self._device)} has room for "
            f"{room / 2**30:.1f} GiB a process",
            f"width {width} would fit" if fits else f"{fewer}a smaller model may fit",
        )
