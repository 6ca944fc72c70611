"""The Gram form of the polar factor against the plain one."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from hptransfer.errors import InputError
from hptransfer.geometry.polar import PolarDtype, PolarForm, PolarMethod, polar
from matrices import (
    FORMS,
    every_dtype,
    every_form,
    every_iteration,
    every_pair,
    every_spectrum,
    few,
    matrix,
    seeds,
    with_spectrum,
)

pytestmark = pytest.mark.usefixtures("fast_bfloat16")


@every_iteration
@few
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 40)), seed=seeds)
def test_the_gram_form_equals_the_plain_one(
    method: PolarMethod, shape: tuple[int, int], seed: int
) -> None:
    m = matrix(seed, *shape)
    for x in (m, m.mT):
        plain = polar(x, method, form="plain")
        torch.testing.assert_close(polar(x, method, form="gram"), plain, rtol=0, atol=1e-6)


@every_spectrum
@pytest.mark.parametrize("shape", [(64, 64), (64, 192), (320, 80)])
def test_in_float32_the_gram_form_stays_near_the_plain_one(
    shape: tuple[int, int], spectrum: Callable[[int], Tensor]
) -> None:
    m = with_spectrum(*shape, spectrum(min(shape))).float()
    plain = polar(m, dtype="float32", form="plain")
    gram = polar(m, dtype="float32", form="gram")
    assert (gram - plain).norm() <= 1e-3 * plain.norm()


@every_pair
@every_iteration
def test_zero_rows_and_columns_stay_exactly_zero(
    method: PolarMethod, dtype: PolarDtype, form: PolarForm
) -> None:
    m = matrix(0, 2, 160, 130, dtype=torch.float32)
    m[:, 1] = 0
    m[:, :, 3] = 0
    m[1] = 0
    for x in (m, m.mT):
        d = polar(x, method, dtype, form=form)
        assert torch.equal(d[1], torch.zeros_like(d[1]))
        assert not d[x == 0].any()
        assert d[0].abs().max() > 1e-3


@every_form
@every_iteration
@few
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=seeds)
def test_a_batch_equals_a_loop(
    method: PolarMethod, form: PolarForm, shape: tuple[int, int], seed: int
) -> None:
    m = matrix(seed, 2, 3, *shape)

    def of(x: Tensor) -> Tensor:
        return polar(x, method, form=form)

    loop = torch.stack([torch.stack([of(x) for x in row]) for row in m])
    torch.testing.assert_close(of(m), loop, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(vmap(of)(m), loop, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("steps", [5, 8])
@pytest.mark.parametrize("shape", [(128, 384), (512, 128), (1024, 160)])
@every_spectrum
def test_in_bfloat16_the_gram_form_is_as_near_the_polynomial_as_the_plain_one(
    shape: tuple[int, int], spectrum: Callable[[int], Tensor], steps: int
) -> None:
    m = with_spectrum(*shape, spectrum(min(shape)))
    exact = polar(m, "jordan", steps=steps)
    gram, plain = (polar(m.float(), "jordan", steps=steps, form=form).double() for form in FORMS)
    assert torch.linalg.matrix_norm(gram, ord=2) <= 1.21
    assert (gram - exact).norm() <= 1.5 * (plain - exact).norm() + 0.02 * exact.norm()


def test_in_the_gram_form_rounding_does_not_turn_a_matrix_of_rank_one() -> None:
    m = matrix(0, 12, 128, 1) @ matrix(1, 12, 1, 512)
    d = polar(m.float(), dtype="mixed", form="gram").double()
    kept = (m * d).sum(dim=(-2, -1)) / torch.linalg.matrix_norm(m)
    assert kept.min() > 0.9995  # 0.9991 with the product of all a on the diagonal


@every_dtype
def test_the_gram_form_of_a_tall_matrix_is_that_of_the_wide_one(dtype: PolarDtype) -> None:
    m = matrix(7, 2, 512, 128, dtype=torch.float32)
    methods: list[PolarMethod] = ["jordan"] if dtype == "bfloat16" else ["jordan", "polar_express"]
    for method in methods:
        tall, wide = polar(m, method, dtype, form="gram"), polar(m.mT, method, dtype, form="gram")
        assert tall.is_contiguous()
        assert (tall - wide.mT).norm() < 0.01 * wide.norm()


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_auto_is_gram_for_long_matrices(dtype: PolarDtype) -> None:
    long, short = matrix(0, 5, 15, dtype=torch.float32), matrix(0, 5, 14, dtype=torch.float32)
    wide, narrow = (matrix(0, n, 3 * n, dtype=torch.float32) for n in (128, 96))
    for m in (long, long.mT, wide):
        gram, plain = (polar(m, dtype=dtype, form=form) for form in FORMS)
        assert not torch.equal(gram, plain)
        assert torch.equal(polar(m, dtype=dtype), gram)
    assert torch.equal(polar(short, dtype="float32"), polar(short, dtype="float32", form="plain"))
    # in bfloat16 it gains nothing below 128 and rounds more
    jordan = partial(polar, method="jordan", dtype="mixed")
    assert torch.equal(jordan(long), jordan(long, form="plain"))
    assert torch.equal(jordan(wide), jordan(wide, form="gram"))
    mixed = partial(polar, dtype="mixed")
    assert torch.equal(mixed(narrow), mixed(narrow, form="plain"))
    assert torch.equal(mixed(wide), mixed(wide, form="gram"))
    assert torch.equal(polar(long.double()), polar(long.double(), form="plain"))


def test_polar_express_in_gram_form_in_bfloat16_throughout_is_an_input_error() -> None:
    m = matrix(0, 128, 384, dtype=torch.float32)
    with pytest.raises(InputError, match="form = 'gram' with dtype = 'bfloat16'"):
        polar(m, dtype="bfloat16", form="gram")
    assert torch.equal(polar(m, dtype="bfloat16"), polar(m, dtype="bfloat16", form="plain"))
