"""Param, RunSpec (what decides a loss curve and nothing else) and RunRecord (what it gave)."""

import functools
import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

__all__ = [
    "LR_STEP",
    "SCHEMA",
    "Axis",
    "Param",
    "Role",
    "RunRecord",
    "RunSpec",
    "round_lr",
]

SCHEMA = 1
"""Version of the format of specs and records."""

LR_STEP = 1 / 8
"""Octaves; a learning rate is an exponent of two, rounded to this."""

MOST = 2**53
"""The largest integer of a record: every integer up to here is a float too."""

LARGEST = 3.5e38
"""The largest number of a record, a bit more than float32 holds."""


Role = Literal["input", "hidden", "output", "vector"]
"""How a parameter is used; biases and gains are vectors."""

Axis = Literal["width", "depth", "batch_size", "steps"]
"""What grows from the proxy to the targets."""


@dataclass(frozen=True)
class Param:
    """A parameter as optimizers see it: role and shapes, never a model.

    `shape` and `base_shape` are the tensor's own; an embedding's is (..., vocab, d), so its d_out
    is d. `gain`: the factor of a normalisation layer, starts at 1. `tied`: an embedding that is the
    output layer too (role output). `parts`: matrices fused along the first dimension (3 for qkv);
    d_out is that of one. `depth_m`: depth over base depth, where the model scales with depth.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    embedding: bool = False
    conv: bool = False
    gain: bool = False
    tied: bool = False
    parts: int = 1
    depth_m: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**own)

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if len(shape) == 1:
            return shape[0], 1
        if self.embedding:
            return shape[-1], math.prod(shape[:-1])
        return shape[0] // self.parts, math.prod(shape[1:])

    @property
    def d_out(self) -> int:
        return self._fans(self.shape)[0]

    @property
    def d_in(self) -> int:
        return self._fans(self.shape)[1]

    @property
    def base_d_out(self) -> int:
        return self._fans(self.base_shape)[0]

    @property
    def base_d_in(self) -> int:
        return self._fans(self.base_shape)[1]

    @property
    def m(self) -> float:
        """Width multiplier d_in / base d_in."""
        return self.d_in / self.base_d_in

    @property
    def m_out(self) -> float:
        """Width multiplier of the output side, d_out / base d_out."""
        return self.d_out / self.base_d_out

    @property
    def taps(self) -> int:
        """Spatial size of a convolution's kernel (k^2 in two dimensions), else 1."""
        return math.prod(self.shape[2:]) if self.conv else 1


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces: the text that is hashed."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a loss curve and nothing else.

    `model`, `data`, `optimizer`: name, revision and resolved fields. `log2_lr`: octaves, a multiple
    of 1/8. `warmup`: fraction of the steps. `clip`: global gradient norm, 0 for none.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    hp: dict[str, Any]
    width: int
    base: dict[str, int]
    log2_lr: float
    steps: int
    batch: int
    schedule: str
    warmup: float
    clip: float
    precision: str
    eval_batches: int
    seed: int
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**data)

    def identity(self, *without: str) -> str:
        """Identity of this run in everything but these fields: 20 hex digits.

        `real_hp` leaves out the hyperparameters that are real numbers.
        """
        kept = {k: v for k, v in self.to_json().items() if k not in without}
        if "real_hp" in without:
            kept["hp"] = {k: v for k, v in self.hp.items() if not isinstance(v, float)}
        return digest(canonical(kept))

    @functools.cached_property
    def key(self) -> str:
        """Identity of the run: 20 hex digits."""
        return self.identity()

    @functools.cached_property
    def cell(self) -> str:
        """Identity of the loss curve over lr that this run is a point of."""
        return self.identity("log2_lr", "seed")

    @property
    def lr(self) -> float:
        return 2.0**self.log2_lr

    def at(self, axis: Axis, value: int) -> Self:
        """This spec at another axis value."""
        if axis == "depth":
            return replace(self, model={**self.model, "n_layer": value})
        field_name = {"width": "width", "batch_size": "batch", "steps": "steps"}[axis]
        return replace(self, **{field_name: value})

    def point(self, log2_lr: float, seed: int, **hp: float) -> Self:
        """This spec at a learning rate (rounded to 1/8 octave), a seed and searched values."""
        return replace(self, log2_lr=round_lr(log2_lr), seed=seed, hp={**self.hp, **hp})


Bounds = tuple[tuple[type, ...], float, float]  # types, least, most
COUNT: Bounds = ((int,), 1, MOST)
BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(("width", "steps", "batch", "eval_batches", "schema"), COUNT),
    "seed": ((int,), 0, MOST),
    "log2_lr": ((int, float), -149, 128),  # what float32 holds
    "warmup": ((int, float), 0, 1),
    "clip": ((int, float), 0, LARGEST),
}


def fits(value: Any, bounds: Bounds) -> bool:
    """Whether a value is of one of the types, True and False being no integers, and in range."""
    kinds, least, most = bounds
    return type(value) in kinds and least <= value <= most


def fault(spec: Any) -> str:
    """What keeps a JSON value from being the spec of a run, "" for nothing."""
    if type(spec) is not dict or spec.keys() != {f.name for f in fields(RunSpec)}:
        return "spec has not the fields of a run"
    parts = ("model", "data", "optimizer")
    wrong = [name for name in (*parts, "hp", "base") if type(spec[name]) is not dict]
    wrong += [name for name in ("schedule", "precision") if type(spec[name]) is not str]
    wrong += [name for name, bounds in BOUNDS.items() if not fits(spec[name], bounds)]
    if not wrong:
        wrong += [name for name in parts if type(spec[name].get("name")) is not str]
        wrong += ["base"] if not all(fits(n, COUNT) for n in spec["base"].values()) else []
        wrong += ["model"] if not fits(spec["model"].get("context", 1), COUNT) else []
    if wrong:
        return f"{wrong[0]} is {spec[wrong[0]]!r:.40}"
    return "" if tokens(spec) <= MOST else "more tokens than can be counted"


def tokens(spec: dict[str, Any]) -> int:
    """Tokens or examples that a run trains on, from its JSON form."""
    return spec["batch"] * spec["steps"] * spec["model"].get("context", 1)


def cell_of(spec: dict[str, Any]) -> str:
    """`RunSpec.cell` from the JSON form."""
    return digest(canonical({k: v for k, v in spec.items() if k not in ("log2_lr", "seed")}))


def round_lr(log2_lr: float) -> float:
    """The nearest log2 lr that a run can have: a multiple of 1/8 octave."""
    return round(log2_lr / LR_STEP) * LR_STEP


@dataclass(frozen=True)
class RunRecord:
    """What one run gave. `loss` is the final held-out loss in nats, `inf` when it diverged.

    `curve`: [step, training loss] pairs (of a transported method: at Y, where gradients are taken).
    `train_loss`, `train_mean`: mean over the last tenth and over the whole curve. `seconds`: its
    share of the unit's device time. `peak_memory`: bytes of the whole unit, 0 if unknown.
    """

    spec: RunSpec
    status: Literal["done", "diverged", "failed"]
    loss: float
    loss_init: float
    train_loss: float
    train_mean: float
    curve: list[list[float]]
    seconds: float
    flops: float
    peak_memory: int
    env: dict[str, Any]
    finished: float
    probes: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def key(self) -> str:
        return self.spec.key


@dataclass(frozen=True)
class Unit:
    """Runs that one process trains together, one run per lane.

    They differ in learning rate, seed and real-valued hyperparameters alone. Raises ValueError
    where `runs` is empty.
    """

    runs: tuple[RunSpec, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a unit has at least one run")

    @property
    def spec(self) -> RunSpec:
        """The first run: it stands for whatever the lanes share."""
        return self.runs[0]

    @property
    def lanes(self) -> int:
        return len(self.runs)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)

    @functools.cached_property
    def key(self) -> str:
        """Identity of the runs in their order, which names the snapshot: 20 hex digits."""
        return digest("".join(self.keys))

    def halves(self) -> tuple["Unit", "Unit"]:
        """Two units with half of the lanes each. Raises ValueError for one lane."""
        half = self.lanes // 2
        return Unit(self.runs[:half]), Unit(self.runs[half:])
