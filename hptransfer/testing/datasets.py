"""The contract of a data set: a function that gives Tokens or Examples."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hptransfer import registry
from hptransfer.datasets import Examples, Tokens
from hptransfer.registry import Part
from hptransfer.testing.common import Clause, require, summary
from hptransfer.train.build import Data

SAMPLES, WINDOW = 64, 512  # of held-out text looked for in the training part; tokens


def clauses(part: Part, target: str, width: int) -> Iterator[Clause]:
    del width
    make = registry.load("dataset", target)
    yield "says what it is in its first line", lambda: summary(part)
    yield "gives Tokens or Examples of the right types", lambda: _typed(make())
    yield "gives the same bytes twice", lambda: _same(make(), make())
    yield "holds out what it does not train on", lambda: _split(make())


def _typed(data: Any) -> str:
    require(isinstance(data, Tokens | Examples), f"gave a {type(data).__name__}")
    if isinstance(data, Tokens):
        for part in (data.train, data.heldout):
            require(part.ndim == 1 and part.dtype.kind == "u", f"{part.dtype} {part.shape}")
            require(int(part.max()) < data.vocab, f"a token {part.max()} >= vocab {data.vocab}")
        return f"{len(data.train):,} + {len(data.heldout):,} tokens of {data.vocab}"
    for x, y in ((data.x_train, data.y_train), (data.x_heldout, data.y_heldout)):
        require(x.dtype == np.float32 and y.dtype == np.int64, f"x {x.dtype}, y {y.dtype}")
        require(len(x) == len(y), f"{len(x)} examples, {len(y)} labels")
        require(bool(np.isfinite(x).all()), "x is not finite")
        require(int(y.min()) >= 0 and int(y.max()) < data.n_classes, "a label out of range")
    return f"{len(data.x_train):,} + {len(data.x_heldout):,} examples of {data.x_train.shape[1:]}"


def _same(one: Data, two: Data) -> str:
    require(one.sha256 == two.sha256, "its sha256 changes from call to call")
    require(len(one.sha256) == 64, "sha256 is to be datasets.fingerprint of its arrays")
    return one.sha256[:16]


def _split(data: Data) -> None:
    if isinstance(data, Tokens):
        require(not np.shares_memory(data.train, data.heldout), "the parts share memory")
        train = data.train.tobytes()
        last = max(1, len(data.heldout) - WINDOW + 1)
        starts = range(0, last, -(-last // SAMPLES))
        shared = sum(data.heldout[at : at + WINDOW].tobytes() in train for at in starts)
        told = f"{shared} of {len(starts)} samples of held-out text are in the training part"
        require(shared <= len(starts) // 16, told)
        return
    train = {row.tobytes() for row in data.x_train}
    shared = sum(row.tobytes() in train for row in data.x_heldout)
    require(shared <= len(data.x_heldout) // 100, f"{shared} held-out examples are trained on")
