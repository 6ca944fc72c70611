"""Studies of the noise laboratory: short forms, least batches, gaps, and the three terms."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from hptransfer.errors import InputError
from hptransfer.laboratory import figures, terms
from hptransfer.laboratory.descent import measure
from hptransfer.laboratory.file import load_study
from hptransfer.laboratory.gap import gaps
from hptransfer.laboratory.page import page
from hptransfer.laboratory.plan import Point, Progress, forecast, progress
from hptransfer.laboratory.session import by_steps
from hptransfer.laboratory.study import Series
from hptransfer.laboratory.write import write_manifest, write_report
from hptransfer.records.cells import REACHED, CellStore
from studied import finish, tiny_study


@pytest.mark.parametrize("steps", [300, 1000])
def test_a_short_study_takes_no_more_steps_and_keeps_the_distances_of_its_goals(steps: int) -> None:
    study = load_study("heavy_tails")
    short = study.shortened(steps)
    for series in short.series():
        assert all(series.cap(2.0**goal) <= steps for goal in series.part.log2_eps)
    for part, whole in zip(short.parts, study.parts, strict=True):
        raised = np.subtract(part.log2_eps, whole.log2_eps)
        assert np.ptp(raised) == 0
        assert raised[0] >= 0


def test_a_short_study_has_a_folder_of_its_own_and_says_what_it_is(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    short = study.shortened(600)
    assert (short.name, short.source) == ("tiny-steps-600", "tiny")
    store = CellStore(tmp_path, short.name)
    for record in finish(short).values():
        store.append(record)
    write_manifest(short, tmp_path)
    path, _ = write_report(short.name, tmp_path, None)
    text = path.read_text()
    assert "short form of tiny" in text
    assert "hptransfer run tiny --steps 600" in text
    assert "short form" not in page(study, progress(study, {}), "hptransfer run tiny")


def test_a_study_that_is_short_already_stays_as_it_is(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    assert study.shortened(10**9).parts == study.parts


def test_goals_of_spikes_are_raised_no_further_than_their_law_holds() -> None:
    with pytest.raises(InputError, match=r"parts\.spike: spikes with a goal"):
        load_study("heavy_tails_long").shortened(300)


def test_a_cap_of_a_part_grows_with_its_own_power() -> None:
    series = next(s for s in load_study("heavy_tails").series() if s.part.name == "symmetric")
    assert series.cap(0.5) == 16 * series.cap(1.0)
    with pytest.raises(ValidationError, match="cap_power without cap"):
        type(series.part).model_validate({**series.part.model_dump(), "cap": 0.0})


def test_no_batch_leaves_a_direction_without_a_sample() -> None:
    def batches(series: Series) -> tuple[float, ...]:
        known = progress(series.study, {})
        cells = [each.missing for each in known if each.series == series]
        assert cells[0] is not None
        return cells[0].log2_batch

    study = load_study("heavy_tails")
    [few] = [s for s in study.series() if s.part.name == "symmetric" and s.index == 1.5]
    assert batches(few)[0] == math.log2(few.directions)
    low = study.methods["scion_few"].model_copy(update={"log2_batch": [0.0, 8.0]})
    again = study.model_copy(update={"methods": {**study.methods, "scion_few": low}})
    [few] = [s for s in again.series() if s.part.name == "symmetric" and s.index == 1.5]
    assert batches(few)[0] == math.log2(few.directions)


def test_every_committed_cell_has_a_sample_of_every_direction() -> None:
    for record in CellStore(Path("results/reference"), "heavy_tails").read().values():
        if record.cell.noise["spread"] == "one":
            assert 2 ** min(record.cell.log2_batch) >= record.cell.model["width"]


def _known(slopes: dict[str, float], noise: float, count: int = 5) -> list[Progress]:
    study = load_study("heavy_tails")
    part = study.parts[0].model_copy(update={"log2_eps": [-0.5 * i for i in range(count)]})
    shared = np.random.default_rng(0).standard_normal((count, 24))
    known = []
    for label, slope in slopes.items():
        series = Series(study, part, label, 1.5, 8)
        points = [
            Point(
                2.0**goal, (0.0, 0.0, 3.0), 2.0 ** (-slope * goal) * np.exp(noise * row), 1.0, 0.0,
                0.5, "measured",
            )
            for goal, row in zip(part.log2_eps, shared, strict=True)
        ]  # fmt: skip
        known.append(Progress(series, points))
    return known


def test_a_gap_of_one_half_is_resolved_and_no_gap_or_another_one_is_not() -> None:
    for slope, excludes, holds, verdict in (
        (4.5, True, True, "resolved"),
        (5.0, False, False, "unresolved"),
        (4.2, True, False, "unresolved"),
    ):
        [gap] = gaps(_known({"scion": 5.0, "transported": slope}, 0.3))
        assert gap.value == pytest.approx(5.0 - slope)
        # Noise that both methods share leaves their gap alone, as paired redraws show.
        assert gap.seeds == pytest.approx((gap.value, gap.value))
        rounded = dataclasses.replace(gap, grid=(gap.value - 1e-9, gap.value + 1e-9))
        assert (rounded.excludes_zero, rounded.holds_theory) == (excludes, holds)
        assert rounded.verdict == verdict


def test_a_gap_is_that_of_goals_measured_with_both_methods() -> None:
    one, other = _known({"scion": 5.0, "transported": 4.5}, 0.1)
    capped = dataclasses.replace(other.points[-1], outcome="capped")
    fewer = dataclasses.replace(other, points=[*other.points[:-1], capped])
    assert gaps([one, fewer])[0].n_points == 4
    [few] = gaps([one, dataclasses.replace(other, points=other.points[:2])])
    assert few.verdict == "incomplete"
    assert math.isnan(few.value)


def test_the_terms_of_the_theory_follow_their_laws() -> None:
    noise, stale, travel = terms.terms()
    for line, most in [*((n, 0.1) for n in noise), *((s, 1e-3) for s in stale), (travel[0], 0.05)]:
        assert np.abs(line.measured - line.law).max() < most


def test_ticks_of_the_calls_differ_from_each_other() -> None:
    for low, high in ((4.5, 6.2), (6.9, 9.4), (4.0, 15.0), (5.1, 5.6)):
        ticks = figures._decimal_ticks(low, high)
        assert len(ticks) == len(set(ticks)) >= 1
        assert all(low <= math.log10(float(tick)) <= high for tick in ticks)


def test_symmetric_noise_is_drawn_beside_skewed_noise_of_its_index() -> None:
    study = load_study("heavy_tails")
    known = progress(study, CellStore(Path("results/reference"), "heavy_tails").read())
    text = page(study, known, "hptransfer run heavy_tails")
    assert re.search(r"The worst case needs skew</h2>\s*<figure>", text)
    assert "symmetric noise" in text
    assert "skewed noise" in text
    assert "The three terms, each measured alone" in text


def test_a_plan_takes_no_less_than_its_longest_series() -> None:
    known = progress(load_study("heavy_tails"), {})
    assert forecast(known, 1000)[1] == max(forecast([each], 1)[1] for each in known)


def test_cells_of_few_steps_are_measured_first_whatever_their_part() -> None:
    study = load_study("heavy_tails")
    far = study.parts[0].model_copy(update={"log2_eps": [-1.5]})
    near = far.model_copy(update={"name": "near", "log2_eps": [0.0]})
    known = progress(study.model_copy(update={"parts": [far, near]}), {})
    caps = [cell.cap for cell in by_steps(known)]
    assert caps[0] < caps[-1]
    tuned = known[-1].missing
    assert tuned is not None
    fresh = known[0].series.cell(2.0**-1.5, (0.0,), (0.0,), (9.0,), fresh=True)
    both = [Progress(known[0].series, [], cell) for cell in (tuned, fresh)]
    assert fresh.cap > tuned.cap
    assert by_steps(both)[0] == fresh


def test_single_samples_of_one_direction_at_a_time_hardly_slow_a_sign_down() -> None:
    # Why batches have a sample of every direction: this says nothing about the theory.
    series = next(s for s in load_study("heavy_tails").series() if s.index == 1.5)
    record = measure(series.cell(1.0, (0.0,), (0.0,), (0.0,)))
    travel = series.study.gap  # steps at lr = 1 without noise
    assert (record.status == REACHED).all()
    assert record.steps.mean() < 1.5 * travel


def test_a_part_of_which_no_point_has_a_number_has_no_figure_and_stands_in_the_tables(
    tmp_path: Path,
) -> None:
    study = tiny_study(tmp_path)
    nan = math.nan
    lost = Point(1.0, (nan, nan, nan), np.array([math.inf]), nan, nan, 1.0, "capped")
    text = page(study, [Progress(next(study.series()), [lost])], "hptransfer run tiny")
    assert "Figure of exponents" not in text
    assert ">capped<" in text
