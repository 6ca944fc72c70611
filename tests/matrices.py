"""Matrices of known singular values, and the settings of the polar factor to try on them."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from hptransfer.geometry.polar import PolarForm

few = settings(max_examples=12)
seeds = st.integers(0, 2**31)
every_iteration = pytest.mark.parametrize("method", ["polar_express", "jordan"])
every_dtype = pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
# Polar Express has no Gram form in pure bfloat16
every_pair = pytest.mark.parametrize(
    ("dtype", "form"),
    [*itertools.product(["float32", "mixed"], ["plain", "gram"]), ("bfloat16", "plain")],
)
every_accurate_pair = pytest.mark.parametrize(
    ("dtype", "form"), list(itertools.product(["float32", "mixed"], ["plain", "gram"]))
)
FORMS: tuple[PolarForm, ...] = "gram", "plain"
every_form = pytest.mark.parametrize("form", FORMS)


def matrix(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_spectrum(d_out: int, d_in: int, spectrum: Tensor, seed: int = 0) -> Tensor:
    """A float64 matrix of the given singular values in random directions."""
    k = min(d_out, d_in)
    u, _ = torch.linalg.qr(matrix(seed, d_out, k))
    v, _ = torch.linalg.qr(matrix(seed + 1, d_in, k))
    return (u * spectrum.double()) @ v.mT


SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "flat": lambda k: torch.ones(k),
    "linear": lambda k: torch.linspace(1, 0.05, k),
    "power law": lambda k: torch.arange(1, k + 1).double() ** -1.5,
    "geometric to 1e-3": lambda k: torch.logspace(0, -3, k),
    "rank one": lambda k: torch.eye(k)[0],
    "half rank": lambda k: (torch.arange(k) < (k + 1) // 2).double(),
    "nearly rank deficient": lambda k: torch.where(torch.arange(k) < (k + 1) // 2, 1.0, 1e-9),
    "one large value": lambda k: torch.where(torch.arange(k) < 1, 1.0, 1e-2),
}
every_spectrum = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
