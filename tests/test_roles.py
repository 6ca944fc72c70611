"""Roles of foreign modules: from two widths, from roles(), or an error with the name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hptransfer.errors import InputError
from hptransfer.optimizers.rules import as_matrix, from_matrix, matrix_shape
from hptransfer.spec import Param
from hptransfer.train.build import params


class Net(nn.Module):
    """A module with one layer of every inferable kind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(50, width)
        self.stem = nn.Conv2d(3, width, 3)
        self.conv = nn.Conv2d(width, 2 * width, 3)
        self.line = nn.Conv1d(width, width, 5, bias=False)
        self.first = nn.Linear(20, width)
        self.mix = nn.Linear(width, 2 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention = nn.MultiheadAttention(width, 2)
        self.norm = nn.LayerNorm(width)
        self.rms = nn.RMSNorm(width)
        self.group = nn.GroupNorm(2, width)
        self.head = nn.Linear(width, 10)


EXPECTED = {
    "token.weight": ("input", {"embedding"}, 1),
    "stem.weight": ("input", {"conv"}, 1),
    "stem.bias": ("vector", set(), 1),
    "conv.weight": ("hidden", {"conv"}, 1),
    "line.weight": ("hidden", {"conv"}, 1),
    "first.weight": ("input", set(), 1),
    "mix.weight": ("hidden", set(), 1),
    "mix.bias": ("vector", set(), 1),
    "qkv.weight": ("hidden", set(), 3),
    "attention.in_proj_weight": ("hidden", set(), 3),
    "attention.in_proj_bias": ("vector", set(), 1),
    "attention.out_proj.weight": ("hidden", set(), 1),
    "norm.weight": ("vector", {"gain"}, 1),
    "norm.bias": ("vector", set(), 1),
    "rms.weight": ("vector", {"gain"}, 1),
    "group.weight": ("vector", {"gain"}, 1),
    "head.weight": ("output", set(), 1),
    "head.bias": ("vector", set(), 1),
}


def described(make: Callable[[int], nn.Module], width: int = 8) -> dict[str, Param]:
    with torch.device("meta"):
        found = params(make(width), make(2 * width), make(width // 2))
    return {p.name: p for p in found}


def test_every_kind_of_layer_shows_its_role_at_two_widths() -> None:
    found = described(Net)
    for name, (role, flags, parts) in EXPECTED.items():
        p = found[name]
        assert p.role == role, name
        assert {f for f in ("embedding", "conv", "gain", "tied") if getattr(p, f)} == flags, name
        assert p.parts == parts, name


def test_shapes_are_those_of_the_matrix_that_a_norm_sees() -> None:
    found = described(Net)
    assert (found["token.weight"].d_out, found["token.weight"].d_in) == (8, 50)
    assert (found["conv.weight"].d_out, found["conv.weight"].d_in) == (16, 8 * 9)
    assert found["conv.weight"].taps == 9
    assert found["line.weight"].taps == 5
    assert (found["qkv.weight"].d_out, found["qkv.weight"].d_in) == (8, 8)
    assert found["mix.weight"].m == 2
    assert found["token.weight"].m == 1
    assert found["token.weight"].m_out == 2


@pytest.mark.parametrize("name", EXPECTED)
def test_the_matrix_view_and_back_is_the_tensor(name: str) -> None:
    p = described(Net)[name]
    tensor = torch.randn(2, 3, *p.shape)
    matrix = as_matrix(p, tensor)
    assert matrix.shape == (2, 3, *matrix_shape(p))
    assert torch.equal(from_matrix(p, matrix), tensor)


def test_fused_matrices_are_seen_one_by_one() -> None:
    p = described(Net)["qkv.weight"]
    tensor = torch.arange(24.0 * 8).view(24, 8)
    assert torch.equal(as_matrix(p, tensor)[1], tensor[8:16])


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(50, width)
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.token.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.token(x))


def test_a_weight_that_is_embedding_and_head_is_one_output_layer() -> None:
    found = described(Tied)
    assert list(found) == ["token.weight"]
    p = found["token.weight"]
    assert (p.role, p.tied, p.embedding) == ("output", True, False)
    assert (p.d_out, p.d_in) == (50, 8)


def one(make: Callable[[int], nn.Module], **more: Callable[[int], object]) -> type[nn.Module]:
    class Holder(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = make(width)
            for name, value in more.items():
                setattr(self, name, value(width))

    return Holder


class Raw(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(*shape))


REFUSED = {
    "a raw vector": (one(lambda w: Raw(w)), "layer.scale: a one-dimensional parameter of Raw"),
    "a raw matrix": (one(lambda w: Raw(50, w)), "layer.scale: a 2-dimensional parameter of Raw"),
    "a fixed layer": (one(lambda w: nn.Linear(4, 4)), "layer.weight: its shape (4, 4) does not"),
    "an unknown layer": (
        one(lambda w: nn.ConvTranspose2d(w, w, 3)),
        "layer.weight: a 4-dimensional parameter of ConvTranspose2d",
    ),
    "depthwise": (one(lambda w: nn.Conv2d(8, 8, 3, groups=8)), "a convolution in 8 groups"),
    "unequal qkv": (
        one(lambda w: nn.Identity(), qkv=lambda w: nn.Linear(w, 2 * w, bias=False)),
        "qkv.weight: fused by its name, but (16, 8)",
    ),
    "running statistics": (one(lambda w: nn.BatchNorm2d(w)), "BatchNorm2d keeps running"),
    "dropout": (one(lambda w: nn.Dropout(0.1)), "Dropout draws outside the run's seed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_role_that_does_not_show_is_an_error_that_names_the_parameter(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        described(make)
    assert message in str(caught.value)
    assert caught.value.hint
    if "role" in str(caught.value) or "Raw" in str(caught.value):
        assert "roles() of the model can say it" in caught.value.hint


def test_a_layer_that_only_one_width_has_is_an_error() -> None:
    class Varies(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(64 // width))

    with pytest.raises(InputError, match=r"layers\.4\.weight: not in the model at another width"):
        described(Varies)


def saying(roles: dict[str, str]) -> Callable[[int], nn.Module]:
    return one(lambda w: Raw(50, w), gate=lambda w: Raw(w), roles=lambda w: lambda: roles)


class MixIsOutput(Net):
    def roles(self) -> dict[str, str]:
        return {"mix.weight": "output"}


def test_what_roles_says_wins_and_what_it_leaves_out_is_inferred() -> None:
    found = described(saying({"layer.scale": "embedding", "gate.scale": "gain"}))
    assert found["layer.scale"].embedding
    assert found["layer.scale"].d_out == 8
    assert found["gate.scale"].gain
    found = described(MixIsOutput)
    assert found["mix.weight"].role == "output"
    assert found["first.weight"].role == "input"


def test_a_position_table_of_three_dimensions_can_be_called_an_embedding() -> None:
    make = one(lambda w: Raw(1, 6, w), roles=lambda w: lambda: {"layer.scale": "embedding"})
    p = described(make)["layer.scale"]
    assert (p.d_out, p.d_in) == (8, 6)
    tensor = torch.randn(2, 1, 6, 8)
    assert torch.equal(from_matrix(p, as_matrix(p, tensor)), tensor)


WRONG = {
    "a typo": ({"layer.scale": "hiden", "gate.scale": "gain"}, "says 'hiden'", "'hidden'"),
    "a name": ({"layer.scales": "hidden"}, "which is no parameter", "'layer.scale'"),
    "a vector": ({"layer.scale": "bias", "gate.scale": "gain"}, "its shape is (50, 8)", "one-dim"),
    "a matrix": ({"layer.scale": "hidden", "gate.scale": "hidden"}, "its shape is (8,)", "one-dim"),
    "three": ({"layer.scale": "qkv", "gate.scale": "gain"}, "50 rows are not three", "split"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_roles_is_an_error_with_its_cure(name: str) -> None:
    roles, message, hint = WRONG[name]
    with pytest.raises(InputError) as caught:
        described(saying(roles))
    assert message in str(caught.value)
    assert hint in caught.value.hint
