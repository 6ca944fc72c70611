"""Optuna proposes, the records archive: replays are exact, studies are copies that can be lost."""

import logging
import math
import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from hptransfer import bracket, tune
from hptransfer.registry import InputError
from hptransfer.spec import RunSpec, canonical
from hptransfer.store import Store
from hptransfer.suite import Suite
from hptransfer.suitefile import parse_suite
from hptransfer.tune import BracketSampler, make_sampler, propose, sync

PLUGIN = "def mine(param, *, beta=0.9, weight_decay=0.1):\n    '''An optimizer.'''\n"
Pair = tuple[bracket.Point, int]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_replays", {})


def make(folder: Path, name: str = "x", **changes: Any) -> Suite:
    plugin = folder / "mine.py"
    if not plugin.exists():  # another process may be reading it
        plugin.write_text(PLUGIN)
    spec = RunSpec(
        model={"name": "gpt"},
        data={"name": "python_source"},
        optimizer={"name": "mine"},
        hp={"beta": 0.9, "weight_decay": 0.1},
        width=32,
        base={"width": 32},
        log2_lr=0.0,
        steps=10,
        batch=1,
        schedule="linear",
        warmup=0.0,
        clip=0.0,
        precision="float32",
        eval_batches=1,
        seed=0,
    )
    table = {
        "name": name,
        "claim": "none",
        "model": "gpt",
        "data": "python_source",
        "proxy": 32,
        "steps": 10,
        "batch": 1,
        "trials": 12,
        "optimizers": {
            "adamw": {"use": f"{plugin}:mine", "lr": "2^-11..2^-4", **changes.pop("table", {})}
        },
        "templates": {"adamw": spec.to_json()},
    }
    return parse_suite({**table, **changes}, {})


def loss_at(point: bracket.Point) -> float:
    lr, hp = point
    return 2 + 0.1 * (lr + 7.3) ** 2 + hp.get("beta", 0.0) if lr <= -5 else math.inf


def rows(suite: Suite, pairs: list[Pair], n: int = 32) -> pd.DataFrame:
    """What metrics.select gives for finished runs at these points."""
    table = []
    for k, (point, seed) in enumerate(pairs):
        lr, hp = point
        spec = suite.template("adamw", n).point(lr, seed, **hp)
        loss = loss_at(point)
        table.append(
            {
                "key": spec.key,
                "log2_lr": lr,
                "seed": seed,
                "status": "done" if loss < math.inf else "diverged",
                "loss": loss,
                "loss_init": 5.5,
                "seconds": 2.0,
                "finished": 1.7e9 + k,
                "optimizer": "adamw",
                "n": n,
                "stage": "search",
                "hp_point": canonical(hp),
            }
        )
    names = ["key", "log2_lr", "seed", "status", "loss", "loss_init", "seconds", "finished"]
    return pd.DataFrame(table, columns=[*names, "optimizer", "n", "stage", "hp_point"])


def run(suite: Suite, pairs: list[Pair] | None = None, n: int = 32) -> list[Pair]:
    pairs = list(pairs or [])
    for _ in range(100):
        missing = propose(suite, "adamw", n, rows(suite, pairs, n))
        if not missing:
            return pairs
        assert not {repr(p) for p in missing} & {repr(p) for p in pairs}
        pairs += missing
    raise AssertionError("the search does not end")


def failure(call: Any, *arguments: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


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
    assert propose(suite, "adamw", 32, rows(suite, [])) == bracket.propose(
        suite, "adamw", 32, rows(suite, [])
    )
    assert len(run(suite)) == 10


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "NSGAIISampler"])
def test_a_resumed_search_proposes_the_same_points(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make(tmp_path, sampler=sampler, table={"search": {"beta": "0.5..0.95"}}, trials=14)
    pairs = run(suite)
    assert len(pairs) == 14
    assert all(0.5 <= hp["beta"] <= 0.95 and -11 <= lr <= -4 for (lr, hp), _ in pairs)
    assert all(lr * 8 == round(lr * 8) for (lr, _), _ in pairs)
    monkeypatch.setattr(tune, "_replays", {})
    half = pairs[:7]
    next_ = pairs[7:] if sampler == "random" else pairs[7:8]  # of batches of four
    assert propose(suite, "adamw", 32, rows(suite, half)) == next_
    monkeypatch.setattr(tune, "_replays", {})
    assert run(suite, half) == pairs
    assert run(suite, n=64) != pairs


def test_answers_in_any_order_and_other_stores_do_not_change_the_points(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="tpe")
    pairs = run(suite)
    assert propose(suite, "adamw", 32, rows(suite, pairs[::-1])) == []
    assert run(suite) == pairs  # from nothing: the replay of the full store is not believed


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


def test_around_a_carried_lr_the_samplers_search_one_octave_at_each_side(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="random")
    missing = propose(suite, "adamw", 64, rows(suite, []), -8.25)
    assert missing
    assert all(-9 <= lr <= -7 for (lr, _), _ in missing)


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


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def only_study(storage: Any) -> optuna.Study:
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


@pytest.fixture
def tuned(tmp_path: Path) -> tuple[Suite, pd.DataFrame, Store]:
    suite = make(tmp_path)
    return suite, rows(suite, run(suite)), Store(tmp_path / "results", "x")


Tuned = tuple[Suite, pd.DataFrame, Store]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_the_study_holds_every_search_run_once(tmp_path: Path, tuned: Tuned, kind: str) -> None:
    suite, table, store = tuned
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/studies.db"
    sync(suite, table[:3], url, store)
    for _ in range(2):
        sync(suite, table, url, store)
    storage = RDBStorage(url) if url else journal(store.study_url())
    study = only_study(storage)
    cell = suite.template("adamw").cell
    assert study.study_name == f"x/adamw/width=32/{cell[:8]}"
    assert study.user_attrs == {"hptransfer.suite": "x", "optimizer": "adamw", "width": 32}
    assert [trial.user_attrs["key"] for trial in study.trials] == table["key"].tolist()
    assert [trial.params["log2_lr"] for trial in study.trials] == table["log2_lr"].tolist()
    assert max(trial.value or 0.0 for trial in study.trials) == 5.5
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert study.trials[0].duration is not None
    assert study.trials[0].duration.total_seconds() == 2.0
    space = optuna.search_space.intersection_search_space(study.trials)
    assert space == {"log2_lr": optuna.distributions.FloatDistribution(-30, 6)}
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def test_the_lock_of_a_killed_run_is_taken_over_under_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite, store = make(tmp_path), Store(Path("results"), "x")
    table = rows(suite, run(suite))
    sync(suite, table[:1], None, store)
    path = store.study_url().resolve()
    path.with_name(path.name + ".lock").symlink_to(path)
    sync(suite, table, None, store)
    assert len(only_study(journal(path)).trials) == len(table)


def test_searched_values_and_axis_values_have_their_own_studies(tmp_path: Path) -> None:
    suite = make(tmp_path, sampler="random", table={"search": {"beta": "2^-3..2^-1"}}, trials=4)
    store = Store(tmp_path, "x")
    both = [rows(suite, run(suite, n=n), n) for n in (32, 64)]
    failed = both[0].assign(status="failed", key="f")
    fresh = both[0].assign(stage="fresh", key="g")
    sync(suite, pd.concat([*both, failed, fresh], ignore_index=True), None, store)
    names = optuna.get_all_study_names(journal(store.study_url()))
    assert [name.rsplit("/", 1)[0] for name in sorted(names)] == [
        "x/adamw/width=32",
        "x/adamw/width=64",
    ]
    study = optuna.load_study(study_name=names[0], storage=journal(store.study_url()))
    assert len(study.trials) == 4
    assert study.trials[0].distributions["beta"] == optuna.distributions.FloatDistribution(
        0.125, 0.5, log=True
    )


@pytest.mark.parametrize("damage", ["deleted", "garbage", "torn", "middle", "nonsense", "empty"])
def test_a_lost_or_damaged_journal_is_rebuilt_from_the_records(tuned: Tuned, damage: str) -> None:
    suite, table, store = tuned
    sync(suite, table, None, store)
    path = store.study_url()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    match damage:
        case "deleted":
            path.unlink()
        case "garbage":
            path.write_bytes(b"\x00\xff garbage\n" * 3)
        case "torn":
            path.write_bytes(whole[:-20])
        case "middle":
            path.write_bytes(b"".join([*lines[:2], lines[2][:20] + b"\n", *lines[3:]]))
        case "nonsense":
            path.write_bytes(b'{"op_code": 4}\n[]\n')
        case "empty":
            path.write_bytes(b"")
    sync(suite, table, None, store)
    study = only_study(journal(path))
    assert [trial.user_attrs["key"] for trial in study.trials] == table["key"].tolist()
    assert sorted(p.name for p in store.folder.iterdir()) == [
        ".studies.journal.lock",
        "studies.journal",
    ]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
@pytest.mark.parametrize("owner", ["other", "nobody"])
def test_a_storage_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, tuned: Tuned, kind: str, owner: str
) -> None:
    suite, table, store = tuned
    path = tmp_path / "studies.db" if kind == "sqlite" else store.study_url()
    url = f"sqlite:///{path}" if kind == "sqlite" else None
    store.folder.mkdir(parents=True, exist_ok=True)
    if owner == "other":
        other = make(tmp_path, "other")
        foreign = Store(tmp_path, "other")
        sync(other, rows(other, run(other)), url, foreign)
        if kind == "journal":
            foreign.study_url().rename(path)
    else:
        storage = RDBStorage(url) if url else journal(path)
        optuna.create_study(storage=storage, study_name="mine")
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()
    before = path.read_bytes()
    error = failure(sync, suite, table, url, store)
    assert str(error).startswith(f"{url or path}: holds 1 studies ")
    assert ("of suite other" if owner == "other" else "hptransfer did not write") in str(error)
    assert "needs an empty storage or one of suite x" in str(error)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left_alone(
    tmp_path: Path, tuned: Tuned
) -> None:
    suite, table, store = tuned
    path = tmp_path / "books.db"
    connection = sqlite3.connect(path)
    connection.execute("create table books (title text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    error = failure(sync, suite, table, f"sqlite:///{path}", store)
    assert str(error) == f"sqlite:///{path}: holds tables that are not Optuna's (books)"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////no/such/folder/s.db", "cannot be used (unable to open database file)"),
        ("studies.db", "cannot be used (Could not parse SQLAlchemy URL"),
        ("mysql+nodriver://me:secret@host/db", "cannot be used (Can't load plugin"),
        ("redis://host", "cannot be used (Can't load plugin"),
        ("postgresql+psycopg://me:p/s@x@host/db?password=secret", "needs the package 'psycopg'"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(
    tuned: Tuned, url: str, message: str
) -> None:
    suite, table, store = tuned
    error = failure(sync, suite, table, url, store)
    assert message in str(error)
    assert "secret" not in str(error)
    assert "p/s" not in str(error)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, tuned: Tuned) -> None:
    suite, table, store = tuned
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 100)
    error = failure(sync, suite, table, f"sqlite:///{path}", store)
    assert "file is not a database" in str(error)
    assert path.read_text() == "not a database\n" * 100


def _sync(folder: Path, url: str | None) -> None:
    suite = make(folder, sampler="random", trials=30)
    table = rows(suite, run(suite))
    for count in range(1, len(table) + 1):
        sync(suite, table[:count], url, Store(folder / "results", "x"))


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_sync_at_once_and_each_run_is_there_once(tmp_path: Path, kind: str) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else None
    folders = [tmp_path / "a", tmp_path / "b"]
    make(tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_sync, args=(tmp_path, url)) for _ in folders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    storage = RDBStorage(url) if url else journal(Store(tmp_path / "results", "x").study_url())
    keys = [trial.user_attrs["key"] for trial in only_study(storage).trials]
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    assert len(keys) == len(set(keys))
    suite = make(tmp_path, sampler="random", trials=30)
    assert set(keys) == set(rows(suite, run(suite))["key"])


def test_the_bracket_needs_no_optuna() -> None:
    code = "import sys, hptransfer.bracket, hptransfer.store; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'optuna'" not in out.stdout
    assert "'torch'" not in out.stdout
    assert "'pandas'" not in out.stdout
