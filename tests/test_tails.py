"""The tail index of sizes with a known law, and the verdict on it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hptransfer.analysis import tails
from hptransfer.errors import InputError

BENCHMARK = Path(__file__).parent / "benchmarks" / "tails.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_tails", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look here
    spec.loader.exec_module(module)
    return module


SIMULATION = loaded()


def quantiles(n: int = 20_000) -> np.ndarray:
    """(i - 1/2)/n, from the largest survival probability to the smallest."""
    return (np.arange(n, 0, -1) - 0.5) / n


def pareto(alpha: float, n: int = 20_000) -> np.ndarray:
    return quantiles(n) ** (-1 / alpha)


@pytest.mark.parametrize("alpha", [0.8, 1.5, 3.0])
def test_hill_and_the_moment_estimator_find_the_index_of_a_pareto_law(alpha: float) -> None:
    sizes = pareto(alpha)
    k = tails.count(len(sizes))
    assert tails.hill(sizes, k) == pytest.approx(alpha, rel=0.01)
    assert tails.moment(sizes, k) == pytest.approx(1 / alpha, rel=0.03)


@pytest.mark.parametrize(
    ("name", "sizes", "gamma"),
    [("exponential", 50 - np.log(quantiles()), 0.0), ("uniform", 3 - quantiles(), -1.0)],
)
def test_the_moment_estimator_sees_that_a_law_has_no_power_tail(
    name: str, sizes: np.ndarray, gamma: float
) -> None:
    assert tails.moment(sizes, 200) == pytest.approx(gamma, abs=0.1), name


def test_the_order_and_the_unit_of_the_sizes_do_not_matter() -> None:
    sizes = pareto(1.5)
    mixed = np.random.default_rng(0).permutation(sizes) * 1e-20
    assert tails.hill(mixed, 50) == pytest.approx(tails.hill(sizes, 50))
    assert tails.moment(mixed, 50) == pytest.approx(tails.moment(sizes, 50))


def test_rows_are_estimated_one_by_one() -> None:
    both = np.stack([pareto(1.5), np.zeros(20_000), pareto(3.0)])
    for estimate in (tails.hill, tails.moment):
        found = estimate(both, 100)
        assert np.isnan(found[1])
        assert found[[0, 2]].tolist() == [estimate(both[i], 100) for i in (0, 2)]


def test_the_deviation_of_the_moment_estimator_has_the_published_form() -> None:
    assert tails.moment_sd([0.0, 0.5, -1.0], 25) * 5 == pytest.approx(
        [1.0, 1.25**0.5, 4.8**0.5]
    )  # fmt: skip
    assert tails.moment_sd(-1e-9, 1) == pytest.approx(1.0)


def test_the_deviation_of_the_moment_estimator_is_that_of_samples() -> None:
    rng = np.random.default_rng(1)
    for sizes, gamma in ((rng.random((300, 20_000)), -1.0), (rng.pareto(1, (300, 20_000)) + 1, 1)):
        found = tails.moment(sizes, 400)
        assert found.std() == pytest.approx(float(tails.moment_sd(gamma, 400)), rel=0.15)


@pytest.mark.parametrize(
    ("alpha", "gamma", "verdict"),
    [
        (1.6, 0.6, "heavy"),
        (1.7, 0.6, "undecided"),  # Hill's upper bound is above 2
        (1.0, 0.49, "undecided"),  # the moment estimator sees no tail of that index
        (2.1, 0.1, "light"),
        (1.9, 0.1, "undecided"),  # the two contradict each other
        (9.0, 0.3, "undecided"),
        (9.0, np.nan, "undecided"),
    ],
)
def test_a_verdict_needs_both_estimators(alpha: float, gamma: float, verdict: str) -> None:
    assert tails.judged(alpha, gamma, 100).item() == verdict


def test_pareto_is_heavy_and_gaussian_is_light_and_neither_is_judged_wrong() -> None:
    heavy, light = (SIMULATION.seen(law, 4096, 100) for law in ("Pareto 1.5", "Gaussian"))
    assert heavy.heavy >= 0.9
    assert light.light >= 0.95
    assert heavy.wrong == light.wrong == 0


@pytest.mark.parametrize("law", ["t(1.5)", "stable 1.5", "t(3)", "lognormal", "Laplace"])
def test_other_laws_are_seldom_judged_wrong(law: str) -> None:
    assert SIMULATION.seen(law, 4096, 100).wrong <= 0.02


def test_unequal_row_scales_fool_the_fit_to_pooled_entries_and_not_the_norms() -> None:
    fit, alpha, verdicts = SIMULATION.by_matrix("Gaussian, row scales i^-1.5", 3)
    assert fit < 1.6
    assert alpha > 10
    assert verdicts == "light 100%"


def test_the_fit_to_pooled_entries_is_right_about_a_stable_law() -> None:
    rng = np.random.default_rng(0)
    for index in (1.2, 1.8):
        entries = SIMULATION.stable(index)(rng, (100_000,))
        assert tails.pooled_stable_fit(entries) == pytest.approx(index, rel=0.05)


def test_the_fit_to_pooled_entries_leaves_out_zeros_and_needs_some_entries() -> None:
    entries = np.random.default_rng(0).standard_normal(10_000)
    with_zeros = np.stack([entries, np.zeros(10_000)], axis=1)
    assert tails.pooled_stable_fit(with_zeros) == tails.pooled_stable_fit(entries)
    assert np.isnan(tails.pooled_stable_fit(np.zeros(1000)))


def test_the_effective_moment_is_the_exponent_of_the_averages() -> None:
    b = 2.0 ** np.arange(7)
    for p in (1.25, 1.5, 2.0):
        assert tails.effective_moment(b, 3 * b ** -(1 - 1 / p)) == pytest.approx(p)
    assert np.isnan(tails.effective_moment([1], [1.0]))
    assert np.isnan(tails.effective_moment([1, 2], [1.0, 0.0]))


def test_sizes_of_zero_have_no_noise_and_no_index() -> None:
    found = tails.tail(np.zeros(1000))
    assert found.verdict == "no noise"
    assert np.isnan(found.alpha[tails.SHARE].value)
    assert np.isnan(found.gamma.value)


def test_equal_sizes_are_undecided() -> None:
    assert tails.tail(np.ones(1000)).verdict == "undecided"


def test_a_tail_has_the_index_at_three_shares_with_their_errors() -> None:
    found = tails.tail(pareto(1.5, 4096))
    assert found.pairs == 4096
    for share, k in ((0.02, 82), (0.05, 205), (0.10, 410)):
        estimate = found.alpha[share]
        assert estimate.value == pytest.approx(1.5, rel=0.02)
        assert estimate.standard_error == pytest.approx(estimate.value / k**0.5)
    assert found.verdict == "heavy"


def test_a_hill_plot_has_some_twenty_points_each_with_its_index_and_order_statistic() -> None:
    sizes = np.random.default_rng(0).permutation(pareto(1.5, 4096))
    found = tails.tail(sizes)
    falling = np.sort(sizes)[::-1]
    assert 18 <= len(found.curve) <= 22
    assert [at.k for at in found.curve] == tails.orders(4096)
    for at in found.curve:
        assert at.alpha == tails.hill(sizes, at.k)
        assert at.size == falling[at.k] < falling[at.k - 1]
    by_k = {at.k: at.alpha for at in found.curve}
    for share, estimate in found.alpha.items():
        assert by_k[tails.count(4096, share)] == estimate.value


def test_the_least_number_of_pairs_has_a_hill_plot_too() -> None:
    assert tails.orders(tails.LEAST_PAIRS)[0] == 2
    assert tails.orders(tails.LEAST_PAIRS)[-1] == 25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_sizes_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        tails.tail(np.array([bad, *pareto(1.5, 200)]))


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="got 99, needs at least 100"):
        tails.tail(pareto(1.5, 99))
