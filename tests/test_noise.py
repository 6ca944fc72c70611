"""Gradient noise: moments, means over a batch, and what a momentum makes of them."""

import math
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from hptransfer.datasets.noise import Law, Noise, Stream, pareto, poisson, stable, uniforms
from hptransfer.errors import InputError


def draws(count: int, index: float, skewness: float) -> np.ndarray:
    words = uniforms(0, range(1), 2 * count).reshape(2, -1)
    return stable(words[0], words[1], index, skewness)


def nuclear(noise: Noise, batch: float, steps: int) -> float:
    """Mean nuclear norm of the mean over a batch."""
    sizes = [np.abs(noise.means(0, t, np.array([batch]))).sum() for t in range(steps)]
    return float(np.mean(sizes))


@pytest.mark.parametrize(("index", "skewness"), [(1.25, 1.0), (1.5, 1.0), (1.5, 0.0)])
def test_stable_variates_have_the_law_of_their_name(index: float, skewness: float) -> None:
    law = stats.levy_stable(index, skewness)
    assert stats.kstest(draws(2000, index, skewness), law.cdf).pvalue > 0.01


def test_at_index_2_a_stable_variate_is_normal_of_variance_2() -> None:
    assert stats.kstest(draws(20000, 2.0, 0.0), stats.norm(scale=math.sqrt(2)).cdf).pvalue > 0.01


def test_a_moment_of_symmetric_stable_noise_is_the_known_one() -> None:
    # Samorodnitsky & Taqqu 1994, property 1.2.17.
    a, q = 1.5, 0.5
    known = 2**q * math.gamma((q + 1) / 2) * math.gamma(1 - q / a)
    known /= math.sqrt(math.pi) * math.gamma(1 - q / 2)
    assert np.mean(np.abs(draws(200_000, a, 0.0)) ** q) == pytest.approx(known, rel=0.01)


def test_skewed_noise_points_the_wrong_way_in_most_draws_and_symmetric_noise_does_not() -> None:
    assert np.median(draws(20000, 1.5, 1.0)) < -0.5
    assert abs(np.median(draws(20000, 1.5, 0.0))) < 0.05


def test_gaussian_noise_has_variance_sigma_squared() -> None:
    noise = Noise("gauss", 2.0, 3.0, 1)
    drawn = [noise.means(0, t, np.array([1.0]))[0, 0] for t in range(5000)]
    assert np.var(drawn) == pytest.approx(9.0, rel=0.06)


def test_pareto_noise_has_mean_0_and_its_tail() -> None:
    drawn = pareto(np.random.default_rng(0), 3.0, 400_000)
    assert np.mean(drawn) == pytest.approx(0.0, abs=0.01)
    assert np.mean(drawn > 9) == pytest.approx((2 / 3 / 10) ** 3, rel=0.2)


@pytest.mark.parametrize("law", ["pareto", "t"])
def test_a_mean_of_sampled_noise_shrinks_with_the_batch(law: str) -> None:
    noise = Noise(law, 4.0, 1.0, 4)  # type: ignore[arg-type]
    ratio = nuclear(noise, 16.0, 300) / nuclear(noise, 1024.0, 300)
    assert ratio == pytest.approx(8.0, rel=0.25)


def test_a_sampled_law_refuses_a_batch_that_would_never_be_drawn() -> None:
    with pytest.raises(InputError, match="no law of its means"):
        Noise("pareto", 1.5, 1.0, 2).means(0, 0, np.array([1e9]))


def test_an_index_of_1_or_a_gauss_of_another_index_than_2_is_refused() -> None:
    for law, index in (("skew", 1.0), ("skew", 2.5), ("gauss", 1.5), ("t", 1.0)):
        with pytest.raises(InputError, match="index"):
            Noise(law, index, 1.0, 2)  # type: ignore[arg-type]


def test_spikes_have_mean_0_and_the_moment_of_their_formula() -> None:
    a, r, eps, sigma = 1.5, 4, 0.5, 16.0
    c = 8 * eps / sigma
    delta = c ** (a / (a - 1))
    noise = Noise("spike", a, sigma, r, eps)
    outcomes = {0: 1 - delta, 1: delta}  # spikes in a sample: none, or one of size c / delta
    mean = -c / r + outcomes[1] / r * c / delta
    assert mean == pytest.approx(0.0, abs=1e-15)
    known = (1 - delta) * c**a + delta * (c / delta + c - 2 * c / r) ** a
    assert known == pytest.approx(1.0, rel=0.35)  # near 1: weakly normalised for every eps
    drawn = np.stack([noise.means(0, t, np.array([4096.0]))[0] for t in range(4000)])
    error = drawn.std() / math.sqrt(drawn.size)
    assert abs(drawn.mean()) < 4 * error


@pytest.mark.parametrize("index", [1.5, 2.0])
def test_the_mean_over_a_batch_falls_and_grows_with_the_directions_as_the_theory_says(
    index: float,
) -> None:
    law = "gauss" if index == 2 else "skew"
    rate = 1 - 1 / index

    def size(directions: int, batch: float) -> float:
        return nuclear(Noise(law, index, 1.0, directions), batch, 400)

    in_batch = math.log2(size(8, 1024.0) / size(8, 4096.0)) / 2
    in_directions = math.log2(size(32, 4096.0) / size(8, 4096.0)) / 2
    assert in_batch == pytest.approx(rate, abs=0.02)
    assert in_directions == pytest.approx(rate, abs=0.12)


def test_noise_in_one_direction_leaves_the_others_alone_and_in_all_reaches_each() -> None:
    first = Noise("skew", 1.5, 1.0, 4, spread="first").means(0, 0, np.array([16.0]))
    every = Noise("gauss", 2.0, 1.0, 4, spread="all").means(0, 0, np.array([1.0]))
    assert np.flatnonzero(first).tolist() == [0]
    assert np.flatnonzero(every).tolist() == [0, 1, 2, 3]


def test_a_batch_below_the_number_of_directions_reaches_at_most_so_many() -> None:
    noise = Noise("sym", 1.5, 1.0, 8)
    assert max(np.count_nonzero(noise.means(0, t, np.array([2.0]))) for t in range(20)) <= 2


def test_the_noise_is_a_pure_function_of_seed_and_step() -> None:
    noise, batch = Noise("skew", 1.5, 1.0, 4), np.array([8.0, 64.0])
    assert np.array_equal(noise.means(3, 7, batch), noise.means(3, 7, batch))
    assert not np.array_equal(noise.means(3, 7, batch), noise.means(3, 8, batch))
    assert not np.array_equal(noise.means(3, 7, batch), noise.means(4, 7, batch))


def test_the_uniform_variates_of_a_step_are_those_of_its_own_counters() -> None:
    for purpose in (0, 2):
        stream = np.random.Philox(key=[5, purpose + 1], counter=[0, 9, 0, 0])
        known = (stream.random_raw(10) >> np.uint64(11)) + 0.5
        drawn = uniforms(5, range(7, 12), 10, purpose)
        assert np.array_equal(drawn[2], known * 2.0**-53)


@pytest.mark.parametrize(
    ("law", "index", "spread"),
    [("skew", 1.5, "one"), ("gauss", 2.0, "all"), ("sym", 1.25, "first"), ("spike", 1.5, "one")],
)
def test_means_drawn_ahead_are_those_of_a_single_call_whatever_the_other_lanes(
    law: Law, index: float, spread: Literal["one", "all", "first"]
) -> None:
    noise = Noise(law, index, 2.0, 4, 0.125, spread)
    stream = Stream(noise, range(3, 5), ahead=7)
    batch = np.array([1.0, 2.0, 64.0, 1.0, 8.0])
    seed = np.array([3, 3, 3, 4, 4])
    for t in (0, 1, 6, 7, 30, 29):
        drawn = stream.means(t, seed, batch)
        for lane, own in enumerate(drawn):
            assert np.array_equal(noise.means(seed[lane], t, batch[lane : lane + 1])[0], own)


def test_spikes_are_poisson_variates() -> None:
    uniform = np.random.default_rng(0).random(500)
    for rate in (1e-3, 0.3, 5.0, 512.0, 1e5):
        assert np.array_equal(poisson(rate).searchsorted(uniform), stats.poisson.ppf(uniform, rate))
    assert not poisson(0.0).searchsorted(uniform).any()
    with pytest.raises(InputError, match="too much to draw"):
        poisson(1e9)


@pytest.mark.parametrize(("index", "skewness"), [(1.25, 1.0), (1.5, 0.0), (2.0, 0.0)])
def test_a_momentum_of_stable_noise_is_stable_with_the_known_scale(
    index: float, skewness: float
) -> None:
    alpha, count, steps = 0.25, 4000, 60
    m = np.zeros(count)
    for t in range(steps):
        words = uniforms(1, range(t, t + 1), 2 * count).reshape(2, -1)
        m += alpha * (stable(words[0], words[1], index, skewness) - m)
    scale = alpha / (1 - (1 - alpha) ** index) ** (1 / index)
    spread = np.subtract(*np.quantile(m, (0.75, 0.25)))
    known = np.subtract(*np.quantile(draws(40_000, index, skewness), (0.75, 0.25)))
    assert spread / known == pytest.approx(scale, rel=0.08)
