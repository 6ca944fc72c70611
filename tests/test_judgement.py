"""The judgement of one carried lr, on made-up losses whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from hptransfer.analysis.judgement import REDRAWS, Case, Judgement, judge, undecided
from hptransfer.analysis.parabola import Near, Vertex, combination, redrawn, vertex
from hptransfer.suite.tables import Thresholds

X = np.arange(-9, -4.9, 0.5)
INIT = 5.5
NOWHERE = np.zeros(len(X), bool)


def losses(
    center: float, *, curvature: float = 0.06, slope: float = 0.0, seeds: int = 3, noise: float = 0
) -> np.ndarray:
    """(points, seeds) of a parabola; the slope differs among the seeds by `slope` nats/octave."""
    rng = np.random.default_rng(0)
    z = (X - center)[:, None]
    own = slope * np.linspace(-1, 1, seeds) if seeds > 1 else np.zeros(1)
    height = 0.05 * rng.normal(size=seeds)
    return 2.6 + curvature * z**2 + own * z + height + noise * rng.normal(size=(len(X), seeds))


def case(grid: np.ndarray, carried: float, roofed: np.ndarray = NOWHERE) -> Case:
    made = Case.of(X, grid, roofed, carried)
    assert made is not None
    return made


def judged(grid: np.ndarray, carried: float, roofed: np.ndarray = NOWHERE) -> Judgement:
    return judge(case(grid, carried, roofed), Thresholds())


@pytest.mark.parametrize(
    ("grid", "carried", "verdict"),
    [
        (losses(-7, slope=0.01), -6.0, "drifts"),
        (losses(-7, slope=0.01), -7.0, "transfers"),
        (losses(-7, curvature=0.004, slope=0.0002), -6.5, "insensitive"),
        (losses(-7, slope=0.04), -6.5, "inconclusive"),
        (losses(-7, slope=0.01), -5.5, "drifts"),  # beyond the fitted points: its own runs
    ],
)
def test_each_verdict_stands_where_the_truth_is_plain(
    grid: np.ndarray, carried: float, verdict: str
) -> None:
    assert judged(grid, carried).verdict == verdict


def test_a_flat_curve_is_not_insensitive_when_its_octaves_are_not_known_well() -> None:
    """The costs of an octave are held against tol at their upper bounds."""
    shaky = judged(losses(-7, curvature=0.004, slope=0.012), -7.0)
    assert shaky.octave_up > Thresholds().tol
    assert shaky.verdict == "transfers"


def test_on_parabolas_the_regret_is_exact_and_its_interval_is_the_t_interval_of_the_seeds() -> None:
    grid = losses(-7, slope=0.02, seeds=5)
    seen = judged(grid, -6.5)
    by_hand = grid[X == -6.5][0] - grid[X == -7][0]
    expected = ttest_1samp(by_hand, 0).confidence_interval(0.96)
    assert seen.regret.value == pytest.approx(by_hand.mean())
    assert (seen.regret.low, seen.regret.high) == pytest.approx((expected.low, expected.high))


def test_beyond_the_fitted_points_the_runs_at_the_carried_lr_count() -> None:
    grid = losses(-7, slope=0.01)
    grid[X == -5.5] += 1
    assert judged(grid, -5.5).regret.value == pytest.approx(1 + 0.06 * 1.5**2)


def test_a_lopsided_curve_widens_the_intervals_by_what_a_cubic_says() -> None:
    even, lopsided = (
        judged(losses(-7, slope=0.01) + cubic * (X + 7)[:, None] ** 3, -6.5) for cubic in (0, 0.02)
    )
    for name in ("regret", "lr_star"):
        seen, plain = getattr(lopsided, name), getattr(even, name)
        assert seen.high - seen.low > plain.high - plain.low + 0.002
    assert lopsided.lr_star.low < -7 < lopsided.lr_star.high


def test_a_carried_lr_that_diverged_drifts() -> None:
    grid = losses(-7, slope=0.01)
    roofed = X == -6.0  # within an octave of the optimum, where the parabola would be read
    grid[roofed] = INIT
    seen = judged(grid, -6.0, roofed)
    assert seen.verdict == "drifts"
    assert seen.regret.value == pytest.approx(INIT - grid[X == -7].mean(), abs=0.01)


def test_an_optimum_beside_a_cliff_is_its_grid_point_give_or_take_a_step() -> None:
    grid = losses(-7)
    roofed = X > -7
    grid[roofed] = INIT
    seen = judged(grid, -7.0, roofed)
    assert (seen.lr_star.low, seen.lr_star.value, seen.lr_star.high) == (-7.5, -7.0, -6.5)
    assert seen.verdict == "transfers"
    assert np.isnan(seen.octave_up)


def test_one_seed_gives_the_verdict_of_its_point_estimates_and_no_interval() -> None:
    grid = losses(-7, seeds=1)
    for carried, verdict in ((-6.0, "drifts"), (-7.0, "transfers")):
        seen = judged(grid, carried)
        assert seen.verdict == verdict
        assert (seen.regret.low, seen.regret.high) == (-np.inf, np.inf)
        assert (seen.lr_star.low, seen.lr_star.high) == (-np.inf, np.inf)
        assert undecided(case(grid, carried), Thresholds())


def test_seeds_that_ran_nowhere_near_the_optimum_do_not_count() -> None:
    grid = losses(-7, slope=0.01, seeds=5)
    grid[X != -6.0, 3:] = np.nan
    assert case(grid, -6.0).n_seeds == 3
    other = X != -6.0  # the carried lr was not tried
    assert Case.of(X[other], grid[other], NOWHERE[other], -6.0) is None


def test_more_seeds_are_wanted_while_a_case_is_inconclusive_alone() -> None:
    limits = Thresholds()
    assert undecided(case(losses(-7, slope=0.04), -6.5), limits)
    assert not undecided(case(losses(-7, slope=0.01), -6.0), limits)


def test_the_needed_seeds_decide_in_four_studies_of_five() -> None:
    limits = Thresholds()
    needed = judged(losses(-7, slope=0.06), -6.0).seeds_needed
    assert needed is not None
    seen = case(losses(-7, slope=0.06), -6.0).seen().carried[0]
    rng = np.random.default_rng(1)
    draws = rng.normal(seen.mean(), seen.std(ddof=1), size=(4000, needed))
    bounds = ttest_1samp(draws, 0, axis=1).confidence_interval(0.96)
    decided = (bounds.low > limits.tol) | (bounds.high < limits.limit)
    assert 0.77 < decided.mean() < 0.9


def test_a_hopeless_case_names_no_number_of_seeds() -> None:
    """The regret lies between tol and limit, and they are nearly one."""
    grid, limits = losses(-7, slope=0.04), Thresholds(tol=0.015, limit=0.0151)
    assert judge(case(grid, -6.5), limits).seeds_needed is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_without_a_spread_no_number_of_seeds_is_named(seeds: int) -> None:
    seen = judge(case(losses(-7, seeds=seeds), -6.5), Thresholds(tol=0.02, limit=0.01))
    assert seen.verdict == "inconclusive"
    assert seen.seeds_needed is None


def test_a_verdict_that_rounding_moves_lies_on_the_edge() -> None:
    seen = case(losses(-7, slope=0.001), -6.5)  # a regret of 0.015 nat, known well
    near = judge(seen, Thresholds(tol=0.0125, rounding=0.003))
    assert near.verdict == "drifts"
    assert near.on_edge
    assert not judge(seen, Thresholds(tol=0.0125, rounding=1e-5)).on_edge
    assert not judge(seen, Thresholds(tol=0.001, rounding=0.003)).on_edge


def test_a_redraw_goes_through_the_earlier_looks_too() -> None:
    """Three seeds were all but decided, so that on another machine the study may end there."""
    grid = losses(-7, slope=0.03, seeds=5, noise=0.001)
    grid[:, :3] = losses(-7, slope=0.0013)
    seen = case(grid, -6.5)
    limits = Thresholds(tol=0.0115)
    assert judge(seen, limits).verdict == "inconclusive"
    assert judge(seen, limits, looks=(3, 5)).kept < judge(seen, limits).kept - 0.2


def test_a_carried_lr_that_rounding_moves_shakes_the_verdict() -> None:
    seen, limits = case(losses(-7, slope=0.001), -6.5), Thresholds(rounding=1e-5)
    elsewhere = np.where(np.arange(REDRAWS) < 60, -7.0, -6.5)
    assert judge(seen, limits).kept == 1
    assert judge(seen, limits, carried=elsewhere).kept == pytest.approx(0.7)
    with pytest.raises(ValueError, match="needs 200"):
        judge(seen, limits, carried=elsewhere[:3])


def test_the_drift_has_the_interval_of_welch() -> None:
    rng = np.random.default_rng(0)
    a, b = -6 + 0.3 * rng.normal(size=3), -7 + 0.1 * rng.normal(size=8)
    curves = [Vertex(s.mean(), s.mean(), s) for s in (a, b)]
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.96)
    seen = combination(curves, [-1, 1])
    assert (seen.low, seen.high) == pytest.approx((expected.low, expected.high))


def test_a_bias_that_both_curves_share_is_not_in_their_drift() -> None:
    curve = Vertex(-6.0, -6.1, np.array([-6.1, -6.0, -5.9]))
    moved = replace(curve, value=-7.0, cubic=-7.1, per_seed=curve.per_seed - 1)
    other = replace(moved, cubic=-7.0)
    shared, apart = (combination([curve, each], [-1, 1]) for each in (moved, other))
    assert apart.high - shared.high == pytest.approx(0.1)


def near(grid: np.ndarray) -> Near:
    made = Near.of(X, grid, NOWHERE)
    assert made is not None
    return made


def test_the_pseudo_values_of_a_vertex_are_those_of_a_jackknife_by_hand() -> None:
    seen = near(losses(-7.1, slope=0.01, noise=0.001))
    without = [vertex(replace(seen, losses=np.delete(seen.losses, s, axis=1))) for s in range(3)]
    by_hand = 3 * vertex(seen).value - 2 * np.array([each.value for each in without])
    assert vertex(seen).per_seed == pytest.approx(by_hand)


def test_a_curve_that_opens_downwards_has_its_vertex_at_the_lower_end_of_the_fit() -> None:
    grid = np.where(X == -7, 2.5, 2.6 - 0.02 * (X + 7) - 0.05 * (X + 7) ** 2)[:, None]
    seen = near(np.where(np.abs(X + 7) <= 1, grid.T, 3.0).T)
    assert vertex(seen).value == -6


def test_a_carried_lr_between_the_half_octaves_is_fitted_but_is_never_the_middle() -> None:
    x = np.sort(np.append(X, -6.875))
    grid = 2.6 + 0.06 * (x + 6.875)[:, None] ** 2 + np.zeros((1, 3))
    grid[x == -6.875] -= 0.02
    seen = Near.of(x, grid, np.zeros(len(x), bool))
    assert seen is not None
    assert seen.x[seen.k] == -7
    assert -6.875 in seen.x


def test_redraws_spread_the_vertex_as_rounding_does() -> None:
    seen = redrawn(near(losses(-7.1)), sd=0.003, redraws=4000)
    z = np.arange(-1, 1.1, 0.5)
    sd = 0.003 / np.sqrt(3) / np.sqrt(z @ z) / (2 * 0.06)  # of the slope, over twice the curvature
    assert seen.mean() == pytest.approx(-7.1, abs=0.01)
    assert seen.std() == pytest.approx(sd, rel=0.1)
