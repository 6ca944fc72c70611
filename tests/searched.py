"""A made-up search and its records."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hptransfer.errors import InputError
from hptransfer.search import samplers
from hptransfer.search.samplers import Space, propose
from hptransfer.search.trials import Point
from hptransfer.spec import RunSpec, canonical
from hptransfer.suite.file import parse_suite
from hptransfer.suite.ranges import LR_OCTAVES
from hptransfer.suite.resolved import Suite

PLUGIN = "def mine(param, *, beta=0.9, weight_decay=0.1):\n    '''An optimizer.'''\n"
Pair = tuple[Point, int]


def make(folder: Path, name: str = "x", **changes: Any) -> Suite:
    plugin = folder / "mine.py"
    if not plugin.exists():  # another process may read it
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
        eval_examples=1,
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
        "seeds": 1,
        "optimizers": {
            "adamw": {"use": f"{plugin}:mine", "lr": "2^-11..2^-4", **changes.pop("table", {})}
        },
    }
    return Suite.of(parse_suite({**table, **changes}, {}), {"adamw": spec}, {"adamw": LR_OCTAVES})


def loss_at(point: Point) -> float:
    lr, hp = point
    return 2 + 0.1 * (lr + 7.3) ** 2 + hp.get("beta", 0.0) if lr <= -5 else math.inf


def rows(suite: Suite, pairs: list[Pair], n: int = 32) -> pd.DataFrame:
    """The result of frame.select for finished runs at these points."""
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
                "hp_point": canonical(hp),
                "tuning": False,
            }
        )
    names = ["key", "log2_lr", "seed", "status", "loss", "loss_init", "seconds", "finished"]
    return pd.DataFrame(table, columns=[*names, "optimizer", "n", "hp_point", "tuning"])


def run(suite: Suite, pairs: list[Pair] | None = None, n: int = 32) -> list[Pair]:
    pairs = list(pairs or [])
    for _ in range(100):
        missing = propose(suite, "adamw", n, rows(suite, pairs, n))
        if not missing:
            return pairs
        assert not {repr(p) for p in missing} & {repr(p) for p in pairs}
        pairs += missing
    raise AssertionError("the search does not end")


def failure(call: Callable[..., object], *arguments: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The samplers whose replays begin anew from now on."""
    names: list[str] = []
    real = samplers._Replay.__init__

    def begin(
        self: samplers._Replay, sampler: str, trials: int, ask: int, seed: int, space: Space
    ) -> None:
        names.append(sampler)
        real(self, sampler, trials, ask, seed, space)

    monkeypatch.setattr(samplers._Replay, "__init__", begin)
    return names
