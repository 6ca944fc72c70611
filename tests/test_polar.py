"""The polar factor: the accurate default, published polynomials, types, and the reference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from hptransfer.geometry.polar import PolarDtype, PolarForm, PolarMethod, polar
from matrices import (
    SPECTRA,
    every_accurate_pair,
    every_dtype,
    every_form,
    every_iteration,
    every_pair,
    every_spectrum,
    matrix,
    with_spectrum,
)

pytestmark = pytest.mark.usefixtures("fast_bfloat16")


def assert_accurate(m: Tensor, d: Tensor) -> None:
    """METHODS section 4: ||D||_op within 1e-3 of 1 and <M, D> >= 0.999 ||M||_*."""
    assert torch.linalg.matrix_norm(d.double(), ord=2).item() == pytest.approx(1.0, abs=1e-3)
    nuclear = torch.linalg.matrix_norm(m.double(), ord="nuc")
    assert (m.double() * d.double()).sum() >= 0.999 * nuclear


# here `mixed` takes bfloat16 steps from a smaller side of 64 on
SHAPES = [(1, 1), (1, 16), (16, 1), (8, 8), (128, 32), (256, 61)]
SHAPES += [(64, 64), (80, 192), (128, 128), (160, 256), (512, 128)]


@every_accurate_pair
@every_spectrum
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_express_is_accurate_at_every_shape_and_spectrum(
    shape: tuple[int, int],
    spectrum: Callable[[int], Tensor],
    dtype: PolarDtype,
    form: PolarForm,
) -> None:
    m = with_spectrum(*shape, spectrum(min(shape))).float()
    assert_accurate(m, polar(m, "polar_express", dtype, form=form))


@pytest.mark.parametrize("width", [16, 64, 128, 256, 512])
def test_the_default_is_accurate_on_gaussian_matrices_at_every_width(width: int) -> None:
    m = matrix(width, width, width, dtype=torch.float32)
    assert_accurate(m, polar(m))


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
@every_form
def test_polar_express_in_float64_agrees_with_the_svd(
    shape: tuple[int, int], form: PolarForm
) -> None:
    m = with_spectrum(*shape, torch.linspace(1, 0.2, min(shape)))
    torch.testing.assert_close(polar(m, form=form), polar(m, "svd"), rtol=0, atol=1e-9)


# Steps and polynomials


# as published, before the safety factor
PUBLISHED = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
]


def on_the_spectrum(s: Tensor, method: str, steps: int) -> Tensor:
    """The published iteration on the singular values themselves, in float64."""
    s = s / s.norm() / (1.01 if method == "polar_express" else 1.0)
    for t in range(steps):
        a, b, c = (3.4445, -4.7750, 2.0315) if method == "jordan" else PUBLISHED[min(t, 7)]
        # Polar Express: p(s / 1.01), except in the eighth polynomial
        x = s / 1.01 if method == "polar_express" and t < 7 else s
        s = a * x + b * x**3 + c * x**5
    return s


@every_form
@every_iteration
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 7, 8, 9, 11])
def test_k_steps_are_the_published_polynomials_of_the_singular_values(
    method: PolarMethod, steps: int, form: PolarForm
) -> None:
    spectrum = torch.logspace(0, -2, 6).double()
    for shape in ((6, 9), (9, 6)):
        d = polar(with_spectrum(*shape, spectrum), method, steps=steps, form=form)
        expected = with_spectrum(*shape, on_the_spectrum(spectrum, method, steps))
        torch.testing.assert_close(d, expected, rtol=0, atol=1e-9)


def test_no_number_of_steps_means_the_methods_own() -> None:
    m = matrix(0, 5, 7)
    assert torch.equal(polar(m, "jordan"), polar(m, "jordan", steps=5))
    assert torch.equal(polar(m), polar(m, steps=8))
    assert not torch.equal(polar(m), polar(m, steps=7))


@every_dtype
def test_more_steps_come_closer_to_the_polar_factor(dtype: PolarDtype) -> None:
    m = with_spectrum(160, 160, torch.logspace(0, -2, 160)).float()
    exact = polar(m, "svd")
    errors = [(polar(m, "polar_express", dtype, k) - exact).norm().item() for k in (2, 4, 6)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_published_five_steps_leave_singular_values_between_047_and_120(
    dtype: PolarDtype,
) -> None:
    spectrum = torch.logspace(0, -3, 64)
    # polar() divides by the Frobenius norm, so this checks the range of the input of the steps
    inputs = spectrum / spectrum.norm()
    m = with_spectrum(64, 64, inputs).float()
    values = torch.linalg.svdvals(polar(m, "jordan", dtype))
    assert values.max() <= 1.21
    assert values[inputs >= 1e-3].min() >= 0.47
    assert (values.max() - 1).abs() > 0.05  # not the accurate one


# Types


def test_jordan_is_bfloat16_where_mixed_is_asked_for() -> None:
    m = matrix(4, 48, 64, dtype=torch.float32)
    published, exact = polar(m, "jordan", "mixed"), polar(m.double(), "jordan").float()
    assert torch.equal(published, published.bfloat16().float())
    assert torch.equal(published, polar(m, "jordan", "bfloat16"))
    single = polar(m, "jordan", "float32")
    torch.testing.assert_close(single, exact, rtol=0, atol=1e-5)
    assert 1e-3 < (published - exact).norm() / exact.norm() < 0.05


@every_iteration
@pytest.mark.parametrize(("name", "listed"), [("AVX2", {"avx512_bf16": True}), ("AVX512", {})])
def test_the_processor_chooses_no_rounding(
    method: PolarMethod, name: str, listed: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    m = matrix(4, 160, 192, dtype=torch.float32)
    assert torch.equal(polar(m, method), polar(m, method, "float32")), "the default"
    rounded = polar(m, method, "mixed")
    assert not torch.equal(rounded, polar(m, method))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: listed)
    assert torch.equal(polar(m, method, "mixed"), rounded)


def test_steps_in_bfloat16_turn_a_direction_by_less_than_two_percent() -> None:
    m = matrix(4, 192, 160, dtype=torch.float32)
    exact, mixed = polar(m, "polar_express", "float32"), polar(m, "polar_express", "mixed")
    rounded = polar(m, "polar_express", "bfloat16")
    assert 0 < (mixed - exact).norm() / exact.norm() < 0.02
    assert (mixed - exact).norm() < (rounded - exact).norm()


def test_mixed_takes_float32_below_64_rows() -> None:
    for n in (60, 64):
        m = matrix(n, n, 2 * n, dtype=torch.float32)
        assert torch.equal(polar(m, dtype="mixed"), polar(m, dtype="float32")) == (n < 64)


@pytest.mark.parametrize(("n", "name", "most"), [(512, "power law", 5e-4), (768, "rank one", 1e-3)])
def test_the_outer_mixed_steps_lose_little_to_rounding(n: int, name: str, most: float) -> None:
    spectrum = SPECTRA[name](256)
    m = with_spectrum(256, n, spectrum).float()
    exact, mixed = polar(m, dtype="float32", form="plain"), polar(m, dtype="mixed")
    lost = (m.double() * (exact - mixed).double()).sum() / spectrum.sum()
    assert lost < most  # 8e-4 of the power law with a first step as any other
    size = torch.linalg.matrix_norm(mixed.double(), ord=2).item()
    assert size == pytest.approx(1.0, abs=5e-4)  # 1.003 with a last step as any other
    for steps in (1, 2):
        exact = polar(m, dtype="float32", steps=steps)
        assert torch.equal(polar(m, dtype="mixed", steps=steps), exact)


@pytest.mark.parametrize("method", ["polar_express", "jordan", "svd"])
@every_pair
def test_polar_keeps_the_type_and_the_shape(
    method: PolarMethod, dtype: PolarDtype, form: PolarForm
) -> None:
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        d = polar(matrix(1, 2, 5, 3).to(kind), method, dtype, form=form)
        assert d.dtype == kind
        assert d.shape == (2, 5, 3)


def test_a_bfloat16_matrix_is_normalised_and_iterated_above_its_own_precision() -> None:
    m = matrix(2, 24, 16).bfloat16()
    assert torch.equal(polar(m), polar(m.float()).bfloat16())


@every_pair
@every_iteration
@pytest.mark.parametrize("exponent", [-100, -20, 20, 100])
def test_scaling_by_a_power_of_two_is_exact(
    exponent: int, method: PolarMethod, dtype: PolarDtype, form: PolarForm
) -> None:
    m = matrix(3, 6, 4, dtype=torch.float32)
    d = polar(m, method, dtype, form=form)
    assert torch.equal(polar(m * 2.0**exponent, method, dtype, form=form), d)


@every_iteration
def test_a_matrix_out_of_range_changes_nothing_for_its_neighbours(method: PolarMethod) -> None:
    m = matrix(3, 5, 6, 4, dtype=torch.float32)
    alone = polar(m, method)
    for factor in (1e-30, 1e25, 2.0**-100, 0.0, torch.nan, torch.inf):
        other = m.clone()
        other[2] *= factor
        d = polar(other, method)
        assert torch.equal(d[[0, 1, 3, 4]], alone[[0, 1, 3, 4]])
        assert d[2].isfinite().all() == (factor < torch.inf)
        assert torch.equal(d[2], alone[2]) or factor != 2.0**-100


def test_the_smallest_and_the_largest_numbers_have_a_polar_factor() -> None:
    for value in (2.0**-149, 2.0**-127, 2.0**127, torch.finfo(torch.float32).max):
        d = polar(value * torch.eye(4))
        torch.testing.assert_close(d, torch.eye(4), rtol=0, atol=1e-3)


def test_the_norm_of_a_large_matrix_is_not_lost_in_its_sum() -> None:
    for shape in ((2048, 1024), (64, 2**15)):
        m = torch.full(shape, 0.3)
        exact = polar(m.double(), "jordan", steps=1).float()
        torch.testing.assert_close(polar(m, "jordan", "float32", 1), exact, rtol=5e-5, atol=0)


@pytest.mark.gpu
@every_spectrum
@pytest.mark.parametrize("shape", [(256, 256), (2048, 512), (512, 4096), (1024, 1024)], ids=str)
def test_the_default_is_accurate_on_a_gpu(
    shape: tuple[int, int], spectrum: Callable[[int], Tensor]
) -> None:
    m = with_spectrum(*shape, spectrum(min(shape)))
    exact = polar(m.float().cuda(), dtype="float32").double().cpu()
    d = polar(m.float().cuda()).double().cpu()
    assert torch.linalg.matrix_norm(d, ord=2).item() == pytest.approx(1.0, abs=1e-3)
    assert (m * (exact - d)).sum() <= 1e-3 * torch.linalg.matrix_norm(m, ord="nuc")


@pytest.mark.parametrize("shape", [(520, 130), (130, 520)])
def test_mixed_steps_of_a_batch_equal_a_loop(shape: tuple[int, int]) -> None:
    m = matrix(5, 2, 3, *shape, dtype=torch.float32)
    loop = torch.stack([torch.stack([polar(x) for x in row]) for row in m])
    for batch in (polar(m), vmap(polar)(m), vmap(polar, 1, 1)(m)):
        assert (batch - loop).norm() < 1e-3 * loop.norm()


# The reference


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
