"""Tuned groups where a finished study is read: compare, export and the Optuna study."""

import math
import tomllib
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hptransfer.analysis.compare import Measured, Side, compare
from hptransfer.analysis.frame import select
from hptransfer.export import settings, to_python, to_toml
from hptransfer.records.store import Store
from hptransfer.search.samplers import propose
from hptransfer.search.studies import sync
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train.engine import load_data
from tuned import Loss, bowl, suite_of, whole

AUX = 2.0**-5


def moved(octaves: float) -> Loss:
    """The bowl about aux 2^-5.2 and lr 2^-4.3, its lr `octaves` higher."""
    return bowl(-5.2, -4.3 + octaves)


def side(suite: Suite, frame: pd.DataFrame) -> Side:
    return Side(suite, select(suite, frame))


def values(measured: list[Measured], n: int, quantity: str) -> tuple[float, ...]:
    [found] = [each for each in measured if (each.n, each.quantity) == (n, quantity)]
    return found.values


@pytest.fixture(scope="module")
def suite() -> Suite:
    return suite_of()


@pytest.fixture(scope="module")
def frame(suite: Suite) -> pd.DataFrame:
    return whole(suite, moved(0))


def test_a_tuned_study_equals_itself(suite: Suite, frame: pd.DataFrame) -> None:
    found = compare(side(suite, frame), side(suite, frame))
    assert found.n_paired == len(frame)
    assert found.unpaired == []
    told = [(each.n, each.quantity, each.values) for each in found.measured]
    zeros = (0.0, 0.0, 0.0)
    assert told == [
        (32, "loss", zeros), (64, "loss", zeros), (64, "drift", zeros), (64, "regret", zeros),
    ]  # fmt: skip


def test_the_optimum_of_a_seed_is_that_of_its_curve_and_not_of_the_runs_that_tuned(
    suite: Suite, frame: pd.DataFrame
) -> None:
    """Seed 0 alone has them, and a parabola through its curve finds what the grid cannot."""
    loss = moved(0.2)
    other = whole(suite, lambda spec: (loss if spec.width == 32 else moved(0))(spec))
    found = compare(side(suite, frame), side(suite, other)).measured
    assert values(found, 64, "drift") == pytest.approx([-0.2] * 3, abs=0.01)


def test_a_loss_at_another_value_of_the_group_is_not_that_of_the_tuned_runs(
    suite: Suite, frame: pd.DataFrame
) -> None:
    aux = np.array([spec["hp"]["aux_lr"] for spec in frame["spec"]])
    worse = frame.assign(loss=frame["loss"] + 1.0 * (aux != AUX))
    found = compare(side(suite, frame), side(suite, worse)).measured
    assert values(found, 32, "loss") == (0, 0, 0)


def test_sides_that_carry_different_values_share_the_runs_of_one_seed_at_the_proxy(
    suite: Suite, frame: pd.DataFrame
) -> None:
    found = compare(side(suite, frame), side(suite, whole(suite, bowl(-6.2, -4.3))))
    assert len(values(found.measured, 32, "loss")) == 1
    assert [each.quantity for each in found.measured if each.n == 64] == ["drift", "regret"]
    assert {each.reason for each in found.unpaired} == {"lr or seed not tried there"}


def test_a_value_that_one_side_tunes_and_the_other_fixes_is_named(
    suite: Suite, frame: pd.DataFrame
) -> None:
    fixed = suite_of({"groups": {}})
    assert fixed.template("muon") == suite.template("muon")
    found = compare(side(suite, frame), side(fixed, whole(fixed, moved(0))))
    assert found.labels == {}
    assert {(each.side, each.reason) for each in found.unpaired} == {
        ("a", "differs there: hp.aux_lr searched, not fixed"),
        ("b", "differs there: hp.aux_lr fixed, not searched"),
    }


@pytest.mark.parametrize(
    ("ceiling", "aux", "best", "told"),
    [(-4, -5.2, AUX, ""), (6, 30.0, 64.0, ", at an edge (high)")],
)
def test_an_export_holds_the_tuned_value_and_says_where_it_comes_from(
    tiny_text: Path, ceiling: int, aux: float, best: float, told: str
) -> None:
    data = {"name": "file", "path": str(tiny_text)}
    table = {"groups": {"aux": {"lr": f"2^-9..2^{ceiling}"}}}
    suite = suite_of(table, data=data, eval_tokens=512)
    suite = resolve(suite, load_data(suite.data))
    runs = whole(suite, bowl(aux, -4.3))
    made = settings(suite, runs, 64, ["muon"])["muon"]
    assert made is not None
    assert made.spec.hp["aux_lr"] == best
    own = tomllib.loads(to_toml([made]))["muon"]
    assert own["hp"]["aux_lr"] == best
    assert own["parameters"]["embedding.weight"]["lr"] == pytest.approx(best)
    assert own["parameters"]["blocks.0.q.weight"]["lr"] == pytest.approx(own["lr"])
    tried = {spec["hp"]["aux_lr"] for spec in runs["spec"]}
    words = f"; aux_lr 2^{math.log2(best):g} of {len(tried)} values{told}"
    assert own["source"].endswith(words)
    assert f"HP = {made.spec.hp!r}" in to_python(made)


def test_the_study_holds_every_run_with_the_value_that_it_had(
    tmp_path: Path, suite: Suite, frame: pd.DataFrame
) -> None:
    store = Store(tmp_path, "made_up")
    rows = select(suite, frame)
    for part in (rows[:7], rows, rows):
        sync(suite, part, None, store)
    journal = JournalStorage(JournalFileBackend(str(store.study_url())))
    kept = {}
    for name in optuna.get_all_study_names(journal):
        study = optuna.load_study(study_name=name, storage=journal)
        kept |= {trial.user_attrs["key"]: trial.params for trial in study.trials}
        assert study.best_params["aux_lr"] == AUX
        span = study.trials[0].distributions["aux_lr"]
        assert span == optuna.distributions.FloatDistribution(2.0**-13, 1.0, log=True)
    specs = [RunSpec.from_json(spec) for spec in rows["spec"]]
    assert kept == {
        spec.key: {"log2_lr": spec.log2_lr, "aux_lr": spec.hp["aux_lr"]} for spec in specs
    }


def test_another_range_of_a_group_has_a_study_of_its_own(
    tmp_path: Path, suite: Suite, frame: pd.DataFrame
) -> None:
    store = Store(tmp_path, "made_up")
    narrow = suite_of({"groups": {"aux": {"lr": "2^-7..2^-4"}}})
    for each in (suite, narrow):
        sync(each, select(each, frame), None, store)
    journal = JournalStorage(JournalFileBackend(str(store.study_url())))
    names = optuna.get_all_study_names(journal)
    assert len(names) == 4
    assert len({name.rpartition("/")[0] for name in names}) == 2


@pytest.mark.usefixtures("no_replays")
def test_the_search_that_the_refusal_of_a_sampler_advises_tunes_the_value() -> None:
    table = {"groups": {}, "sampler": "tpe", "search": {"aux_lr": "2^-9..2^-4"}, "trials": 5}
    suite = suite_of(table)
    rows = select(suite, whole(suite, moved(0)).iloc[:0])
    points = [point for point, _ in propose(suite, "muon", 32, rows)]
    assert points
    assert all(-9 <= math.log2(hp["aux_lr"]) <= -4 for _, hp in points)
