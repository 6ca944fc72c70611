"""What `hptransfer.optim` refuses, and what its optimizers carry beside their moments."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import hptransfer.optim
from hptransfer.errors import InputError
from hptransfer.train.groups import GROUP_ELEMENTS
from looped import BASE, WIDER, WIDTH, Net, made, step, weights

WRONG = {
    "a name": ({"name": "scoin"}, "unknown optimizer 'scoin'", "scion"),
    "a value": ({"name": "scion", "beta": 2.0}, "got 2.0, allowed: 0.0 to", "default"),
    "no base": ({"name": "adamw_mup"}, "0.weight: its shape", "give base"),
    "torch's own": ({"name": "torch.optim:Adagrad"}, "torch.optim.Optimizer already", "as it is"),
    "no peak": ({"lr": 0.0}, "got 0.0, needs a positive finite number", "lr is its peak"),
    "a climb": ({"lr": -1}, "got -1, needs a positive finite number", "lr is its peak"),
    "no number": ({"lr": math.nan}, "got nan, needs a positive finite", "lr is its peak"),
    "no limit": ({"lr": math.inf}, "got inf, needs a positive finite", "lr is its peak"),
    "a text": ({"lr": "0.1"}, "got '0.1' (str), needs a number", "2**-6"),
    "a flag": ({"lr": True}, "got True (bool), needs a number", "2**-6"),
    "out of the ball": (
        {"name": "scion", "lr": 2.0},
        "lr: got 2.0, allowed: 2^-30 to 2^0",
        "weight",
    ),
    "out of its ball": (
        {"name": "scion_light", "lr": 2.0, "constrained": True},
        "allowed: 2^-30 to 2^0",
        "weight",
    ),
    "at the base width": (
        {"name": "muon", "base": nn.Sequential(nn.Linear(8, 8, bias=False))},
        "0.weight: its shape (8, 8) does not change",
        "give wider",
    ),
    "another base": (
        {"name": "muon", "base": nn.Linear(4, 4)},
        "0.weight: not in base",
        "inside it",
    ),
    "no module": (
        {"name": "muon", "base": nn.Linear(4, 4).parameters()},
        "base is a generator, needs a torch.nn.Module",
        "not its parameters",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_says_what_and_how(case: str) -> None:
    arguments, message, hint = WRONG[case]
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    with pytest.raises(InputError) as caught:
        hptransfer.optim.optimizer(model, **{"name": "adamw", "lr": 0.1, **arguments})
    assert message in str(caught.value)
    assert hint in caught.value.hint


class FullyShardedDataParallel(nn.Sequential):
    """Named as the wrapper of torch, which needs several processes."""


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "complex": (nn.Linear(8, 8, dtype=torch.complex64), "weight: is complex (torch.complex64)"),
    "8 bits": (
        nn.ParameterList([nn.Parameter(torch.ones(3).to(torch.float8_e5m2))]),
        "0: is torch.float8_e5m2, allowed: float16, bfloat16, float32, float64",
    ),
    "lazy": (nn.LazyLinear(8), "weight: has no shape before the first batch"),
    "nothing": (nn.ReLU(), "the model has no parameters"),
    "flattened": (
        nn.Sequential(FullyShardedDataParallel(nn.Linear(8, 8))),
        "0: FullyShardedDataParallel makes vectors of its matrices",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_parameters_that_no_rule_moves_are_refused_by_name(case: str) -> None:
    model, message = REFUSED[case]
    roles = {name: "bias" if p.ndim == 1 else "hidden" for name, p in listed(model)}
    for make in (
        lambda: hptransfer.optim.optimizer(model, "muon", lr=0.1, roles=roles),
        lambda: hptransfer.optim.init_(model, "muon", roles=roles),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert message in str(caught.value)
        assert caught.value.hint


def listed(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    lazy = nn.parameter.UninitializedParameter
    return [(name, p) for name, p in model.named_parameters() if not isinstance(p, lazy)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: got 0"),
        ({"steps": 1.5}, "steps: got 1.5"),
        ({"steps": 3, "schedule": "linaer"}, "schedule: got 'linaer', allowed: linear, constant"),
        ({"steps": 3, "warmup": 2}, "warmup: got 2"),
        ({"steps": 3, "warmup": math.nan}, "warmup: got nan"),
    ],
)
def test_a_schedule_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    model = nn.Linear(8, 8, bias=False)
    optimizer = hptransfer.optim.optimizer(model, "sgd", lr=0.1, roles={"weight": "hidden"})
    with pytest.raises(InputError) as caught:
        hptransfer.optim.scheduler(optimizer, **arguments)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_model_at_the_base_width_trains_beside_one_of_another_width() -> None:
    trained = []
    for wider in (None, Net(WIDER)):
        model = Net(BASE)
        roles = None if wider else {"norm.weight": "gain", "norm.bias": "bias", "up.bias": "bias",
            "embedding.weight": "embedding", "up.weight": "hidden", "down.weight": "hidden",
            "head.weight": "output"}  # fmt: skip
        shapes: dict[str, Any] = {"base": Net(BASE), "wider": wider, "roles": roles}
        hptransfer.optim.init_(model, "muon", **shapes)
        optimizer = hptransfer.optim.optimizer(model, "muon", lr=0.1, **shapes)
        step(model, optimizer, 0)
        trained.append(weights(model))
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


class Fixed(nn.Module):
    """A frozen parameter whose role cannot be seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, width, bias=False)
        self.positions = nn.Parameter(torch.ones(3, width), requires_grad=False)


def test_a_frozen_parameter_needs_no_role_until_it_is_thawed() -> None:
    model = Fixed(16)
    hptransfer.optim.init_(model, "muon", base=Fixed(8))
    optimizer = hptransfer.optim.optimizer(model, "muon", lr=0.1, base=Fixed(8))
    assert optimizer.names == [["up.weight"]]
    assert torch.equal(model.positions, torch.ones(3, 16))
    model.up.weight.grad = torch.ones(16, 16)
    optimizer.step()
    copied = copy.deepcopy((model, optimizer))
    for own, each in ((model, optimizer), copied):
        own.positions.requires_grad_(True)
        with pytest.raises(InputError, match="positions: was frozen") as caught:
            each.step()
        assert "roles = {'positions': ...}" in caught.value.hint
    roles = {"positions": "embedding"}
    optimizer = hptransfer.optim.optimizer(model, "muon", lr=0.1, base=Fixed(8), roles=roles)
    assert ["positions"] in optimizer.names


def with_chance(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, width),
        nn.BatchNorm1d(width),
        nn.Dropout(0.5),
        nn.Linear(width, width),
        nn.Linear(width, 3),
    )


def test_running_statistics_and_dropout_are_right_in_a_loop_of_ones_own() -> None:
    """In a run of a suite they are not: its weights are a function of weights and data."""
    model = with_chance(16)
    hptransfer.optim.init_(model, "scion_unconstrained", base=with_chance(8))
    optimizer = hptransfer.optim.optimizer(
        model, "scion_unconstrained", lr=0.1, base=with_chance(8)
    )
    before = weights(model)
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(value, before[key]) for key, value in weights(model).items())


def test_frozen_parameters_that_are_no_real_numbers_are_left_alone() -> None:
    """As the quantised weights beside trained ones of low rank."""
    model = nn.Module()
    model.up = nn.Linear(8, 8, bias=False)
    model.down = nn.Linear(8, 8, bias=False)
    model.down.weight = nn.Parameter(torch.ones(8, 8, dtype=torch.uint8), requires_grad=False)
    roles = {"up.weight": "hidden", "down.weight": "hidden"}
    hptransfer.optim.init_(model, "muon", roles=roles)
    optimizer = hptransfer.optim.optimizer(model, "muon", lr=0.1, roles=roles)
    assert optimizer.names == [["up.weight"]]
    assert torch.equal(model.down.weight, torch.ones(8, 8))


def test_the_state_of_another_optimizer_is_refused() -> None:
    model = Net(WIDTH)
    optimizer = made("muon", model)
    for other in (torch.optim.AdamW(model.parameters()), made("scion", model)):
        with pytest.raises(InputError, match="its groups have no") as caught:
            optimizer.load_state_dict(other.state_dict())
        assert "another optimizer than muon" in caught.value.hint


def test_the_groups_of_a_model_are_the_same_on_every_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a state of a GPU could not be loaded on a CPU."""
    model = nn.ParameterList([nn.Parameter(torch.ones(8, 8)) for _ in range(6)])
    roles = {str(i): "hidden" for i in range(6)}
    whole = hptransfer.optim.optimizer(model, "muon", lr=0.1, roles=roles)
    monkeypatch.setitem(GROUP_ELEMENTS, "cpu", 1)
    pairs = hptransfer.optim.optimizer(copy.deepcopy(model), "muon", lr=0.1, roles=roles)
    assert whole.names == pairs.names == [list("012345")]
    for p, q in zip(whole.param_groups[0]["params"], pairs.param_groups[0]["params"], strict=True):
        p.grad, q.grad = torch.eye(8), torch.eye(8)
    whole.step()
    pairs.load_state_dict(whole.state_dict())
    pairs.step()


def test_scalars_keep_the_digits_of_float32_whatever_the_parameters_are() -> None:
    """In bfloat16 0.999 is 1, by whose distance to 1 AdamW divides."""
    model = nn.ParameterList([nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))])
    own = hptransfer.optim.optimizer(
        model, "adamw", lr=0.125, beta2=0.999, weight_decay=0.0, roles={"0": "hidden"}
    )
    model[0].grad = torch.ones_like(model[0])
    own.step()
    assert torch.equal(model[0], torch.full((4, 4), 0.875, dtype=torch.bfloat16))


def test_a_resume_takes_the_peak_along() -> None:
    """Muon's auxiliary lr is fixed at the peak of the schedule."""
    model = Net(WIDTH)
    optimizer = made("muon", model, lr=2.0**-4)
    loaded = made("muon", model, lr=2.0**-10)
    loaded.load_state_dict(optimizer.state_dict())
    assert {group["peak"] for group in loaded.param_groups} == {2.0**-4}
