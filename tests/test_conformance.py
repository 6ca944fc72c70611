"""Every optimizer of ours under what a training loop does: the weights of a plain loop come out."""

import copy
import functools
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

import hptransfer.optim
from hptransfer.errors import InputError
from hptransfer.optim import RuleOptimizer
from looped import (
    BATCH,
    ROUNDING,
    Net,
    apart,
    batch,
    compiled,
    loss_of,
    lr_of,
    made,
    net,
    plain,
    step,
    weights,
)
from units import OPTIMIZERS

STEPS = 4

pytestmark = pytest.mark.parametrize("name", OPTIMIZERS)
reference = functools.cache(plain)


def test_a_grad_scaler_changes_no_bit_and_leaves_a_step_with_infinities_out(name: str) -> None:
    model = net(name)
    optimizer = made(name, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch(t))).backward()
        scaler.step(optimizer)
        scaler.update()
    assert apart(weights(model), reference(name, STEPS)) == 0
    before = weights(model)
    scaler.scale(loss_of(model, batch(STEPS)) * torch.inf).backward()
    scaler.step(optimizer)
    assert apart(weights(model), before) == 0


def test_clipping_at_a_norm_that_is_never_reached_changes_no_bit(name: str) -> None:
    model = net(name)
    optimizer = made(name, model)
    for t in range(STEPS):
        model.zero_grad()
        loss_of(model, batch(t)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e6)
        optimizer.step()
    assert apart(weights(model), reference(name, STEPS)) == 0


def test_accumulated_halves_of_a_batch_count_as_the_batch(name: str) -> None:
    model = net(name)
    optimizer = made(name, model)
    for t in range(STEPS):
        optimizer.zero_grad()
        for half in batch(t).split(BATCH // 2):
            (loss_of(model, half) / 2).backward()
        optimizer.step()
    assert apart(weights(model), reference(name, STEPS)) < ROUNDING


def test_a_closure_gives_its_loss_and_the_same_step(name: str) -> None:
    model = net(name)
    optimizer = made(name, model)

    def closure(t: int) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch(t))
        loss.backward()
        return loss

    losses = [optimizer.step(functools.partial(closure, t)) for t in range(STEPS)]
    assert all(loss.requires_grad for loss in losses)
    assert apart(weights(model), reference(name, STEPS)) == 0


def test_a_compiled_model_trains_as_it_does_otherwise(name: str) -> None:
    model = net(name)
    wrapper = compiled(model, "aot_eager")
    optimizer = made(name, wrapper)
    assert [n for own in optimizer.names for n in own if "_orig_mod" in n] == []
    for t in range(STEPS):
        step(wrapper, optimizer, t)
    assert apart(weights(model), reference(name, STEPS)) < ROUNDING


SCHEDULES: dict[str, Callable[[RuleOptimizer], LRScheduler]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(
        o, max_lr=o.defaults["lr"], total_steps=STEPS, cycle_momentum=False
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.5, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_scheduler_of_torch_counts_as_its_learning_rates_do(schedule: str, name: str) -> None:
    model, by_hand = net(name), net(name)
    optimizer, other = made(name, model), made(name, by_hand)
    own = SCHEDULES[schedule](optimizer)
    for t in range(STEPS):
        for group in other.param_groups:
            group["lr"] = own.get_last_lr()[0]
        step(model, optimizer, t)
        step(by_hand, other, t)
        own.step()
    assert apart(weights(model), weights(by_hand)) == 0
    assert {group["peak"] for group in optimizer.param_groups} == {lr_of(name)}


def test_a_plateau_scheduler_lowers_every_learning_rate(name: str) -> None:
    optimizer = made(name, net(name))
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for loss in (1.0, 2.0):
        plateau.step(loss)
    assert {group["lr"] for group in optimizer.param_groups} == {lr_of(name) / 2}


def _saved(model: Net, optimizer: RuleOptimizer) -> tuple[Net, RuleOptimizer]:
    """Saved, and loaded into an optimizer that was built with another learning rate."""
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    fresh = Net(16)
    loaded = made(optimizer.address, fresh, 2.0**-10)
    states = torch.load(file, weights_only=True)
    fresh.load_state_dict(states[0])
    loaded.load_state_dict(states[1])
    return fresh, loaded


def _live(model: Net, optimizer: RuleOptimizer) -> tuple[Net, RuleOptimizer]:
    """Loaded from the state of an optimizer that goes on: nothing is shared."""
    fresh = copy.deepcopy(model)
    loaded = made(optimizer.address, fresh, 2.0**-10)
    loaded.load_state_dict(optimizer.state_dict())
    step(model, optimizer, 99)
    return fresh, loaded


def _distributed(flat: bool, model: Net, optimizer: RuleOptimizer) -> tuple[Net, RuleOptimizer]:
    """By the state dicts of torch.distributed.checkpoint, whose keys are names."""
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
    states = copy.deepcopy(dcp.get_state_dict(model, optimizer, options=options))
    fresh = Net(16)
    loaded = made(optimizer.address, fresh, 2.0**-10)
    dcp.set_state_dict(
        fresh, loaded, model_state_dict=states[0], optim_state_dict=states[1], options=options
    )
    return fresh, loaded


COPIES: dict[str, Callable[[Net, RuleOptimizer], tuple[Net, RuleOptimizer]]] = {
    "saved": _saved,
    "live": _live,
    "distributed": functools.partial(_distributed, False),
    "distributed and flat": functools.partial(_distributed, True),
    "deepcopy": lambda model, optimizer: copy.deepcopy((model, optimizer)),
    "pickle": lambda model, optimizer: pickle.loads(pickle.dumps((model, optimizer))),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_goes_on_bit_for_bit(how: str, name: str) -> None:
    model = net(name)
    optimizer = made(name, model)
    for t in range(2):
        step(model, optimizer, t)
    model, optimizer = COPIES[how](model, optimizer)
    for t in range(2, STEPS):
        step(model, optimizer, t)
    assert apart(weights(model), reference(name, STEPS)) == 0


def test_no_group_is_added_once_it_is_built(name: str) -> None:
    optimizer = made(name, net(name))
    with pytest.raises(InputError, match="the parameters are those of the model") as caught:
        optimizer.add_param_group({"params": nn.Linear(16, 16).parameters()})
    assert "may be thawed" in caught.value.hint


def test_a_thawed_parameter_moves_as_in_an_optimizer_that_begins_then(name: str) -> None:
    model = net(name)
    frozen = {"embedding.weight", "down.weight", "up.bias"}
    for key, p in model.named_parameters():
        p.requires_grad_(key not in frozen)
    optimizer = made(name, model)
    start = weights(model)
    for t in range(2):
        step(model, optimizer, t)
    now = weights(model)
    assert {key for key in now if torch.equal(now[key], start[key])} == frozen
    model.requires_grad_(True)
    other = copy.deepcopy(model)
    begun = made(name, other)
    for t in range(2, STEPS):
        step(model, optimizer, t)
        with torch.no_grad():  # the gradients are those at one and the same point
            for key, p in other.named_parameters():
                p.grad = model.get_parameter(key).grad
        begun.step()
    thawed, new = weights(model), weights(other)
    assert apart({k: thawed[k] for k in frozen}, {k: new[k] for k in frozen}) == 0
    assert apart(thawed, new) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_step_in_float32_and_a_cast(dtype: torch.dtype, name: str) -> None:
    single = net(name)
    half = copy.deepcopy(single).to(dtype)
    optimizer, loaded = made(name, half), made(name, half, 2.0**-10)
    for t in range(STEPS):
        single.load_state_dict(half.state_dict())  # from the rounded weights
        exact = made(name, single)
        if t:
            exact.load_state_dict(optimizer.state_dict())
        optimizer.zero_grad()
        loss_of(half, batch(t)).backward()
        for p, q in zip(single.parameters(), half.parameters(), strict=True):
            assert q.grad is not None
            p.grad = q.grad.float()
        exact.step()
        if t == 2:  # a load keeps float32
            loaded.load_state_dict(optimizer.state_dict())
            for p in half.parameters():
                own, saved = loaded.state[p], optimizer.state[p]
                assert all(torch.equal(own[key], saved[key]) for key in saved)
            optimizer = loaded
        optimizer.step()
        rounded = {key: w.to(dtype) for key, w in weights(single).items()}
        assert apart(weights(half), rounded) == 0
    kept = [v for own in optimizer.state.values() for v in own.values()]
    assert {value.dtype for value in kept} == {torch.float32}


def test_a_learning_rate_of_zero_and_no_gradient_move_nothing(name: str) -> None:
    model = net(name)
    optimizer = made(name, model)
    before = weights(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert apart(weights(model), before) == 0


def test_a_state_that_is_set_by_hand_counts(name: str) -> None:
    model, other = net(name), net(name)
    optimizer, same = made(name, model), made(name, other)
    for t in range(2):
        step(model, optimizer, t)
        step(other, same, t)
    for own in optimizer.state.values():
        for key, value in own.items():
            own[key] = value.clone()  # as a move to another device and back
    for own in same.state.values():
        for key, value in own.items():
            own[key] = value if key == "step" else torch.zeros_like(value)
    step(model, optimizer, 2)
    step(other, same, 2)
    assert apart(weights(model), reference(name, 3)) == 0
    assert apart(weights(other), reference(name, 3)) > 0


def test_a_sparse_gradient_is_refused_by_name(name: str) -> None:
    model = net(name)
    optimizer = made(name, model)
    model.embedding.sparse = True
    with pytest.raises(InputError, match=r"embedding\.weight: \w+ does not support sparse"):
        step(model, optimizer, 0)
    with pytest.raises(InputError, match="embedding: its gradients are sparse"):
        made(name, model)


def test_wrappers_leave_no_trace_in_the_init(name: str) -> None:
    bare, wrapped = Net(16), nn.DataParallel(compiled(Net(16), "eager"))
    hptransfer.optim.init_(bare, name, base=Net(8))
    hptransfer.optim.init_(wrapped, name, base=compiled(Net(8), "eager"))
    inner = {k.removeprefix("module._orig_mod."): v for k, v in weights(wrapped).items()}
    assert apart(weights(bare), inner) == 0
