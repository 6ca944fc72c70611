"""Small data sets and runs that the numeric tests share."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from hptransfer import registry
from hptransfer.datasets import Examples, Tokens
from hptransfer.optimizers.rules import Rule, Step, init_state
from hptransfer.spec import Param, RunRecord, RunSpec, Unit
from hptransfer.train import engine
from hptransfer.train.lanes import Data, Lanes

CPU = torch.device("cpu")
OPTIMIZERS = tuple(registry.BUILTINS["optimizer"])
MODELS = ("gpt", "mlp", "vit", "cnn")
PAIRS = [  # every optimizer on one model, and two of them on every model
    *((optimizer, "gpt") for optimizer in OPTIMIZERS),
    *((optimizer, m) for optimizer in ("adamw", "transported_scion") for m in MODELS if m != "gpt"),
]
KEEPS_GRADIENT = (
    "scion_light",
)  # its momentum is in the gradient buffer, which clipping would scale
VOCAB = 61
CONTEXT = 8
FIELDS: dict[str, dict[str, Any]] = {  # for the small models, where the defaults are too large
    "gpt": {"n_layer": 1, "head_size": 8, "context": CONTEXT},
    "mlp": {},
    "vit": {"patch": 2, "n_layer": 1, "head_size": 8},
    "cnn": {"n_block": 1},
}
LOG2_LR = {  # the others move by a norm, and take 2^-4
    "adamw": -8.0,
    "adamw_emb": -7.0,
    "adamw_mup": -7.0,
    "lion": -7.0,
    "moga_official": -7.0,
    "sgd": -5.0,
    "signsgd": -7.0,
}
SHORT: dict[str, dict[str, Any]] = {  # for the small runs, which end before the defaults begin
    "ema_nesterov": {"off_first": 2, "gamma": 0.5},
}


EMBEDDING = Param("e", "input", (7, 8), (7, 2), embedding=True)
DENSE = Param("i", "input", (8, 5), (2, 5))
HIDDEN = Param("h", "hidden", (12, 8), (3, 2))
OUTPUT = Param("o", "output", (7, 8), (7, 2))
VECTOR = Param("v", "vector", (8,), (2,))
PARAMS = {
    p.role if not p.embedding else "embedding": p
    for p in (EMBEDDING, DENSE, HIDDEN, OUTPUT, VECTOR)
}
M = 4.0  # width 8 over base 2


def tokens(n: int = 3000, seed: int = 0) -> Tokens:
    """Text in which the next token is mostly (token * 5 + 3) mod VOCAB."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    stream = np.zeros(n, np.uint8)
    jumps, noise = rng.random(n) < 0.2, rng.integers(0, VOCAB, n)
    for i in range(1, n):
        stream[i] = noise[i] if jumps[i] else (int(stream[i - 1]) * 5 + 3) % VOCAB
    cut = n * 4 // 5
    return Tokens("made_up", stream[:cut], stream[cut:], VOCAB, "0" * 64)


def digits(n: int = 400, seed: int = 0, side: int = 4) -> Examples:
    """Five classes of 1 x side x side images, a fixed pattern each, in noise."""
    rng = np.random.Generator(np.random.Philox(key=seed + 100))
    patterns = rng.standard_normal((5, 1, side, side))
    y = rng.integers(0, 5, n).astype(np.int64)
    x = (patterns[y] + 0.5 * rng.standard_normal((n, 1, side, side))).astype(np.float32)
    cut = n * 4 // 5
    return Examples("made_up", x[:cut], y[:cut], x[cut:], y[cut:], 5, "0" * 64)


def data_for(model: str) -> Data:
    # a side of 8 leaves the convolutions 2 x 2 positions, so that every tap is used
    return tokens() if model == "gpt" else digits(side=8 if model == "cnn" else 4)


def spec(optimizer: str = "adamw", model: str = "gpt", **changes: Any) -> RunSpec:
    """A run of width 16 over base 8; `hp` adds to the defaults, other arguments replace them."""
    part = registry.describe("optimizer", optimizer)
    fields = {**registry.describe("model", model).defaults, **FIELDS[model]}
    for known in ("vocab", "in_shape", "n_classes"):  # comes from the data
        fields.pop(known, None)
    given: dict[str, Any] = {
        "model": {"name": model, "revision": 1, **fields, **changes.pop("model_fields", {})},
        "data": {"name": "made_up", "revision": 1, "sha256": "0" * 64},
        "optimizer": {"name": optimizer, "revision": part.revision},
        "hp": {**part.defaults, **SHORT.get(optimizer, {}), **changes.pop("hp", {})},
        "width": 16,
        "base": {"width": 8},
        "log2_lr": LOG2_LR.get(optimizer, -4.0),
        "steps": 6,
        "batch": 4,
        "schedule": "linear",
        "warmup": 0.0,
        "clip": 0.0,
        "precision": "float32",
        "eval_examples": 8,
        "seed": 0,
    }
    if optimizer in KEEPS_GRADIENT:
        changes["clip"] = 0.0
    return RunSpec(**{**given, **changes})


class LaneOptions(TypedDict, total=False):
    """The keywords of `Lanes`."""

    dtype: torch.dtype
    micro_batch: int | None
    recompute: bool
    drawn: bool


class TrainOptions(TypedDict, total=False):
    """The keywords of `engine.train`."""

    resume: Path | None
    micro_batch: int | None
    recompute: bool
    snapshot_seconds: float


def octaves_apart(run: RunSpec, seeds: tuple[int, ...] = (0, 0, 0)) -> list[RunSpec]:
    """One lane per octave, at these seeds."""
    return [run.point(run.log2_lr - i, seed) for i, seed in enumerate(seeds)]


def lanes(unit: list[RunSpec], data: Data | None = None, **options: Unpack[LaneOptions]) -> Lanes:
    return Lanes(unit, data or data_for(unit[0].model["name"]), CPU, **options)


def stepped(unit: list[RunSpec], steps: int | None = None, **options: Unpack[LaneOptions]) -> Lanes:
    """Lanes after `steps` steps, by default all of them, before the readout."""
    running = lanes(unit, **options)
    for t in range(unit[0].steps if steps is None else steps):
        running.gradients(t)
        running.update(t)
    return running


def weights(running: Lanes, lane: int = 0) -> dict[str, torch.Tensor]:
    """Every parameter of one lane by name."""
    return {
        name: (group.w[i] if running.single else group.w[i, lane]).clone()
        for group in running.groups
        for i, name in enumerate(group.names)
    }


def records(
    unit: list[RunSpec], data: Data | None = None, **options: Unpack[TrainOptions]
) -> list[RunRecord]:
    """The result of the engine for a unit on the CPU."""
    messages = engine.train(
        Unit(tuple(unit)), data or data_for(unit[0].model["name"]), CPU, **options
    )
    return [message for message in messages if isinstance(message, RunRecord)]


def ladder(run: RunSpec, n: int) -> list[RunSpec]:
    return [run.point(run.log2_lr - i, i % 2) for i in range(n)]


def numbers(record: RunRecord) -> tuple[Any, ...]:
    """The part of a record without place and time."""
    return record.status, record.loss, record.loss_init, record.train_loss, record.curve


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(t: int = 0, lr: float = 0.5, lr_next: float | None = None, lr_peak: float = 0.5) -> Step:
    scalars = (lr, lr if lr_next is None else lr_next, lr_peak)
    return Step(t, *(torch.tensor(s, dtype=torch.float64) for s in scalars))


def moved(rule: Rule, g: Tensor, w: Tensor, step: Step) -> Tensor:
    """The weights after one step from a fresh state."""
    return rule.update(g[None], init_state(rule, w[None]), w[None], step)[0][0]
