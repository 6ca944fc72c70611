"""A fixed number of tokens: steps by batch, the runs that belong to a label, decay rates."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hptransfer.datasets import Examples, Tokens, Unread
from hptransfer.errors import InputError
from hptransfer.spec import tokens
from hptransfer.suite.file import parse_suite
from hptransfer.suite.manifest import as_manifest, stored_suite
from hptransfer.suite.resolved import Suite, resolve

TEXT = Tokens("text", np.zeros(9_000, np.uint8), np.zeros(900, np.uint8), 4, "0" * 64)
IMAGES = Examples(
    "images",
    np.zeros((400, 1, 4, 4), np.float32),
    np.zeros(400, np.int64),
    np.zeros((100, 1, 4, 4), np.float32),
    np.zeros(100, np.int64),
    2,
    "0" * 64,
)


def made(source: Any = None, /, **changes: Any) -> Suite:
    """Batches 4, 8 and 16 of 64 tokens each, a step of 256 to 1024 tokens."""
    table: dict[str, Any] = {
        "name": "batches",
        "claim": "none",
        "model": {"name": "gpt", "context": 64},
        "data": "python_source",
        "base": {"width": 32},
        "axis": "batch_size",
        "width": 32,
        "proxy": 4,
        "targets": [8, 16],
        "batch": 4,
        "tokens": 102_400,
        "optimizers": {"adamw": {"lr": "2^-8..2^-3"}, "muon": {"lr": "2^-8..2^-3"}},
    }
    table = {key: value for key, value in {**table, **changes}.items() if value is not None}
    return resolve(parse_suite(table, {}), source or Unread("0" * 64))


def refusal(source: Any = None, /, **changes: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        made(source, **changes)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_batch_takes_the_steps_that_spend_the_same_tokens() -> None:
    suite = made()
    runs = [suite.template("adamw", batch) for batch in (4, 8, 16)]
    assert [run.steps for run in runs] == [400, 200, 100]
    assert {tokens(run.to_json()) for run in runs} == {102_400}
    assert suite.template("adamw").batch == 4
    assert suite.template("muon", 16, 4).steps == 25


def test_of_images_the_budget_counts_examples() -> None:
    images = {"model": "mlp", "data": "mnist5k", "tokens": 3_200}
    suite = made(IMAGES, **images)
    assert suite.template("adamw", 16).steps == 200


def test_a_run_belongs_to_a_label_only_with_the_steps_of_its_batch() -> None:
    suite = made(budgets=[4, 2])
    own = suite.template("adamw", 16).point(-5, 3)
    others = [
        replace(own, steps=400),  # those of batch 4
        replace(own, batch=12),  # no whole number of steps
        replace(own, batch=10**9),
        suite.template("adamw", 16, 4).point(-5, 3),
    ]
    assert list(suite.labels([own, *others])) == [["adamw"], [], [], [], []]
    assert list(suite.labels([own, *others], 4)) == [[], [], [], [], ["adamw"]]
    assert suite.names([own, *others]) == {
        own.key: ("adamw", 16),
        others[3].key: ("adamw", 16),
    }


def test_decay_rates_keep_their_memory_in_tokens() -> None:
    suite = made(momentum="per_token", batch=8)
    by_batch = {n: suite.template("muon", n).hp for n in (4, 8, 16)}
    assert [by_batch[n]["beta"] for n in (4, 8, 16)] == [0.974679434481, 0.95, 0.9025]
    assert by_batch[16]["aux_beta2"] == 0.9025
    assert by_batch[16]["aux_lr"] == by_batch[4]["aux_lr"], "a learning rate is none"
    adamw = suite.template("adamw", 16).hp
    assert (adamw["beta1"], adamw["beta2"]) == (0.81, 0.9025)
    assert adamw["weight_decay"] == 0.1
    runs = [suite.template("muon", n).point(-4, 0) for n in (4, 8, 16)]
    assert list(suite.labels(runs)) == [["muon"]] * 3
    plain = made(batch=8).template("muon", 16).point(-4, 0)
    assert list(suite.labels([plain])) == [[]], "another momentum is another run"


def test_a_change_of_the_proxy_leaves_the_runs_as_they_are() -> None:
    first = made(momentum="per_token", batch=8)
    other = made(momentum="per_token", batch=8, proxy=8, targets=[4, 16])
    assert first.template("muon", 16) == other.template("muon", 16)


def test_a_manifest_keeps_the_budget_and_the_decay_rates() -> None:
    suite = made(momentum="per_token", budgets=[2], lr_rule=0.62, baseline="adamw")
    manifest = json.loads(json.dumps(as_manifest(suite)))
    again = stored_suite(manifest)
    assert as_manifest(again) == manifest
    assert again.template("muon", 16, 2) == suite.template("muon", 16, 2)
    with pytest.raises(InputError, match="is less than one step of batch"):
        stored_suite({**manifest, "tokens": 10})
    manifest["templates"]["muon"]["hp"]["beta"] = -0.5
    with pytest.raises(InputError, match=r"templates\.muon: hp\.beta: not a decay rate"):
        stored_suite(manifest)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "neither": ({"tokens": None}, "steps: missing", "every suite needs it"),
    "both": ({"steps": 10}, "steps: tokens decides them", "give one"),
    "another axis": (
        {"axis": "width", "proxy": 32, "targets": [64]},
        "tokens: a budget belongs to the axis batch_size",
        "name steps",
    ),
    "less than a step": (
        {"targets": [8, 2048]},
        "tokens: 102,400 is less than one step of batch 2048 (131,072 tokens)",
        "tokens = 13107200 gives 100 steps",
    ),
    "no whole steps": (
        {"targets": [8, 24]},
        "tokens: 102,400 is 66.67 steps of batch 24 (1,536 tokens), needs a whole number",
        "for instance tokens = 102912",
    ),
    "no whole steps of a part": (
        {"budgets": [3]},
        "tokens: 102,400 / 3 is 133.33 steps of batch 4 (256 tokens), needs a whole number",
        "for instance tokens = 101376",
    ),
    "a budget of all": ({"budgets": [1]}, "budgets: got 1, needs divisors", "[4, 2]"),
    "a budget twice": ({"budgets": [2, 2]}, "budgets: got [2, 2], one of them twice", "once"),
    "budgets of steps": (
        {"tokens": None, "steps": 9, "budgets": [2]},
        "budgets: needs a token budget",
        "tokens =",
    ),
    "momentum of steps": (
        {"tokens": None, "steps": 9, "momentum": "per_token"},
        "momentum: needs a token budget",
        "tokens =",
    ),
    "no such baseline": ({"baseline": "sgd"}, "baseline: no optimizer is labelled 'sgd'", "adamw"),
    "a searched decay rate": (
        {
            "momentum": "per_token",
            "optimizers": {
                "a": {
                    "use": "adamw", "lr": "2^-8..2^-3", "sampler": "tpe",
                    "search": {"beta2": "0.9..0.99"},
                }
            },
        },
        'optimizers.a.search.beta2: momentum = "per_token" sets it at every batch',
        "per_step",
    ),
    "a memory beyond the limits": (
        {"momentum": "per_token", "batch": 4096},
        "optimizers.muon.hp.beta: 0.95 at batch 4096 is 0.999949910147 at batch 4, allowed: 0.0 to",
        "a smaller `batch`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_budget_that_cannot_be_spent_is_one_line_and_a_hint(case: str) -> None:
    changes, message, hint = WRONG[case]
    error = refusal(**changes)
    assert str(error).startswith(message)
    assert hint in error.hint


def test_the_hint_of_a_budget_without_whole_steps_holds() -> None:
    for tokens_, targets, budgets in ((102_912, [8, 24], []), (101_376, [8, 16], [3])):
        assert made(tokens=tokens_, targets=targets, budgets=budgets).tokens == tokens_


def test_a_batch_larger_than_the_data_is_refused_where_the_data_is_known() -> None:
    assert made(TEXT, tokens=1_024_000, targets=[128]).template("adamw", 128).steps == 125
    error = refusal(TEXT, tokens=1_024_000, targets=[160])
    assert str(error) == (
        "targets: batch 160 is larger than the training part, which has 140 examples"
    )
    error = refusal(IMAGES, model="mlp", data="mnist5k", tokens=None, steps=9, targets=[512])
    assert "batch 512 is larger" in str(error)


def test_an_optimizer_of_ones_own_says_which_fields_are_decay_rates(tmp_path: Any) -> None:
    code = "def mine(param, *, beta=0.9, count=3):\n    '''An optimizer.'''\n"
    path = tmp_path / "mine.py"
    own = {"mine": {"use": f"{path}:mine", "lr": "2^-8..2^-3"}}
    path.write_text(code)
    error = refusal(momentum="per_token", optimizers=own)
    assert str(error) == "momentum: \"per_token\" needs the decay rates of 'mine', which names none"
    path.write_text('DECAY_RATES = {"mine": ("beta",)}\n' + code)
    assert made(momentum="per_token", optimizers=own).template("mine", 8).hp["beta"] == 0.81
    path.write_text('DECAY_RATES = {"mine": ("count",)}\n' + code)
    error = refusal(momentum="per_token", optimizers=own)
    assert str(error).endswith("DECAY_RATES names 'count', which is no real-valued field")


def test_every_built_in_optimizer_says_which_fields_are_decay_rates() -> None:
    from hptransfer import registry

    for name in registry.BUILTINS["optimizer"]:
        part = registry.describe("optimizer", name)
        averages = {key for key in part.defaults if "beta" in key or key in ("gamma", "momentum")}
        assert set(part.decay_rates or ()) == averages, name
