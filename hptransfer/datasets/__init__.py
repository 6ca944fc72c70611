"""Data sets as arrays, and the batches that runs draw from them. numpy only, never torch."""

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
    "Unread",
    "fingerprint",
    "offsets",
    "offsets_block",
    "package_folder",
    "spread",
]

_WORDS = 4  # 64-bit words of Philox per counter value


@dataclass(frozen=True, eq=False)
class Tokens:
    """A token stream.

    `train`, `heldout`: uint8 or uint16, shape (n_tokens,), values below `vocab`. `sha256`: their
    `fingerprint`, a part of a run's identity. `note`: the source and its version, for a reader.
    """

    name: str
    train: NDArray[np.unsignedinteger[Any]]
    heldout: NDArray[np.unsignedinteger[Any]]
    vocab: int
    sha256: str
    note: str = ""

    @property
    def dims(self) -> dict[str, Any]:
        """Arguments of a model's constructor that depend on the data."""
        return {"vocab": self.vocab}

    def train_examples(self, context: int) -> int:
        """Number of training windows of `context` tokens that do not overlap, at least 1."""
        return max(1, (len(self.train) - 1) // context)

    def heldout_examples(self, context: int) -> int:
        """Number of held-out windows of `context` tokens that do not overlap, at least 1."""
        return max(1, (len(self.heldout) - 1) // context)


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images.

    `x_*`: float32 (N, C, H, W), standardised with the mean and deviation of the train part.
    `y_*`: int64 (N,), below `n_classes`. `sha256`: the `fingerprint` of the arrays, a part of a
    run's identity. `note`: the source and its version, for a reader.
    """

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
        """Arguments of a model's constructor that depend on the data."""
        return {"in_shape": self.x_train.shape[1:], "n_classes": self.n_classes}

    def train_examples(self, context: int) -> int:
        """Number of training examples."""
        del context
        return len(self.y_train)

    def heldout_examples(self, context: int) -> int:
        """Number of held-out examples."""
        del context
        return len(self.y_heldout)


@dataclass(frozen=True)
class Unread:
    """A data set of which at most the fingerprint and the number of held-out examples are known."""

    sha256: str = ""
    heldout: int = 1

    def train_examples(self, context: int) -> None:
        """None, where the number is not known."""
        del context

    def heldout_examples(self, context: int) -> int:
        """Number of held-out examples; 1 where it is not known."""
        del context
        return self.heldout


def offsets(seed: int, step: int, batch: int, high: int) -> NDArray[np.int64]:
    """First indices of the examples of one step: `batch` draws from range(high), with replacement.

    int64 (batch,). A pure function of its arguments, equal on every machine and numpy version.
    Text with context T: high = len(tokens) - T, and an example is tokens[o : o + T + 1].
    Images: high = N. `seed`, `step`: non-negative, below 2^64.
    """
    return offsets_block(seed, step, 1, batch, high)[0]


def spread(count: int, high: int) -> NDArray[np.int64]:
    """First indices of `count` held-out examples, evenly spread over range(high); int64 (count,).

    Each example comes once where `count` is at most `high`. For text with context T, with
    high = len(tokens) - T, windows do not overlap where `count` is at most `heldout_examples`.
    """
    return np.arange(count, dtype=np.int64) * high // count


def offsets_block(
    seed: int, first_step: int, n_steps: int, batch: int, high: int
) -> NDArray[np.int64]:
    """`offsets` of `n_steps` consecutive steps, int64 (n_steps, batch).

    Source: Philox4x64-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    counters = -(-batch // _WORDS)
    stream = np.random.Philox(
        key=np.array([seed, 0], dtype=np.uint64),
        counter=np.array([first_step * counters, 0, 0, 0], dtype=np.uint64),
    )
    words = stream.random_raw(n_steps * counters * _WORDS).reshape(n_steps, -1)[:, :batch]
    # numpy guarantees the same raw words in every version, but not the same `Generator.integers`.
    # The remainder is biased by high / 2^64 at most.
    return (words % np.uint64(high)).astype(np.int64)


def fingerprint(*arrays: NDArray[Any]) -> str:
    """sha256 of arrays in order, as hex digits.

    It covers the type and the shape of each array, so another split of equal bytes has another
    fingerprint. The bytes are read in little-endian order on every machine.
    """
    digest = hashlib.sha256()
    for array in arrays:
        ordered = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{ordered.dtype.str}{ordered.shape};".encode())
        digest.update(ordered.data)
    return digest.hexdigest()


def package_folder(package: str, dataset: str, requirement: str) -> Path:
    """Folder of an installed package, without an import. Raises InputError if it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"data.name: {dataset!r} needs the package {package}, which is not installed",
            f"pip install '{requirement}'",
        )
    return Path(spec.origin).parent
