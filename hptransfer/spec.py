"""Param, RunSpec (all that decides a loss curve, nothing else), RunRecord (its result), Unit."""

import functools
import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

__all__ = [
    "FIRST_SCHEMA", "LR_STEP", "SCHEMA", "Axis", "Param", "Role", "RunRecord", "RunSpec",
    "round_lr",
]  # fmt: skip

SCHEMA = 2
"""Version of the format of specs and records."""
FIRST_SCHEMA = 1
"""The first format. Its records are still read, and never mixed with those of SCHEMA."""
LR_STEP = 1 / 8
"""Octaves. log2 of every learning rate is a multiple of this."""
MOST = 2**53  # the largest integer of a record: floats are exact up to here
LARGEST = 3.5e38  # the largest number of a record, slightly above the largest float32

Role = Literal["input", "hidden", "output", "vector"]
"""How a parameter is used; biases and gains are vectors."""

Axis = Literal["width", "depth", "batch_size", "steps"]
"""The quantity that grows from the proxy to the targets."""
AXIS_FIELD: dict[Axis, str] = {  # the field of a RunSpec that holds the axis value
    "width": "width",
    "depth": "model.n_layer",
    "batch_size": "batch",
    "steps": "steps",
}


@dataclass(frozen=True)
class Param:
    """A parameter as an optimizer sees it: role and shapes, without a model.

    `shape`, `base_shape`: shape of the tensor in the model and in the base model; an embedding has
    (..., vocab, d), so its d_out is d. `gain`: the factor of a normalisation layer, which starts at
    1. `tied`: an embedding that is the output layer too (role output). `parts`: number of matrices
    fused along the rows (3 for qkv). `stacked`: number of leading dimensions that count matrices or
    vectors, 1 for experts (E, d_out, d_in). `d_out` and `d_in` are those of one matrix. `depth_m`:
    depth over base depth, 1 for a model without CompleteP's factor.
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
    stacked: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; shapes become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**own)

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        own = shape[self.stacked :]
        if len(own) == 1:
            return own[0], 1
        if self.embedding:
            return own[-1], math.prod(own[:-1])
        return own[0] // self.parts, math.prod(own[1:])

    @property
    def d_out(self) -> int:
        """Rows of the weight as a matrix: fan-out, d of an embedding, size of a vector."""
        return self._fans(self.shape)[0]

    @property
    def d_in(self) -> int:
        """Columns of the weight as a matrix: fan-in with all taps, vocabulary, 1 for a vector."""
        return self._fans(self.shape)[1]

    @property
    def base_d_out(self) -> int:
        """`d_out` in the base model."""
        return self._fans(self.base_shape)[0]

    @property
    def base_d_in(self) -> int:
        """`d_in` in the base model."""
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
    """JSON with sorted keys and no spaces, the form for `digest`."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """First 20 hex digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class RunSpec:
    """All that decides a loss curve, and nothing else.

    `model`, `data`, `optimizer`: name, revision and all fields. `hp`: all hyperparameters of the
    optimizer. `base`: width with m = 1. `log2_lr`: log2 of the peak lr, a multiple of 1/8. `batch`:
    examples per step. `warmup`: fraction of the steps. `clip`: largest global gradient norm, 0 for
    no limit. `eval_examples`: held-out examples of the final loss, each used once; a window of the
    context is one of text. In FIRST_SCHEMA it holds the number of batches, `eval_batches`.
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
    eval_examples: int
    seed: int
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, which `key` hashes."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        return _with_key(table, *_RENAMED) if self.schema == FIRST_SCHEMA else table

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**named(data))

    def identity(self, *without: str) -> str:
        """20 hex digits, equal for two runs that differ in these fields alone.

        A dot names a field of a table, as in `hp.beta1` and `model.n_layer`. Raises KeyError for a
        field that no run has.
        """
        rest = self.to_json()
        for name in without:
            table, dot, key = name.partition(".")
            if dot:
                rest[table] = {k: v for k, v in rest[table].items() if k != key}
            else:
                del rest[name]
        return digest(canonical(rest))

    def value(self, name: str) -> Any:
        """The value of a field, named as in `identity`; None for a key that its table lacks."""
        table, dot, key = name.partition(".")
        return getattr(self, table).get(key) if dot else getattr(self, name)

    @functools.cached_property
    def key(self) -> str:
        """Identity of the run: 20 hex digits."""
        return self.identity()

    @functools.cached_property
    def cell(self) -> str:
        """Identity of the curve of loss over lr to which this run belongs: 20 hex digits."""
        return self.identity("log2_lr", "seed")

    @property
    def lane_fields(self) -> tuple[str, ...]:
        """Fields that may differ among the lanes of one unit: lr, seed and real-valued hp."""
        real = (f"hp.{key}" for key, value in self.hp.items() if isinstance(value, float))
        return ("log2_lr", "seed", *real)

    @property
    def lr(self) -> float:
        """Peak learning rate, 2^log2_lr."""
        return 2.0**self.log2_lr

    @property
    def evaluations(self) -> float:
        """Batches' worth of held-out examples."""
        return self.eval_examples / self.batch

    def axis_value(self, axis: Axis) -> int:
        """The value of this run on an axis."""
        return int(self.value(AXIS_FIELD[axis]))

    def at(self, axis: Axis, value: int) -> Self:
        """This spec at another axis value."""
        table, dot, key = AXIS_FIELD[axis].partition(".")
        new = {**getattr(self, table), key: value} if dot else value
        return replace(self, **{table: new})

    def point(self, log2_lr: float, seed: int, **hp: float) -> Self:
        """This spec at a learning rate (rounded to 1/8 octave), a seed and these values of hp."""
        return replace(self, log2_lr=round_lr(log2_lr), seed=seed, hp={**self.hp, **hp})


Bounds = tuple[tuple[type, ...], float, float]  # types, least, most
COUNT: Bounds = ((int,), 1, MOST)
BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(("width", "steps", "batch", "eval_examples", "schema"), COUNT),
    "seed": ((int,), 0, MOST),
    "log2_lr": ((int, float), -149, 128),  # the range of float32
    "warmup": ((int, float), 0, 1),
    "clip": ((int, float), 0, LARGEST),
}


def fits(value: Any, bounds: Bounds) -> bool:
    """Whether a value has one of the types and lies in range; True and False are no integers."""
    kinds, least, most = bounds
    return type(value) in kinds and least <= value <= most


_RENAMED = ("eval_examples", "eval_batches")  # a field, and its name in FIRST_SCHEMA


def _with_key(table: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in table.items()}


def named(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec in its JSON form under the names of today."""
    return _with_key(spec, *_RENAMED[::-1]) if spec.get("schema") == FIRST_SCHEMA else spec


def fault(spec: Any) -> str:
    """Why a JSON value is not the spec of a run, "" if it is one."""
    spec = named(spec) if type(spec) is dict else spec
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
    """Number of tokens or examples that a run trains on; `spec` in its JSON form."""
    return spec["batch"] * spec["steps"] * spec["model"].get("context", 1)


def round_lr(log2_lr: float) -> float:
    """The multiple of 1/8 octave nearest to `log2_lr`."""
    return round(log2_lr / LR_STEP) * LR_STEP


@dataclass(frozen=True)
class RunRecord:
    """The result of one run.

    Losses in nats: `loss`, the final held-out loss, `inf` for a diverged run; `loss_init`, the
    held-out loss before the first step; `train_loss` and `train_mean`, mean training loss over the
    last tenth and over the whole of `curve`. `curve`: [step, training loss] pairs; a transported
    method has its training loss at Y. `seconds`: share of the unit's device time. `flops`:
    operations of all steps and evaluations. `peak_memory`: bytes of the whole unit, 0 if unknown.
    `env`: machine and versions. `finished`: seconds since 1970. `error`: why the run failed.
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
        """The first run, for the fields that all lanes share."""
        return self.runs[0]

    @property
    def lanes(self) -> int:
        return len(self.runs)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)

    @functools.cached_property
    def key(self) -> str:
        """Identity of the runs in their order: 20 hex digits, which name the snapshot."""
        return digest("".join(self.keys))

    def halves(self) -> tuple["Unit", "Unit"]:
        """Two units with half of the lanes each. Raises ValueError for one lane."""
        half = self.lanes // 2
        return Unit(self.runs[:half]), Unit(self.runs[half:])
