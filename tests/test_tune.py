"""Optuna proposes, the records remember: replays are exact."""

import logging
import math
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest

from hptransfer.records.store import Store
from hptransfer.search import proxy, samplers
from hptransfer.search.samplers import BracketSampler, make_sampler, propose
from hptransfer.search.studies import sync
from hptransfer.search.trials import Point
from searched import built, failure, loss_at, make, rows, run

pytestmark = pytest.mark.usefixtures("no_replays")


def test_the_bracket_sampler_searches_in_optuna_and_stops() -> None:
    study = optuna.create_study(sampler=BracketSampler((-9, -4), (-13, 0)))
    study.optimize(lambda trial: (trial.suggest_float("log2_lr", -30, 6) + 6.4) ** 2, n_trials=99)
    points = sorted(trial.params["log2_lr"] for trial in study.trials)
    assert points == [-9, -8, -7, -6.5, -6, -5.5, -5, -4]
    assert study.best_params["log2_lr"] == -6.5


def test_the_bracket_sampler_counts_failures_as_diverged_and_ends() -> None:
    study = optuna.create_study(sampler=BracketSampler((-9, -4), (-11, 0)))
    study.optimize(lambda trial: trial.suggest_float("log2_lr", -30, 6) * math.nan, n_trials=99)
    assert sorted(t.params["log2_lr"] for t in study.trials) == list(range(-11, -3))


def test_the_bracket_sampler_serves_workers_and_ask_and_tell() -> None:
    study = optuna.create_study(sampler=BracketSampler((-9, -4), (-13, 0)))
    trials = [study.ask() for _ in range(3)]
    points = [trial.suggest_float("log2_lr", -30, 6) for trial in trials]
    assert sorted(points) == [-9, -8, -7]
    for trial, lr in zip(trials, points, strict=True):
        study.tell(trial, (lr + 6.4) ** 2)
    study.optimize(
        lambda trial: (trial.suggest_float("log2_lr", -30, 6) + 6.4) ** 2, n_trials=99, n_jobs=2
    )
    assert study.best_params["log2_lr"] == -6.5


def test_the_bracket_sampler_refuses_another_parameter() -> None:
    study = optuna.create_study(sampler=BracketSampler((-9, -4), (-13, 0)))
    error = failure(lambda: study.ask().suggest_float("beta", 0, 1))
    assert str(error) == (
        "BracketSampler: got parameter 'beta', searches the float 'log2_lr' alone"
    )


def test_the_bracket_is_the_default_of_propose(tmp_path: Path) -> None:
    suite = make(tmp_path)
    assert propose(suite, "adamw", 32, rows(suite, [])) == proxy.propose(
        suite, "adamw", 32, rows(suite, [])
    )
    assert len(run(suite)) == 11


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "NSGAIISampler"])
def test_a_resumed_search_proposes_the_same_points(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make(tmp_path, sampler=sampler, table={"search": {"beta": "0.5..0.95"}}, trials=14)
    pairs = run(suite)
    # early versions of this sampler propose a point that they know
    assert len(pairs) in ((13, 14) if sampler == "gp" else (14,))
    assert all(0.5 <= hp["beta"] <= 0.95 and -11 <= lr <= -4 for (lr, hp), _ in pairs)
    assert all(lr * 8 == round(lr * 8) for (lr, _), _ in pairs)
    monkeypatch.setattr(samplers, "_replays", {})
    half = pairs[:7]
    next_ = pairs[7:] if sampler == "random" else pairs[7:8]  # in batches of four
    assert propose(suite, "adamw", 32, rows(suite, half)) == next_
    monkeypatch.setattr(samplers, "_replays", {})
    assert run(suite, half) == pairs
    assert run(suite, n=64) != pairs


def test_answers_in_any_order_and_other_stores_do_not_change_the_points(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="tpe")
    pairs = run(suite)
    assert propose(suite, "adamw", 32, rows(suite, pairs[::-1])) == []
    assert run(suite) == pairs  # from nothing, because the replay of the full store is void


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc"])
def test_a_forecast_between_leaves_the_replay_of_the_records_as_it_is(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make(tmp_path, sampler=sampler, table={"search": {"beta": "0.5..0.95"}}, trials=14)
    alone = run(suite)
    monkeypatch.setattr(samplers, "_replays", {})
    begun = built(monkeypatch)
    pairs: list[tuple[Point, int]] = []
    while missing := propose(suite, "adamw", 32, rows(suite, pairs)):
        guess = rows(suite, pairs + missing)
        guess.loc[len(pairs) :, ["loss", "status"]] = 3.0, "done"
        assert samplers.aside()(suite, "adamw", 32, guess) != missing
        pairs += missing
    assert pairs == alone
    assert begun == [sampler]


class Locked(optuna.samplers.RandomSampler):
    """A sampler that nobody can copy."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.lock = threading.Lock()


def test_a_forecast_with_a_sampler_that_cannot_be_copied_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "locked", sys.modules[__name__])
    suite = make(tmp_path, sampler="locked:Locked", trials=8)
    begun = built(monkeypatch)
    first = propose(suite, "adamw", 32, rows(suite, []))
    assert samplers.aside()(suite, "adamw", 32, rows(suite, [])) == first
    assert propose(suite, "adamw", 32, rows(suite, first)) != first
    assert len(begun) == 2


def test_a_search_ends_at_its_number_of_trials_known_or_new(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="random", table={"lr": "2^-6..2^-5"}, trials=40)
    assert 2 <= len(run(suite)) <= 9


def test_further_seeds_follow_near_the_best_of_any_sampler(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="tpe", seeds=3)
    pairs = run(suite)
    first = {lr: loss_at((lr, {})) for (lr, _), seed in pairs if seed == 0}
    best = min(first, key=first.__getitem__)
    for seed in (1, 2):
        assert {lr for (lr, _), own in pairs if own == seed} == {
            lr for lr in first if abs(lr - best) <= 1
        }


def test_a_search_in_which_all_diverge_ends(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="gp", table={"lr": "2^-4..2^0"}, seeds=2)
    assert {seed for _, seed in run(suite)} == {0}


@pytest.mark.parametrize("name", ["tpe", "TPESampler", "Gp", "optuna.samplers:RandomSampler"])
def test_a_sampler_is_found_by_short_name_and_by_path(name: str) -> None:
    assert isinstance(make_sampler(name, 1), optuna.samplers.BaseSampler)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tpee", "sampler: unknown sampler 'tpee'", "did you mean 'tpe'?"),
        ("zzzz", "sampler: unknown sampler 'zzzz'", "samplers: bracket, bruteforce, cmaes"),
        ("grid", "sampler: 'grid' needs arguments that a name", "subclass it"),
        ("json:dumps", "sampler: 'json:dumps' is not a subclass", "pkg.mod:Class"),
        ("no_such.module:S", "sampler: 'no_such.module:S' needs the package 'no_such'", "pip"),
    ],
)
def test_a_wrong_sampler_is_an_error_with_a_hint(name: str, message: str, hint: str) -> None:
    error = failure(make_sampler, name, 1)
    assert str(error).startswith(message)
    assert hint in error.hint


def test_a_sampler_whose_package_is_missing_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    suite = make(tmp_path, sampler="cmaes", table={"search": {"beta": "0.5..0.95"}})
    error = failure(run, suite)
    assert str(error) == "sampler: 'cmaes' needs the package 'cmaes', which is not installed here"
    assert error.hint == "pip install cmaes"


def test_a_sampler_that_cannot_search_the_space_is_an_error(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="bruteforce", table={"search": {"beta": "0.5..0.95"}})
    assert str(failure(run, suite)).startswith("sampler: 'bruteforce' cannot search this space (")
    assert run(make(tmp_path, sampler="bruteforce"))


def test_optuna_is_quiet_and_its_settings_are_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        suite = make(tmp_path, sampler="gp")
        pairs = run(suite)
        sync(suite, rows(suite, pairs), None, Store(tmp_path, "x"))
        assert optuna.logging.get_verbosity() == logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert capfd.readouterr() == ("", "")


def test_the_bracket_needs_no_optuna() -> None:
    modules = "hptransfer.search.bracket, hptransfer.records.store"
    code = f"import sys, {modules}; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'optuna'" not in out.stdout
    assert "'torch'" not in out.stdout
    assert "'pandas'" not in out.stdout
