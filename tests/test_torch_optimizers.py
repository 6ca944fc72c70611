"""Torch optimizers of somebody else in a run: right, or refused by name."""

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from commanded import hptransfer
from hptransfer import registry
from hptransfer.analysis.frame import select
from hptransfer.cli.progress import Live
from hptransfer.datasets import Unread
from hptransfer.records.store import Store
from hptransfer.report.settings_tables import fairness
from hptransfer.run.session import Finished
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import resolve
from hptransfer.testing import validate
from hptransfer.train import snapshots
from hptransfer.train.batches import Batches
from hptransfer.train.foreign import own_init
from hptransfer.train.prepare import prepare
from sessions import session, tiny
from strangers import OWN
from units import CPU, data_for, lanes, records, spec, stepped, weights


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    (tmp_path / "own.py").write_text(OWN)
    return lambda name: f"{tmp_path}/own.py:{name}"


def run_of(target: str, **changes: Any) -> RunSpec:
    return spec(target, "mlp", log2_lr=-4.0, **changes)


def clauses(target: str) -> dict[str, str]:
    """The clauses that fail, with their details."""
    return {c.name: c.detail for c in validate(target) if not c.passed}


def test_one_with_a_train_mode_is_in_it_from_the_first_step_and_after_a_snapshot(
    own: Callable[[str], str], tmp_path: Path
) -> None:
    run = run_of(own("Strict"))
    whole = stepped([run])
    halted, resumed = stepped([run], 3), lanes([run])
    snapshots.writer(halted, 3, 0.0)(tmp_path / "snapshot.pt")
    snapshots.restore(resumed, tmp_path / "snapshot.pt")
    for t in range(3, run.steps):
        resumed.gradients(t)
        resumed.update(t)
    plain = stepped([run_of("torch.optim:SGD")])
    for name, w in weights(plain).items():
        assert torch.equal(weights(whole)[name], w)
        assert torch.equal(weights(resumed)[name], w)
    whole.read_out()
    for name, w in weights(plain).items():
        assert torch.allclose(weights(whole)[name], w + 0.5)


def test_weights_that_an_optimizer_replaces_are_the_weights_of_the_run(
    own: Callable[[str], str],
) -> None:
    replaced, plain = (stepped([run_of(t)]) for t in (own("Replaces"), "torch.optim:SGD"))
    for name, w in weights(plain).items():
        assert torch.allclose(weights(replaced)[name], w, atol=1e-6)
    assert torch.allclose(replaced.evaluate(), plain.evaluate(), atol=1e-6)
    assert clauses(own("Replaces")) == {}


def test_what_an_optimizer_draws_depends_on_the_seed_alone(own: Callable[[str], str]) -> None:
    run = run_of(own("Noisy"))
    first = records([run])[0]
    torch.manual_seed(12345)
    assert records([run])[0].loss == first.loss
    assert records([run.point(run.log2_lr, 1)])[0].loss != first.loss
    resumes = "resumes to the same bytes"
    assert resumes not in clauses(own("Noisy"))


def test_a_run_that_diverges_under_one_that_takes_no_nan_has_diverged(
    own: Callable[[str], str],
) -> None:
    run = run_of(own("Decomposes"))
    assert records([run])[0].status == "done"
    wild = replace(run, log2_lr=100.0)
    assert records([wild])[0].status == "diverged"


def by_hand(run: RunSpec, make: Callable[[list[Tensor]], Any]) -> list[Tensor]:
    """The parameters after a plain loop whose optimizer takes a closure."""
    data = data_for("mlp")
    prepared = prepare(run, data)
    model = prepared.build()
    start = own_init(prepared, run.seed)
    for name, p in model.named_parameters():
        p.data.copy_(start[name])
    batches = Batches([run], data, CPU, torch.float32)
    optimizer = make(list(model.parameters()))
    for t in range(run.steps):
        x, y, _ = batches.train(t)

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y.flatten())
            loss.backward()
            if run.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), run.clip)
            return loss

        closure()
        optimizer.step(closure)
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("name", ["Twice", "LBFGS"])
def test_one_that_takes_a_closure_moves_as_in_a_plain_loop(
    name: str, clip: float, own: Callable[[str], str]
) -> None:
    target = "torch.optim:LBFGS" if name == "LBFGS" else own(name)
    few = {"max_iter": 3} if name == "LBFGS" else {}  # more of them magnify every rounding
    run = run_of(target, schedule="constant", steps=3, clip=clip, hp=few)
    kind = registry.load("optimizer", target)
    expected = by_hand(run, lambda params: kind(params, lr=run.lr, **few))
    for w, after in zip(weights(stepped([run])).values(), expected, strict=True):
        assert torch.allclose(w, after, atol=1e-5 if name == "Twice" else 1e-3)


def test_several_optimizers_share_the_parameters_and_keep_the_ratio_of_their_rates(
    own: Callable[[str], str],
) -> None:
    run = run_of(own("two"), warmup=0.5)
    built = stepped([run])
    plain = run_of("torch.optim:SGD", warmup=0.5)
    role = prepare(plain, data_for("mlp")).params[-1].role
    table = {**plain.optimizer, "by_role": {role: {"lr_factor": 0.5}}}
    grouped = stepped([replace(plain, optimizer=table)])
    for name, w in weights(grouped).items():
        assert torch.equal(weights(built)[name], w)
    whole = stepped([plain])
    assert not torch.equal(weights(whole)["head.weight"], weights(built)["head.weight"])


REFUSED = {
    "forgets": "head.weight is in none of its groups, and would not train",
    "nothing": "gave a NoneType",
    "closures": "one of several takes a closure",
    "asks_for_more": "it needs the module 'no_such_package', which is not installed here",
    "torch.optim:SparseAdam": "SparseAdam does not support dense gradients",
    "pytorch_optimizer:AdaHessian": "it takes second derivatives of the loss (create_graph)",
    "pytorch_optimizer:LOMO": "it steps inside a backward pass of its own (fused_backward)",
    "pytorch_optimizer:AliG": "it has no learning rate to transfer: its groups hold no lr",
    "pytorch_optimizer:AdaMuon": "building it failed",
    "pytorch_optimizer:WSAM": "missing 2 required positional arguments: 'params' and 'base_opt",
}


@pytest.mark.filterwarnings("ignore:SparseAdam")
@pytest.mark.parametrize("name", REFUSED)
def test_one_that_cannot_run_is_refused_by_name_in_validate_and_in_a_run_alike(
    name: str, own: Callable[[str], str], suite: Path, tmp_path: Path
) -> None:
    target = name if ":" in name else own(name)
    said = list(clauses(target).values())
    assert REFUSED[name] in said[0]
    assert f"optimizer '{target.rpartition(':')[2]}': " in said[0]
    text = suite.read_text().replace("steps = 3", "steps = 5")
    suite.write_text(text.replace("[optimizers.scion]", f'[optimizers.scion]\nuse = "{target}"'))
    done = hptransfer("plan", suite, "--optimizer", "scion", cwd=tmp_path)
    assert done.returncode == 2
    assert REFUSED[name] in done.stderr
    assert done.stderr.count("\n\nhint: ") == 1


def test_one_that_waits_before_it_moves_keeps_its_contract() -> None:
    assert clauses("pytorch_optimizer:ScheduleFreeRAdam") == {}


def test_a_class_that_cannot_be_built_fails_one_clause_and_not_all_that_follow() -> None:
    assert list(clauses("pytorch_optimizer:AdaMuon")) == ["is built over a model's parameters"]
    assert "by_role" in clauses("pytorch_optimizer:AdaMuon")["is built over a model's parameters"]


def test_one_that_ignores_the_learning_rate_fails_its_clause(own: Callable[[str], str]) -> None:
    detail = clauses(own("Deaf"))["moves further at a larger learning rate"]
    assert detail.startswith("the learning rate does not set the step")


def test_a_clause_that_takes_too_long_is_given_up(own: Callable[[str], str]) -> None:
    said: list[str] = []
    found = list(validate(own("Endless"), seconds=0.5, begins=said.append))
    assert [c.detail for c in found if not c.passed] == ["took longer than 0.5 s"] * 4
    assert said == [c.name for c in found]
    assert all(c.passed for c in validate("torch.optim:SGD", seconds=1000.0))


def test_a_snapshot_that_could_not_be_read_again_is_not_written(
    own: Callable[[str], str], tmp_path: Path
) -> None:
    running = stepped([run_of(own("Counts"))], 3)
    with pytest.raises(snapshots.UnusableError, match="could not be read again: the optimizer's"):
        snapshots.writer(running, 3, 0.0)(tmp_path / "snapshot.pt")
    failed = clauses(own("Counts"))
    assert list(failed) == ["resumes to the same bytes"]
    assert "the optimizer's state holds a hptransfer_plugin_" in next(iter(failed.values()))


def test_a_session_goes_on_without_snapshots_and_says_so_once_per_run(
    own: Callable[[str], str], tmp_path: Path
) -> None:
    table = {"counts": {"use": own("Counts"), "lr": "2^-4..2^-3", "trials": 2}}
    at_work = session(tiny(tmp_path, optimizers=table), tmp_path, snapshot_seconds=0.0)
    text = io.StringIO()
    events = []
    with Live(Console(file=text, width=60), at_work, quiet=False) as live:
        for event in at_work.run():
            live.show(event)
            events.append(event)
    assert events[-1] == Finished([])
    told = [line for line in text.getvalue().splitlines() if "keeps no snapshot" in line]
    assert sorted(line[:33] for line in told) == [
        "note: counts width 8  2^-3 keeps ",
        "note: counts width 8  2^-4 keeps ",
    ]
    assert list((tmp_path / "tiny" / "snapshots").glob("*")) == []


def test_the_report_shows_the_fields_of_groups(own: Callable[[str], str], tmp_path: Path) -> None:
    table = {
        "plain": {"use": "torch.optim:SGD", "lr": "2^-4..2^-3"},
        "grouped": {
            "use": "torch.optim:SGD",
            "lr": "2^-4..2^-3",
            "by_role": {"rest": {"nesterov": False}},
        },
    }
    assert list(session(tiny(tmp_path, optimizers=table), tmp_path).run())[-1] == Finished([])
    resolved = resolve(tiny(tmp_path, optimizers=table), Unread())
    rows = fairness(resolved, select(resolved, Store(tmp_path, "tiny").frame())).rows
    [row] = [row for row in rows if row[0].text.startswith("group of")]
    shown = [cell.text for cell in row]
    assert shown == ["group of rest: nesterov", "differs", "False", "\N{EN DASH}"]


def test_a_class_without_an_init_of_its_own_has_the_fields_of_its_base(
    own: Callable[[str], str],
) -> None:
    part = registry.describe("optimizer", own("Inherits"))
    assert part.defaults == registry.describe("optimizer", "torch.optim:SGD").defaults
    assert part.takes == "params"
    run = run_of(own("Inherits"), hp={"momentum": 0.9})
    moved, expected = stepped([run]), stepped([run_of("torch.optim:SGD", hp={"momentum": 0.9})])
    assert torch.equal(moved.groups[0].w, expected.groups[0].w)


def test_a_copy_of_a_spec_keeps_its_groups() -> None:
    run = run_of("torch.optim:SGD")
    other = replace(run, optimizer={**run.optimizer, "by_role": {"hidden": {"nesterov": False}}})
    assert run.key != other.key
    assert RunSpec.from_json(copy.deepcopy(other.to_json())).key == other.key
