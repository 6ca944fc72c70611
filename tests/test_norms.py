"""Norms, their duals, steepest directions and inits."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from hptransfer.geometry.norms import (
    Euclidean,
    MeanNorm,
    Norm,
    Spectral,
    bias_rms,
    colnorm,
    moga_col,
    moga_row,
    polar,
    rownorm,
    sign,
)
from hptransfer.geometry.polar import PolarDtype, PolarMethod

INPUTS = {"": False, " of a one-hot input": True}
ENTRYWISE: dict[str, Norm] = {
    **{f"sign{of}": sign(one_hot) for of, one_hot in INPUTS.items()},
    **{f"colnorm{of}": colnorm(one_hot) for of, one_hot in INPUTS.items()},
    **{f"rownorm{of}": rownorm(one_hot) for of, one_hot in INPUTS.items()},
    **{
        f"row p = {p}{of}": moga_row(p, one_hot)
        for p, (of, one_hot) in product(("1", "1.5", "2", "3", "inf"), INPUTS.items())
    },
    **{
        f"column q = {q}{of}": moga_col(q, one_hot)
        for q, (of, one_hot) in product(("2", "3", "inf"), INPUTS.items())
    },
    # q = 1, a limit without a place in MOGA
    "column q = 1": MeanNorm("column", math.inf),
}
SPECTRAL: dict[str, Norm] = {
    "spectral": Spectral(method="svd"),
    "spectral of a one-hot input": Spectral(one_hot=True, method="svd"),
    "spectral of a dense input": Spectral(dense_input=True, method="svd"),
}
EXACT: dict[str, Norm] = {**ENTRYWISE, **SPECTRAL, "euclidean": Euclidean()}
ITERATED: dict[str, Norm] = {
    "polar express": Spectral(),
    "polar express in float32": Spectral(dtype="float32"),
    "polar express in ten steps": Spectral(steps=10),
    "polar express of a dense input": Spectral(dense_input=True),
}

every_norm = pytest.mark.parametrize("norm", EXACT.values(), ids=EXACT.keys())
# Polar Express of a float64 matrix computes all its steps in float64.
every_direction = pytest.mark.parametrize(
    "norm", [*EXACT.values(), *ITERATED.values()], ids=[*EXACT.keys(), *ITERATED.keys()]
)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**31)
few = settings(max_examples=12)


def matrix(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(-2, -1))


def rotation(seed: int, n: int) -> Tensor:
    return torch.linalg.qr(matrix(seed, n, n))[0]


def signed_permutation(seed: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randn(n, 1, generator=generator, dtype=torch.float64).sign()
    return signs * torch.eye(n, dtype=torch.float64)[torch.randperm(n, generator=generator)]


@every_norm
@few
@given(shape=shapes, seed=seeds)
def test_lmo_has_norm_one_and_attains_the_dual_norm(
    norm: Norm, shape: tuple[int, int], seed: int
) -> None:
    g = matrix(seed, *shape)
    step = norm.lmo(g)
    torch.testing.assert_close(norm.norm(step), torch.ones((), dtype=g.dtype))
    torch.testing.assert_close(inner(g, -step), norm.dual(g))


@every_norm
@few
@given(shape=shapes, seed=seeds)
def test_no_direction_of_norm_one_gains_more_than_lmo(
    norm: Norm, shape: tuple[int, int], seed: int
) -> None:
    g, other = matrix(seed, *shape), matrix(seed + 1, *shape)
    other = other / norm.norm(other)
    assert inner(g, -norm.lmo(g)) >= inner(g, other) - 1e-9
    # a small turn on the sphere away from the steepest direction loses too
    near = -norm.lmo(g) + 0.01 * other
    assert inner(g, -norm.lmo(g)) >= inner(g, near / norm.norm(near)) - 1e-9


@every_norm
@few
@given(shape=shapes, seed=seeds)
def test_norm_and_dual_are_norms(norm: Norm, shape: tuple[int, int], seed: int) -> None:
    a, b = matrix(seed, *shape), matrix(seed + 1, *shape)
    for size in (norm.norm, norm.dual):
        assert size(a + b) <= size(a) + size(b) + 1e-9
        torch.testing.assert_close(size(-3 * a), 3 * size(a))
        assert size(a) > 0


@every_norm
@few
@given(shape=shapes, seed=seeds)
def test_init_lies_on_the_unit_sphere(norm: Norm, shape: tuple[int, int], seed: int) -> None:
    w = norm.init(shape, torch.Generator().manual_seed(seed))
    assert w.shape == shape
    assert w.dtype == torch.float64
    torch.testing.assert_close(norm.norm(w), torch.ones((), dtype=torch.float64))
    again = norm.init(shape, torch.Generator().manual_seed(seed))
    assert torch.equal(w, again)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4), (2, 3, 6)])
def test_every_singular_value_of_a_spectral_init_is_the_factor(shape: tuple[int, ...]) -> None:
    w = Spectral().init(shape, torch.Generator().manual_seed(0))
    factor = math.sqrt(shape[-2] / shape[-1])
    values = torch.linalg.svdvals(w)
    torch.testing.assert_close(values, torch.full_like(values, factor))


def test_directions_are_those_of_the_table_in_methods() -> None:
    g = matrix(0, 3, 5)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    column, row = g / g.norm(dim=0), g / g.norm(dim=1, keepdim=True)
    table: list[tuple[Norm, Tensor]] = [
        (Spectral(method="svd"), math.sqrt(3 / 5) * u @ vh),
        (Spectral(one_hot=True, method="svd"), math.sqrt(3) * u @ vh),
        (Spectral(dense_input=True, method="svd"), u @ vh),
        (sign(), g.sign() / 5),
        (sign(one_hot=True), g.sign()),
        (colnorm(), math.sqrt(3) / 5 * column),
        (colnorm(one_hot=True), math.sqrt(3) * column),
        (rownorm(), row / math.sqrt(5)),
        (rownorm(one_hot=True), row),
        (Euclidean(), g / g.norm()),
    ]
    for norm, expected in table:
        torch.testing.assert_close(-norm.lmo(g), expected)
    bias = matrix(1, 4, 1)
    torch.testing.assert_close(-bias_rms().lmo(bias), bias / bias.square().mean().sqrt())


def test_spectral_hands_method_precision_and_steps_to_the_polar_factor() -> None:
    g = matrix(0, 6, 4, dtype=torch.float32)
    cases: list[tuple[PolarMethod, PolarDtype, int]] = [
        ("jordan", "float32", 3),
        ("polar_express", "bfloat16", 6),
    ]
    for method, dtype, steps in cases:
        norm = Spectral(method=method, dtype=dtype, steps=steps)
        d = polar(g, method, dtype, steps)
        assert torch.equal(norm.lmo(g), -norm.factor(g.shape) * d)
        assert not torch.equal(norm.lmo(g), Spectral().lmo(g))


# Scale, zeros, batches, rotations


@every_direction
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@few
@given(shape=shapes, seed=seeds)
def test_scaling_the_gradient_leaves_lmo_unchanged(
    norm: Norm, scale: float, shape: tuple[int, int], seed: int
) -> None:
    g = matrix(seed, *shape)
    torch.testing.assert_close(norm.lmo(scale * g), norm.lmo(g), rtol=1e-9, atol=1e-9)


@every_direction
@pytest.mark.parametrize("exponent", [-100, -20, 20, 100])
def test_a_power_of_two_leaves_lmo_unchanged_bit_for_bit_in_float32(
    norm: Norm, exponent: int
) -> None:
    g = matrix(3, 6, 4, dtype=torch.float32)
    assert torch.equal(norm.lmo(g * 2.0**exponent), norm.lmo(g))


@every_direction
def test_a_zero_matrix_gives_exactly_zero(norm: Norm) -> None:
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(
            norm.lmo(torch.zeros(2, 5, 3, dtype=dtype)), torch.zeros(2, 5, 3).to(dtype)
        )


@every_direction
def test_zero_rows_and_columns_stay_exactly_zero(norm: Norm) -> None:
    g = matrix(0, 6, 5, dtype=torch.float32)
    g[1] = 0
    g[:, 3] = 0
    step = norm.lmo(g)
    # an SVD returns rounding errors there; only reference runs train with it
    limit = 1e-7 if isinstance(norm, Spectral) and norm.method == "svd" else 0.0
    assert step[1].abs().max() <= limit
    assert step[:, 3].abs().max() <= limit
    assert step.isfinite().all()
    assert step.abs().max() > 1e-2


@every_direction
@few
@given(shape=shapes, seed=seeds)
def test_a_batch_equals_a_loop(norm: Norm, shape: tuple[int, int], seed: int) -> None:
    g = matrix(seed, 2, 3, *shape)
    loop = torch.stack([torch.stack([norm.lmo(m) for m in row]) for row in g])
    torch.testing.assert_close(norm.lmo(g), loop, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(vmap(vmap(norm.lmo))(g), loop, rtol=1e-9, atol=1e-10)
    assert norm.norm(g).shape == norm.dual(g).shape == (2, 3)
    torch.testing.assert_close(norm.norm(g)[1, 2], norm.norm(g[1, 2]))
    torch.testing.assert_close(norm.dual(g)[1, 2], norm.dual(g[1, 2]))


@every_norm
@few
@given(shape=shapes, seed=seeds)
def test_permuting_and_flipping_rows_and_columns_permutes_and_flips_lmo(
    norm: Norm, shape: tuple[int, int], seed: int
) -> None:
    g = matrix(seed, *shape)
    q, p = signed_permutation(seed + 1, shape[0]), signed_permutation(seed + 2, shape[1])
    torch.testing.assert_close(norm.lmo(q @ g @ p), q @ norm.lmo(g) @ p, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(norm.norm(q @ g @ p), norm.norm(g))


@pytest.mark.parametrize(
    ("norm", "turns"),
    [
        (Spectral(method="svd"), "both"),
        (Euclidean(), "both"),
        (colnorm(), "rows"),
        (rownorm(), "columns"),
    ],
)
@few
@given(shape=shapes, seed=seeds)
def test_rotating_the_gradient_rotates_lmo(
    norm: Norm, turns: str, shape: tuple[int, int], seed: int
) -> None:
    """ColNorm depends on the basis of its input, RowNorm on that of its output, others on none."""
    g = matrix(seed, *shape)
    q = torch.eye(shape[0]).double() if turns == "columns" else rotation(seed + 1, shape[0])
    p = torch.eye(shape[1]).double() if turns == "rows" else rotation(seed + 2, shape[1])
    torch.testing.assert_close(norm.lmo(q @ g @ p), q @ norm.lmo(g) @ p, rtol=1e-6, atol=1e-6)


@every_direction
def test_float32_agrees_with_float64(norm: Norm) -> None:
    g = matrix(4, 12, 8)
    single = norm.lmo(g.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), norm.lmo(g), rtol=0, atol=1e-5)


@every_direction
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_matrix_that_is_not_finite_does_not_touch_its_neighbours(norm: Norm, bad: float) -> None:
    g = matrix(5, 3, 8, 6, dtype=torch.float32)
    healthy = norm.lmo(g)
    g[1, 0, 0] = bad
    sick = norm.lmo(g)
    assert torch.equal(sick[0], healthy[0])
    assert torch.equal(sick[2], healthy[2])


# Convolutions

kernels = st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 4, 9]))


@few
@given(kernel=kernels, dense=st.booleans(), seed=seeds)
def test_a_flattened_convolution_moves_by_its_factor(
    kernel: tuple[int, int, int], dense: bool, seed: int
) -> None:
    c_out, c_in, taps = kernel
    norm = Spectral(dense_input=dense, method="svd", taps=taps)
    g = matrix(seed, c_out, c_in * taps)
    factor = math.sqrt(c_out / c_in)
    factor = (max(1.0, factor) if dense else factor) / taps
    torch.testing.assert_close(-norm.lmo(g), factor * polar(g, "svd"))
    torch.testing.assert_close(norm.norm(norm.lmo(g)), torch.ones(()).double())
    torch.testing.assert_close(inner(g, -norm.lmo(g)), norm.dual(g))


@few
@given(kernel=kernels, seed=seeds)
def test_every_tap_of_a_convolution_starts_semi_orthogonal(
    kernel: tuple[int, int, int], seed: int
) -> None:
    c_out, c_in, taps = kernel
    norm = Spectral(taps=taps)
    w = norm.init((c_out, c_in * taps), torch.Generator().manual_seed(seed))
    # the order of `tensor.flatten(1)` for (C_out, C_in, k, k)
    values = torch.linalg.svdvals(w.unflatten(-1, (c_in, taps)).movedim(-1, 0))
    torch.testing.assert_close(values, torch.full_like(values, math.sqrt(c_out / c_in) / taps))
    size = norm.norm(w).item()
    assert 1 - 1e-9 <= size <= math.sqrt(taps) + 1e-9
    if c_in >= c_out:
        assert size == pytest.approx(math.sqrt(taps))
