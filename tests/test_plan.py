"""The planner on made-up frames."""

import pandas as pd
import pytest

from hptransfer.datasets import Unread
from hptransfer.errors import InputError
from hptransfer.search.plan import forecast, pack, plan
from hptransfer.spec import RunSpec, Unit, digest
from hptransfer.suite.file import parse_suite
from hptransfer.suite.resolved import Suite, resolve

BEST = {32: -5.0, 64: -5.25}  # octaves, by width


def a_suite(**changes: object) -> Suite:
    table: dict[str, object] = {
        "name": "made_up",
        "claim": "none",
        "model": "gpt",
        "data": "python_source",
        "base": {"width": 32},
        "proxy": 32,
        "targets": [64],
        "steps": 10,
        "batch": 2,
        "optimizers": {"adamw": {"lr": "2^-8..2^-3"}},
    }
    return resolve(parse_suite({**table, **changes}, {}), Unread("0" * 64))


def answered(specs: list[RunSpec], **changes: object) -> pd.DataFrame:
    """Rows as from the store, with a parabola about BEST as loss."""
    rows = [
        {
            "key": spec.key,
            "cell": spec.cell,
            "spec": spec.to_json(),
            "width": spec.width,
            "batch": spec.batch,
            "steps": spec.steps,
            "log2_lr": spec.log2_lr,
            "seed": spec.seed,
            "status": "done",
            "loss": 2 + 0.1 * (spec.log2_lr - BEST[spec.width]) ** 2,
            "loss_init": 5.0,
            **changes,
        }
        for spec in specs
    ]
    return pd.DataFrame(rows)


def waves(suite: Suite) -> list[list[RunSpec]]:
    """Every plan until nothing is missing."""
    done: list[RunSpec] = []
    found = []
    while todo := plan(suite, frame(done)):
        found.append(todo)
        done += todo
    return found


def frame(specs: list[RunSpec]) -> pd.DataFrame:
    return answered(specs) if specs else answered([a_suite().template("adamw")]).iloc[:0]


def test_an_empty_frame_asks_for_the_start_grid_at_the_proxy_alone() -> None:
    todo = plan(a_suite(), frame([]))
    assert [(s.width, s.seed, s.log2_lr) for s in todo] == [
        (32, 0, float(lr)) for lr in range(-8, -2)
    ]


def test_the_search_is_refined_then_carried_then_verified() -> None:
    grid, halves, further, carried, *rest = waves(a_suite())
    assert {s.log2_lr for s in halves} == {-5.5, -4.5}
    assert all(s.seed == 0 for s in grid + halves)
    assert {(s.width, s.log2_lr, s.seed) for s in further} == {
        (32, lr, seed) for lr in (-6, -5.5, -5, -4.5, -4) for seed in (1, 2)
    }
    assert [(s.width, s.log2_lr, s.seed) for s in carried] == [
        *((64, -5.0, seed) for seed in (0, 1, 2)),
        (64, -6.0, 0),
        (64, -4.0, 0),
    ]
    assert {(s.log2_lr, s.seed) for wave in [carried, *rest] for s in wave} >= {
        (lr, seed) for lr in (-6.5, -6, -5.5, -5, -4.5) for seed in (0, 1, 2)
    }, "five half octaves about the best one, on every seed"
    assert len(grid) == 6


def test_nothing_known_is_planned_again_and_the_order_of_answers_does_not_matter() -> None:
    suite = a_suite()
    done = [spec for wave in waves(suite) for spec in wave]
    assert len({s.key for s in done}) == len(done)
    assert plan(suite, answered(done[::-1])) == []


def test_without_verify_only_the_carried_lr_runs_at_the_target() -> None:
    suite = a_suite(verify=False)
    runs = [s for wave in waves(suite) for s in wave if s.width == 64]
    assert {(s.seed, s.log2_lr) for s in runs} == {(k, -5.0) for k in (0, 1, 2)}


def test_a_failed_run_is_planned_again() -> None:
    suite = a_suite()
    todo = plan(suite, frame([]))
    failed = answered(todo, status="failed", loss=float("nan"))
    assert plan(suite, failed) == todo


def test_where_all_runs_diverged_the_plan_ends_at_the_limit_and_carries_nothing() -> None:
    suite = a_suite()
    done: list[RunSpec] = []
    for _ in range(30):
        rows = answered(done, status="diverged", loss=float("inf")) if done else frame([])
        todo = plan(suite, rows)
        if not todo:
            break
        done += todo
    assert min(s.log2_lr for s in done) == -12, "four octaves below the start grid"
    assert {s.width for s in done} == {32}


def test_the_records_of_another_setting_are_no_answer() -> None:
    other = a_suite(steps=11)
    known = answered(plan(other, frame([])))
    assert len(plan(a_suite(), known)) == 6


def test_the_forecast_counts_what_a_whole_study_takes() -> None:
    suite = a_suite()
    exact = sum(len(wave) for wave in waves(suite))
    assert abs(len(forecast(suite, frame([]))) - exact) <= 4


def test_the_forecast_of_a_label_lies_about_its_own_grid_where_two_share_an_optimizer() -> None:
    low = {"use": "adamw", "lr": "2^-12..2^-9"}
    high = {"use": "adamw", "lr": "2^-5..2^-2", "hp": {"weight_decay": 0.2}}
    suite = a_suite(optimizers={"low": low, "high": high}, targets=[])
    expected = forecast(suite, frame([]))
    names = suite.names(expected)
    for label, ends in {"low": (-12.0, -9.0), "high": (-5.0, -2.0)}.items():
        rates = [spec.log2_lr for spec in expected if names[spec.key][0] == label]
        assert (min(rates), max(rates)) == ends


def test_the_carried_lr_is_an_eighth_octave_within_what_the_method_admits() -> None:
    suite = a_suite(optimizers={"scion": {"lr": "2^-6..2^-1"}})
    assert suite.clip_lr("scion", -2.06) == -2.0
    assert suite.clip_lr("scion", 0.4) == 0.0


def test_units_share_everything_but_scalars_and_hold_at_most_the_lanes() -> None:
    suite = a_suite(optimizers={"adamw": {"lr": "2^-8..2^-3"}, "scion": {"lr": "2^-8..2^-3"}})
    specs = plan(suite, frame([]))
    units = pack(specs, lambda _: 4)
    assert sorted(unit.lanes for unit in units) == [3, 3, 3, 3]
    assert all(len({s.identity(*s.lane_fields) for s in unit.runs}) == 1 for unit in units)
    assert [s.key for unit in units for s in unit.runs] == [s.key for s in specs]
    one = specs[0]
    lanes = [one, one.point(-3, 7, beta1=0.8)]
    assert pack(lanes, lambda _: 4) == [Unit(tuple(lanes))]
    wider = one.at("width", 64)
    assert pack([one, wider], lambda _: 4) == [Unit((one,)), Unit((wider,))]


@pytest.mark.parametrize(
    ("runs", "lanes", "workers", "sizes"),
    [
        (14, 4, 2, [4, 3, 4, 3]),
        (9, 4, 2, [3, 2, 2, 2]),
        (9, 4, 1, [3, 3, 3]),
        (8, 8, 1, [8]),
        (5, 1, 2, [1] * 5),
        (3, 8, 4, [3]),
        (9, 5, 16, [5, 4]),
        (1, 4, 2, [1]),
    ],
)
def test_every_worker_gets_as_many_units_where_lanes_allow(
    runs: int, lanes: int, workers: int, sizes: list[int]
) -> None:
    one = plan(a_suite(), frame([]))[0]
    specs = [one.point(-8, seed) for seed in range(runs)]
    units = pack(specs, lambda _: lanes, workers)
    assert [s.key for unit in units for s in unit.runs] == [s.key for s in specs]
    assert sorted(unit.lanes for unit in units) == sorted(sizes)


def test_a_proxy_that_is_a_target_is_refused() -> None:
    with pytest.raises(InputError, match="targets: 64 is the proxy itself"):
        a_suite().narrowed(proxy=64, targets=[64])


def test_a_unit_keeps_the_key_that_names_its_snapshot_and_halves_in_order() -> None:
    one = a_suite().template("adamw")
    runs = tuple(one.point(-8, seed) for seed in range(3))
    unit = Unit(runs)
    assert (unit.spec, unit.lanes, unit.keys) == (runs[0], 3, tuple(run.key for run in runs))
    assert unit.key == digest("".join(run.key for run in runs))
    assert unit.halves() == (Unit(runs[:1]), Unit(runs[1:]))
    with pytest.raises(ValueError, match="at least one run"):
        Unit(())
