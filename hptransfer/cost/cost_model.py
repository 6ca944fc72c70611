"""The cost model of a suite on a device: cost, placement and speed of each of its runs."""

import contextlib
from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any, NoReturn

import torch

from hptransfer.cost import machine
from hptransfer.cost.calibrate import Together, calibrate
from hptransfer.cost.count import Cost, count
from hptransfer.cost.placement import Placement, counts, place, placements, room
from hptransfer.cost.remembered import Cache, sources
from hptransfer.cost.speed import Speed
from hptransfer.errors import InputError
from hptransfer.spec import Param, RunSpec
from hptransfer.suite.resolved import Suite
from hptransfer.train import engine, memory
from hptransfer.train.build import Data
from hptransfer.train.prepare import Prepared, foreign_parts, own_parts, prepare

_SCHEDULE = ("steps", "schedule", "warmup")  # no cost of a step depends on these fields

TimeTogether = Callable[[RunSpec, Placement, int], Speed]
"""Speed of so many lanes of a run in every process of a placement at once."""


class CostModel:
    """Cost, placement and speed of the runs of a suite, each determined once.

    `workers`, `lanes`: the user's choice, None to find the fastest. `together` times steps in the
    workers. `training` says whether workers train now: then nothing is timed in them, and what is
    timed beside them is forgotten with the session.
    """

    def __init__(
        self,
        suite: Suite,
        data: Data,
        device: torch.device,
        *,
        together: TimeTogether,
        training: Callable[[], bool],
        workers: int | None = None,
        lanes: int | None = None,
    ) -> None:
        self._suite, self._data, self._device = suite, data, device
        self._together, self._training = together, training
        self._chosen_workers, self._chosen_lanes = workers, lanes
        self.cores = machine.usable_cores()
        # one process per core on CPU, where threads cost time; one on a GPU
        self.workers = workers or (1 if device.type == "cuda" else self.cores)
        self._cache = Cache()
        # by cell, which decides them
        self._costs: dict[str, Cost] = {}
        self._prepared: dict[str, Prepared] = {}
        self._placements: dict[str, list[Placement]] = {}
        self._speeds: dict[str, Speed] = {}
        self._beside: dict[str, list[Any]] = {}  # by key of the cache, timed beside other runs

    def cost(self, spec: RunSpec) -> Cost:
        """Counted anew in every session where a part is the user's own: what it imports may change
        and leave no trace in the key."""
        if spec.cell not in self._costs:
            key = Cache.key("cost", sources(), spec.identity(*spec.lane_fields, *_SCHEDULE))
            own = own_parts(spec)
            values = None if own else self._cache.get(key)
            with foreign_parts(spec):
                cost = Cost(*values) if values else count(self._prepare(spec))
            if not own:
                self._cache.put(key, list(astuple(cost)))
            self._costs[spec.cell] = cost
        return self._costs[spec.cell]

    def prepared(self, spec: RunSpec) -> Prepared:
        """The run with its FLOPs, but under a torch optimizer: only a step shows those."""
        prepared = self._prepare(spec)
        return replace(prepared, flops=self.cost(spec).flops) if prepared.vectorises else prepared

    def _prepare(self, spec: RunSpec) -> Prepared:
        """Parameters come from the cache for built-in models."""
        if spec.cell not in self._prepared:
            key = Cache.key("parameters", sources(), spec.identity(*spec.lane_fields, *_SCHEDULE))
            builtin = "model" not in own_parts(spec)
            values = self._cache.get(key) if builtin else None
            params = [Param.from_json(p) for p in values] if values else None
            with foreign_parts(spec):
                prepared = prepare(spec, self._data, params=params)
            if builtin:
                self._cache.put(key, [p.to_json() for p in prepared.params])
            self._prepared[spec.cell] = prepared
        return self._prepared[spec.cell]

    def placements(self, spec: RunSpec) -> list[Placement]:
        """Where a run may be placed, the most processes first. Raises InputError where it cannot.

        The user's choice of workers and a GPU leave one.
        """
        if spec.cell not in self._placements:
            memory = machine.memory_of(self._device)
            processes = [self.workers] if self._chosen_workers else counts(self.workers)
            possible = placements(
                self.cost(spec),
                spec.batch,
                processes,
                cores=self.cores,
                memory=memory,
                micro_batch=self._suite.micro_batch,
                recompute=self._suite.recompute,
            )
            if not possible:
                self._refuse(spec, room(memory, processes[-1]))
            self._placements[spec.cell] = possible
        return self._placements[spec.cell]

    def placement(self, spec: RunSpec) -> Placement:
        """The fastest placement of a run. Raises InputError where it has none."""
        possible = self.placements(spec)
        if len(possible) == 1:
            return possible[0]
        processes = self.speed(spec).processes
        return next(placement for placement in possible if placement.processes == processes)

    def speed(self, spec: RunSpec) -> Speed:
        """Timed once on this machine, and kept in the cache."""
        if spec.cell not in self._speeds:
            possible = self.placements(spec)
            where = [engine.device_name(self._device), [astuple(each) for each in possible]]
            where += [{"lanes": self._chosen_lanes}] if self._chosen_lanes else []
            alike = spec.identity(*spec.lane_fields, *_SCHEDULE, "eval_examples", "data")
            cost = astuple(self.cost(spec))  # a model whose imports have grown is timed anew
            key = Cache.key("speed and processes", sources(), *where, cost, alike)
            values = self._cache.get(key) or self._beside.get(key)
            if values is None:
                training = self._training()
                values = list(astuple(self._timed(spec, possible, training)))
                if training:
                    self._beside[key] = values
                else:
                    self._cache.put(key, values)
            self._speeds[spec.cell] = Speed(*values)
        return self._speeds[spec.cell]

    def lanes(self, spec: RunSpec) -> int:
        """Runs that train together in one process."""
        if not self._prepare(spec).vectorises or self.placement(spec).recompute:
            return 1
        return self._chosen_lanes or self.speed(spec).lanes

    def memory(self, spec: RunSpec) -> int:
        """Bytes of a process that trains such runs."""
        return self.placement(spec).memory * self.lanes(spec)

    def _timed(self, spec: RunSpec, possible: list[Placement], training: bool) -> Speed:
        engine.configure(possible[0].threads)

        def in_workers(placement: Placement, lanes: int) -> Speed:
            return self._together(spec, placement, lanes)

        together: Together | None = None if training or self.workers == 1 else in_workers
        with foreign_parts(spec):
            prepared = self._prepare(spec)
            where = (self._device, possible, together, self._chosen_lanes)
            speed = calibrate(prepared, self.cost(spec), *where)
        memory.return_freed_memory()  # to the workers
        return speed

    def _refuse(self, spec: RunSpec, room: float) -> NoReturn:
        """Raise InputError that names the largest width that fits into `room` bytes."""
        axis, width = self._suite.axis, spec.width
        fits = None
        fixed = {"micro_batch": self._suite.micro_batch, "recompute": self._suite.recompute}
        while axis == "width" and fits is None and width > 1:
            width //= 2
            with contextlib.suppress(InputError):  # a width that the model cannot have
                fits = place(self.cost(spec.at("width", width)), spec.batch, room, **fixed)
        cost = self.cost(spec)
        least = cost.fixed + min(cost.activations, cost.recomputed) // spec.batch
        name = spec.optimizer["name"]
        fewer = "fewer workers or " if (self._chosen_workers or 1) > 1 else ""
        raise InputError(
            f"{name} at {axis} {spec.axis_value(axis)} needs about {least / 2**30:.1f} GiB, "
            f"one example at a time; {engine.device_name(self._device)} has room for "
            f"{room / 2**30:.1f} GiB per process",
            f"width {width} would fit" if fits else f"{fewer}a smaller model may fit",
        )
