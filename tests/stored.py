"""A made-up record and suite, and questions to a store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hptransfer.datasets import Unread
from hptransfer.errors import InputError
from hptransfer.records.damage import LeftOut
from hptransfer.records.store import Store
from hptransfer.spec import RunRecord, RunSpec
from hptransfer.suite.file import parse_suite
from hptransfer.suite.resolved import Suite, resolve


def record(seed: int = 0, **changes: object) -> RunRecord:
    spec = RunSpec(
        model={"name": "gpt", "context": 64},
        data={"name": "python_source", "tests": False},
        optimizer={"name": "adamw"},
        hp={"beta1": 0.9},
        width=32,
        base={"width": 32},
        log2_lr=-9.5,
        steps=100,
        batch=16,
        schedule="linear",
        warmup=0.1,
        clip=1.0,
        precision="float32",
        eval_examples=1024,
        seed=seed,
    )
    made = RunRecord(
        spec=spec,
        status="done",
        loss=2.5,
        loss_init=5.5,
        train_loss=2.4,
        train_mean=3.0,
        curve=[[0, 5.5], [50, 3.25], [100, 2.5]],
        seconds=1.5,
        flops=1e9,
        peak_memory=1000,
        env={"device": "cpu", "lanes": 4, "threads": 1},
        finished=1e9 + seed,
    )
    return replace(made, **changes)


def suite(name: str = "x") -> Suite:
    table = {
        "name": name,
        "claim": "none",
        "model": "gpt",
        "data": "python_source",
        "base": {"width": 32},
        "proxy": 32,
        "targets": [64],
        "steps": 100,
        "batch": 16,
        "optimizers": {"adamw": {"lr": "2^-11..2^-4", "warmup": 0.1}},
        "thresholds": {"tol": 0.02},
    }
    return resolve(parse_suite(table, {}), Unread("0" * 64))


def files(store: Store) -> list[Path]:
    return sorted(store.folder.glob("records-*.jsonl"))


def failure(call: Callable[..., object], *arguments: object) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def left_out(store: Store) -> tuple[list[int], str]:
    """Seeds of the readable records, and the one warning of the others."""
    with pytest.warns(LeftOut) as told:
        seeds = store.frame()["seed"].tolist()
    assert len(told) == 1
    note = str(told[0].message)
    assert "\n" not in note
    return seeds, note
