"""Fits of surfaces to curves, made-up ones whose truth is known and the committed ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fitted import Fitted, fit, recorded, surfaces
from hptransfer.analysis.curve import Curve
from hptransfer.analysis.losses import means
from simulated import SEEDS, START, Losses, Surface, Told, X, search

ROOT = Path(__file__).parent.parent
SKEWED = Surface(0.030, height=0.03, slope=0.02, remainder=0.004, skew=-0.8)


def made_up(surface: Surface, seed: int, seeds: int = 5) -> Curve:
    """The curve of a search as a suite makes it."""
    losses = Losses.of(np.random.default_rng(seed), surface, -7.3)
    told = np.full((len(X), SEEDS), np.nan)
    search(losses, told, START, seeds)
    x, grid, roofed = Told(told).curve(seeds)
    return Curve(x, grid, means(grid, ~roofed), roofed)


def fits(surface: Surface, count: int, seeds: int = 5) -> list[Fitted]:
    found = [fit(made_up(surface, seed, seeds)) for seed in range(count)]
    return [one for one in found if one is not None]


def test_the_numbers_of_a_surface_are_found_again() -> None:
    found = fits(SKEWED, 60)
    assert len(found) == 60
    assert {one.seeds for one in found} == {5}
    assert np.median([one.curvature for one in found]) == pytest.approx(0.030, rel=0.1)
    assert np.median([one.skew for one in found]) == pytest.approx(-0.8, abs=0.1)
    assert np.mean([one.remainder for one in found]) == pytest.approx(0.004, rel=0.1)
    assert np.mean([one.slope for one in found]) == pytest.approx(0.02**2, rel=0.3)
    assert np.mean([one.height for one in found]) == pytest.approx(0.03**2, rel=0.3)


def test_the_noise_of_single_runs_is_not_taken_for_a_difference_between_seeds() -> None:
    found = fits(replace(SKEWED, height=0.0, slope=0.0, remainder=0.01), 60)
    for values in ([one.slope for one in found], [one.height for one in found]):
        assert np.min(values) < 0 < np.max(values)
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_one_seed_shows_the_shape_alone() -> None:
    [one] = fits(SKEWED, 1, seeds=1)
    assert one.seeds == 1
    assert np.isnan([one.height, one.slope]).all()
    assert one.octave == pytest.approx(0.030, rel=0.3)


def test_an_optimum_at_an_edge_or_beside_a_gap_is_not_fitted() -> None:
    whole = made_up(SKEWED, 0)
    k = int(whole.mean.argmin())

    def without(points: np.ndarray) -> Curve:
        kept = ~np.isin(np.arange(len(whole.x)), points)
        return Curve(whole.x[kept], whole.grid[kept], whole.mean[kept], whole.roofed[kept])

    assert fit(whole) is not None
    assert fit(without(np.arange(k))) is None
    assert fit(without(np.arange(k + 1, len(whole.x)))) is None
    assert (
        fit(without(np.flatnonzero((whole.x < whole.x[k]) & (whole.x > whole.x[k] - 1.5)))) is None
    )


def test_a_seed_with_two_runs_side_by_side_does_not_count() -> None:
    whole = made_up(SKEWED, 0, seeds=3)
    grid = whole.grid.copy()
    near = np.flatnonzero(~np.isnan(grid[:, 2]))
    grid[near[1:], 2] = np.nan
    found = fit(replace(whole, grid=grid))
    assert found is not None
    assert found.seeds == 2


def test_the_surfaces_of_the_committed_records_go_from_flat_to_steep_and_quiet_to_noisy() -> None:
    table = list(recorded(ROOT / "results" / "reference"))
    assert {each.schema for each in table} == {1, 2}
    assert {"quickstart", "mlp_width", "gpt_width", "vit_width", "coords"} <= {
        each.suite for each in table
    }
    made = surfaces([each.fitted for each in table], tol=0.01)
    assert next(iter(made)) == "below tol"
    assert max(float(made["below tol"].cost(z)) for z in (-1.0, 1.0)) < 0.01
    quiet, noisy = list(made.values())[1::2], list(made.values())[2::2]
    assert [each.curvature for each in noisy] == sorted(each.curvature for each in noisy)
    assert all(a.remainder < b.remainder for a, b in zip(quiet, noisy, strict=True))
