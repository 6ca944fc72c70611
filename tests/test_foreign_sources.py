"""Sources that are no text: an Optuna study, and Parquet."""

import io
from typing import Any, Literal

import optuna
import pandas as pd
import pytest

from hptransfer.errors import InputError
from hptransfer.foreign.names import Asked
from hptransfer.foreign.read import of_bytes, trials
from hptransfer.foreign.rows import reading
from swept import BOTH, csv, read, runs, same

ROWS = runs(BOTH, octaves=(-8, -7, -6), seeds=2)
PLAIN = read(csv(ROWS)).rows


def study(direction: Literal["minimize", "maximize"]) -> Any:
    storage = optuna.storages.InMemoryStorage()
    made = optuna.create_study(storage=storage, study_name="s", direction=direction)
    sign = 1 if direction == "minimize" else -1
    for row in ROWS:
        params = {"lr": row["lr"], "optimizer": row["optimizer"]}
        distributions = {
            "lr": optuna.distributions.FloatDistribution(1e-6, 1.0),
            "optimizer": optuna.distributions.CategoricalDistribution(["adamw", "muon"]),
        }
        attributes = {"width": row["width"], "seed": row["seed"]}
        made.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=distributions, user_attrs=attributes,
                value=sign * row["loss"],
            )
        )  # fmt: skip
    return storage


def test_the_trials_of_an_optuna_study_are_runs() -> None:
    table = trials(study("minimize"), "memory", None)
    assert same(reading(table, Asked(), "s").rows, PLAIN)
    up = reading(trials(study("maximize"), "memory", "s"), Asked(), "s")
    assert same(up.rows, PLAIN)
    assert any("more is better" in note for note in up.notes)
    with pytest.raises(InputError, match="memory: has no study 'x'"):
        trials(study("minimize"), "memory", "x")


def test_parquet_is_read_and_a_nested_column_is_named() -> None:
    pytest.importorskip("pyarrow")
    frame, flat, deep = pd.DataFrame(ROWS), io.BytesIO(), io.BytesIO()
    frame.to_parquet(flat)
    assert same(read(flat.getvalue()).rows, PLAIN)
    frame.assign(config=pd.Series([{"a": 1}] * len(frame))).to_parquet(deep)
    with pytest.raises(InputError, match="row 1, column 'config': holds a table or a list"):
        of_bytes(deep.getvalue(), "runs.parquet")


def test_parquet_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError

    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(InputError, match="needs the package pyarrow") as caught:
        of_bytes(b"PAR1", "runs.parquet")
    assert "hptransfer[parquet]" in caught.value.hint
