"""The type checker of the tests sees tensors and their shapes in every package."""

import pytest
import torch
from jaxtyping import TypeCheckError

from hptransfer.geometry.polar import polar
from hptransfer.optimizers.rules import average


def test_a_shape_that_the_annotation_does_not_admit_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        polar(torch.ones(3), "svd")


def test_what_is_no_tensor_is_an_error_outside_the_geometry_too() -> None:
    with pytest.raises(TypeCheckError):
        average([1.0], torch.ones(1), 0.5)  # pyright: ignore[reportArgumentType]
