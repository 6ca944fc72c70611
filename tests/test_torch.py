"""torch.optim.Optimizers with the iterates of the engine, on every model."""

import io
import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

import hptransfer.optim
from hptransfer.datasets import Tokens, offsets
from hptransfer.optimizers.rules import generator_for
from hptransfer.spec import RunSpec
from hptransfer.train.build import context_of, model_factory
from hptransfer.train.schedule import lr_factor
from looped import ROUNDING, WIDTH, Net, compiled, made, step
from units import MODELS, OPTIMIZERS, SHORT, data_for, lanes, spec, weights

STEPS = 6


def batch_of(run: RunSpec, t: int) -> tuple[Tensor, Tensor]:
    data = data_for(run.model["name"])
    if isinstance(data, Tokens):
        context = context_of(run)
        stream = torch.from_numpy(data.train).long()
        begins = offsets(run.seed, t, run.batch, len(stream) - context)
        windows = torch.stack([stream[b : b + context + 1] for b in begins.tolist()])
        return windows[:, :-1], windows[:, 1:]
    chosen = offsets(run.seed, t, run.batch, len(data.y_train))
    return torch.from_numpy(data.x_train[chosen]), torch.from_numpy(data.y_train[chosen])


def own_loop(run: RunSpec, **hp: Any) -> tuple[nn.Module, hptransfer.optim.RuleOptimizer, LambdaLR]:
    data = data_for(run.model["name"])
    model = model_factory(run, data)(run.width)
    with torch.device("meta"):
        base = model_factory(run, data)(run.base["width"])
    name = run.optimizer["name"]
    hp = {**SHORT.get(name, {}), **hp}
    hptransfer.optim.init_(model, name, base=base, seed=run.seed, **hp)
    optimizer = hptransfer.optim.optimizer(model, name, lr=run.lr, base=base, **hp)
    schedule = hptransfer.optim.scheduler(
        optimizer, steps=run.steps, schedule=run.schedule, warmup=run.warmup
    )
    return model, optimizer, schedule


def advance(
    run: RunSpec, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler, t: int
) -> None:
    x, y = batch_of(run, t)
    optimizer.zero_grad()
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    optimizer.step()
    schedule.step()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_of_ones_own_follows_the_engine(name: str, model_name: str) -> None:
    run = spec(name, model_name, steps=STEPS, warmup=0.3)
    ours = lanes([run])
    model, optimizer, schedule = own_loop(run)
    start = weights(ours)
    for key, value in values(model).items():
        assert torch.equal(value, start[key]), key
    for t in range(STEPS):
        ours.gradients(t)
        ours.update(t)
        advance(run, model, optimizer, schedule, t)
    for key, value in values(model).items():
        torch.testing.assert_close(value, weights(ours)[key], rtol=1e-5, atol=1e-6)
    ours.read_out()
    optimizer.eval()
    for key, value in values(model).items():
        torch.testing.assert_close(value, weights(ours)[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at_x", [False, True])
@pytest.mark.parametrize(
    "name", ["transported_scion", "ema_nesterov", "adamw_mup", "muon", "scion_light"]
)
def test_saving_and_loading_goes_on_bit_for_bit_from_x_and_from_y(name: str, at_x: bool) -> None:
    run = spec(name, "mlp", steps=STEPS)
    straight, stopped, loaded = own_loop(run), own_loop(run), own_loop(run)
    for t in range(STEPS):
        advance(run, *straight, t)
    for t in range(3):
        advance(run, *stopped, t)
    if at_x:
        stopped[1].eval()
    saved = io.BytesIO()
    torch.save([each.state_dict() for each in stopped], saved)
    saved.seek(0)
    for each, state in zip(loaded, torch.load(saved, weights_only=True), strict=True):
        each.load_state_dict(state)
    loaded[1].train()
    for t in range(3, STEPS):
        advance(run, *loaded, t)
    for key, value in values(loaded[0]).items():
        assert torch.equal(value, values(straight[0])[key]), key


def test_eval_gives_x_and_train_gives_y_back_bit_for_bit() -> None:
    run = spec("transported_scion", "gpt", steps=STEPS)
    model, optimizer, schedule = own_loop(run)
    for t in range(3):
        advance(run, model, optimizer, schedule, t)
    y = values(model)
    optimizer.eval()
    optimizer.eval()
    x = values(model)
    assert any(not torch.equal(x[key], y[key]) for key in x)
    with pytest.raises(RuntimeError, match=r"call optimizer\.train\(\)"):
        optimizer.step()
    optimizer.train()
    assert all(torch.equal(value, y[key]) for key, value in values(model).items())


def test_a_scheduler_of_torch_drives_the_learning_rate() -> None:
    run = spec("scion_unconstrained", "mlp", steps=STEPS)
    ours, other = own_loop(run), own_loop(run)
    linear = torch.optim.lr_scheduler.LinearLR(other[1], 1.0, 0.0, total_iters=STEPS)
    other[1].schedule = None
    for group in other[1].param_groups:
        group["lr"] = run.lr * lr_factor(run, 0)
    for t in range(STEPS):
        advance(run, *ours, t)
        advance(run, other[0], other[1], linear, t)
    for key, value in values(ours[0]).items():
        torch.testing.assert_close(value, values(other[0])[key])


def test_each_parameter_group_has_its_own_learning_rate_and_hyperparameters() -> None:
    run = spec("scion_unconstrained", "mlp", steps=STEPS)
    model, optimizer, schedule = own_loop(run)
    before = values(model)
    for group, names in zip(optimizer.param_groups, optimizer.names, strict=True):
        assert group["beta"] == 0.9
        if "head.weight" not in names:
            group["lr"] = 0.0
    x, y = batch_of(run, 0)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    moved = {key for key, value in values(model).items() if not torch.equal(value, before[key])}
    assert moved == {"head.weight"}
    del schedule


def test_a_compiled_model_trains_the_same() -> None:
    run = spec("muon", "mlp", steps=STEPS)
    plain, compiled = own_loop(run), own_loop(run)
    forward = torch.compile(compiled[0], backend="eager")
    for t in range(3):
        advance(run, *plain, t)
        x, y = batch_of(run, t)
        compiled[1].zero_grad()
        F.cross_entropy(forward(x), y).backward()
        compiled[1].step()
        compiled[2].step()
    for key, value in values(plain[0]).items():
        torch.testing.assert_close(value, values(compiled[0])[key])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, in the compiler's imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which makes kernels for a CPU")
def test_a_model_in_kernels_of_the_compiler_trains_the_same() -> None:
    model, plain = Net(WIDTH), Net(WIDTH)
    plain.load_state_dict(model.state_dict())
    wrapper = compiled(model, "inductor")
    optimizer, other = made("muon", wrapper), made("muon", plain)
    for t in range(3):
        step(wrapper, optimizer, t)
        step(plain, other, t)
    for key, value in values(plain).items():
        torch.testing.assert_close(value, values(model)[key], rtol=ROUNDING, atol=ROUNDING)


def test_a_parameter_without_a_gradient_stays() -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    roles = {"0.weight": "hidden", "1.weight": "hidden"}
    optimizer = hptransfer.optim.optimizer(model, "scion_unconstrained", lr=0.1, roles=roles)
    before = values(model)
    model[0](torch.ones(1, 8)).sum().backward()
    optimizer.step()
    after = values(model)
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert torch.equal(after["1.weight"], before["1.weight"])


def test_parameters_with_gradients_now_and_then_keep_their_momentum() -> None:
    """Each moves as it would alone."""
    shapes = [nn.Parameter(torch.zeros(8, 8)) for _ in range(2)]
    both = nn.ParameterList(shapes)
    roles = {"0": "hidden", "1": "hidden"}
    optimizer = hptransfer.optim.optimizer(both, "scion_unconstrained", lr=0.1, roles=roles)
    momentum = [torch.zeros(8, 8) for _ in range(2)]
    for t, seen in enumerate([(0, 1), (1,), (0, 1), (0,), (0, 1)]):
        for i, p in enumerate(both):
            p.grad = None
            if i in seen:
                p.grad = torch.randn(8, 8, generator=generator_for(t, str(i)))
                momentum[i] = 0.9 * momentum[i] + 0.1 * p.grad
        optimizer.step()
        for i, p in enumerate(both):
            torch.testing.assert_close(optimizer.state[p]["m"], momentum[i])
