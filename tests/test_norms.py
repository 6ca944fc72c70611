"""Norms, duals, steepest directions and the polar factor."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hptransfer.norms import (
    Euclidean,
    MeanNorm,
    Norm,
    PolarMethod,
    Spectral,
    bias_rms,
    colnorm,
    polar,
    rownorm,
    sign,
)

ENTRYWISE: dict[str, Norm] = {
    "sign": sign(),
    "sign of a one-hot input": sign(one_hot=True),
    "colnorm": colnorm(),
    "colnorm of a one-hot input": colnorm(one_hot=True),
    "rownorm": rownorm(),
    "rownorm of a one-hot input": rownorm(one_hot=True),
    "row p = 3": MeanNorm("row", 3.0),
    "column q = 3": MeanNorm("column", 1.5),
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
    "polar express of a dense input": Spectral(dense_input=True),
}

every_norm = pytest.mark.parametrize("norm", EXACT.values(), ids=EXACT.keys())
# Polar Express of a float64 matrix is computed in float64 throughout.
every_direction = pytest.mark.parametrize(
    "norm", [*EXACT.values(), *ITERATED.values()], ids=[*EXACT.keys(), *ITERATED.keys()]
)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**31)
few = settings(max_examples=12)


def matrix(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_spectrum(d_out: int, d_in: int, spectrum: Tensor, seed: int = 0) -> Tensor:
    """A float64 matrix of the given singular values in random directions."""
    k = min(d_out, d_in)
    u, _ = torch.linalg.qr(matrix(seed, d_out, k))
    v, _ = torch.linalg.qr(matrix(seed + 1, d_in, k))
    return (u * spectrum.double()) @ v.mT


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(-2, -1))


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
    # a small turn away from the steepest direction, back on the sphere, loses too
    near = -norm.lmo(g) + 0.01 * other
    assert inner(g, -norm.lmo(g)) >= inner(g, near / norm.norm(near)) - 1e-9


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


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)])
def test_every_singular_value_of_a_spectral_init_is_the_factor(shape: tuple[int, int]) -> None:
    w = Spectral().init(shape, torch.Generator().manual_seed(0))
    expected = torch.full((min(shape),), math.sqrt(shape[0] / shape[1]), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(w), expected)


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


@every_direction
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@few
@given(shape=shapes, seed=seeds)
def test_scaling_the_gradient_leaves_lmo_unchanged(
    norm: Norm, scale: float, shape: tuple[int, int], seed: int
) -> None:
    g = matrix(seed, *shape)
    torch.testing.assert_close(norm.lmo(scale * g), norm.lmo(g), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "norm", [*ENTRYWISE.values(), Euclidean(), *ITERATED.values()], ids=repr
)  # LAPACK scales by itself
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
    # an SVD returns rounding there; nothing trains with it but a reference run
    limit = 1e-7 if isinstance(norm, Spectral) and norm.method == "svd" else 0.0
    assert step[1].abs().max() <= limit
    assert step[:, 3].abs().max() <= limit
    assert step.isfinite().all()
    assert step[0, 0] != 0


@every_direction
@few
@given(shape=shapes, seed=seeds)
def test_a_batch_equals_a_loop(norm: Norm, shape: tuple[int, int], seed: int) -> None:
    g = matrix(seed, 2, 3, *shape)
    loop = torch.stack([torch.stack([norm.lmo(m) for m in row]) for row in g])
    torch.testing.assert_close(norm.lmo(g), loop, rtol=1e-9, atol=1e-10)
    assert norm.norm(g).shape == norm.dual(g).shape == (2, 3)
    torch.testing.assert_close(norm.norm(g)[1, 2], norm.norm(g[1, 2]))
    torch.testing.assert_close(norm.dual(g)[1, 2], norm.dual(g[1, 2]))


@pytest.mark.parametrize("name", ["spectral", "euclidean"])
@few
@given(shape=shapes, seed=seeds)
def test_rotating_the_gradient_rotates_lmo(name: str, shape: tuple[int, int], seed: int) -> None:
    norm, g = EXACT[name], matrix(seed, *shape)
    q, _ = torch.linalg.qr(matrix(seed + 1, shape[0], shape[0]))
    p, _ = torch.linalg.qr(matrix(seed + 2, shape[1], shape[1]))
    torch.testing.assert_close(norm.lmo(q @ g @ p), q @ norm.lmo(g) @ p, rtol=1e-6, atol=1e-6)


@every_direction
def test_float32_agrees_with_float64(norm: Norm) -> None:
    g = matrix(4, 12, 8)
    single = norm.lmo(g.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), norm.lmo(g), rtol=0, atol=1e-5)


def test_steps_in_bfloat16_turn_a_direction_by_less_than_two_percent() -> None:
    g = matrix(4, 192, 160, dtype=torch.float32)
    exact, mixed = polar(g, "polar_express", "float32"), polar(g, "polar_express", "mixed")
    assert 0 < (mixed - exact).norm() / exact.norm() < 0.02


@every_direction
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_matrix_that_is_not_finite_does_not_touch_its_neighbours(norm: Norm, bad: float) -> None:
    g = matrix(5, 3, 8, 6, dtype=torch.float32)
    healthy = norm.lmo(g)
    g[1, 0, 0] = bad
    sick = norm.lmo(g)
    assert torch.equal(sick[0], healthy[0])
    assert torch.equal(sick[2], healthy[2])


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
# from 128 on the smaller side, `mixed` takes steps in bfloat16
SHAPES = [
    (1, 1),
    (1, 16),
    (16, 1),
    (8, 8),
    (128, 32),
    (256, 61),
    (128, 128),
    (160, 256),
    (512, 128),
]


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_express_is_accurate_at_every_shape_and_spectrum(
    shape: tuple[int, int], spectrum: Callable[[int], Tensor], dtype: str
) -> None:
    """METHODS section 4: ||D||_op within 1e-3 of 1 and <M, D> >= 0.999 ||M||_*."""
    m = with_spectrum(*shape, spectrum(min(shape))).float()
    d = polar(m, "polar_express", dtype)  # type: ignore[arg-type]
    assert torch.linalg.matrix_norm(d.double(), ord=2).item() == pytest.approx(1.0, abs=1e-3)
    nuclear = torch.linalg.matrix_norm(m.double(), ord="nuc")
    assert inner(m.double(), d.double()) >= 0.999 * nuclear


@pytest.mark.parametrize("width", [16, 64, 128, 384])
def test_polar_express_is_accurate_on_gaussian_matrices_at_every_width(width: int) -> None:
    m = matrix(width, width, width, dtype=torch.float32)
    d = polar(m).double()
    assert torch.linalg.matrix_norm(d, ord=2).item() == pytest.approx(1.0, abs=1e-3)
    nuclear = torch.linalg.matrix_norm(m.double(), ord="nuc")
    assert inner(m.double(), d) >= 0.999 * nuclear


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_polar_express_in_float64_agrees_with_the_svd(shape: tuple[int, int]) -> None:
    m = with_spectrum(*shape, torch.linspace(1, 0.2, min(shape)))
    torch.testing.assert_close(polar(m), polar(m, "svd"), rtol=0, atol=1e-9)


def test_the_published_five_steps_leave_singular_values_between_047_and_120() -> None:
    spectrum = torch.logspace(0, -3, 64)
    # polar() divides by the Frobenius norm, so the range is checked on what the steps receive
    m = with_spectrum(64, 64, spectrum / spectrum.norm())
    inputs = spectrum / spectrum.norm()
    values = torch.linalg.svdvals(polar(m, "jordan"))
    assert values.max() <= 1.21
    assert values[inputs >= 1e-3].min() >= 0.47
    exact = polar(m, "svd")
    assert (values.max() - torch.linalg.svdvals(exact).max()).abs() > 0.05  # not the accurate one


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7)])
def test_the_svd_reference_has_singular_values_one_and_commutes_with_the_gram_matrix(
    shape: tuple[int, int],
) -> None:
    m = matrix(9, *shape)
    d = polar(m, "svd")
    torch.testing.assert_close(torch.linalg.svdvals(d), torch.ones(min(shape)).double())
    stretched = d.mT @ m  # the symmetric positive factor of M = D (D^T M)
    torch.testing.assert_close(stretched, stretched.mT)
    assert torch.linalg.eigvalsh(stretched).min() > -1e-9


def test_the_svd_reference_drops_directions_of_rounding() -> None:
    m = with_spectrum(8, 6, torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0, 0.0]))
    values = torch.linalg.svdvals(polar(m, "svd"))
    torch.testing.assert_close(
        values, torch.tensor([1.0, 1, 0, 0, 0, 0]).double(), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("method", ["polar_express", "jordan", "svd"])
def test_polar_keeps_the_type_and_the_shape(method: PolarMethod) -> None:
    for dtype in (torch.float32, torch.float64):
        d = polar(matrix(1, 2, 5, 3, dtype=dtype), method)
        assert d.dtype == dtype
        assert d.shape == (2, 5, 3)
