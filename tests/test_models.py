"""The built-in models: their functions, their roles, and golden losses with every optimizer."""

import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.models.cnn import CNN, activated, cnn
from hptransfer.models.cnn import Block as CNNBlock
from hptransfer.models.gpt import GPT, Block, gpt, rms_norm
from hptransfer.models.mlp import MLP, mlp
from hptransfer.models.vit import ViT, vit
from hptransfer.train.build import model_factory
from hptransfer.train.schedule import lr_factor
from units import MODELS, OPTIMIZERS, data_for, lanes, records, spec, stepped, tokens, weights
from units import random as noise

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_first_20_losses_are_the_golden_ones(optimizer: str, model: str) -> None:
    """A change here needs a new REVISION of the part that changed, then tests/golden/make.py."""
    golden = json.loads((GOLDEN / "losses.json").read_text())[f"{optimizer} {model}"]
    found = runpy.run_path(str(GOLDEN / "make.py"))["losses"](optimizer, model)
    assert found["train"] == pytest.approx(golden["train"], rel=1e-9)
    assert found["heldout"] == pytest.approx(golden["heldout"], rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_of_every_model(optimizer: str, model: str) -> None:
    run = spec(optimizer, model, steps=40, batch=16)
    record = records([run])[0]
    assert record.status == "done"
    assert record.train_loss < record.loss_init - 0.05


def test_roles_name_every_parameter_of_every_model() -> None:
    for model in MODELS:
        built = model_factory(spec("adamw", model), data_for(model))(16)
        assert isinstance(built, GPT | MLP | ViT | CNN)
        roles = built.roles()
        assert set(roles) == {name for name, _ in built.named_parameters()}
        assert set(roles.values()) == {"input", "hidden", "output"}


def test_no_model_has_a_bias_or_a_gain() -> None:
    for model in MODELS:
        assert all(
            p.ndim in (2, 4)
            for p in model_factory(spec("adamw", model), data_for(model))(16).parameters()
        )


def test_gpt_has_the_parameters_of_its_description() -> None:
    model = gpt(width=32, vocab=50, n_layer=3, head_size=8, context=16)
    assert sum(p.numel() for p in model.parameters()) == 2 * 50 * 32 + 3 * 12 * 32 * 32
    assert not model.embedding.weight.is_set_to(model.head.weight)


def test_gpt_reads_no_token_of_the_future() -> None:
    torch.manual_seed(0)
    model = gpt(width=16, vocab=20, head_size=8, context=12).double()
    x = torch.randint(20, (2, 12))
    later = x.clone()
    later[:, 7] = (later[:, 7] + 1) % 20
    before, after = model(x), model(later)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().amin(dim=-1).gt(0).all()


def test_gpt_knows_the_order_of_tokens() -> None:
    torch.manual_seed(0)
    model = gpt(width=16, vocab=20, n_layer=2, head_size=8, context=4).double()
    swapped = model(torch.tensor([[2, 1, 3, 4]]))[0, -1]
    assert (model(torch.tensor([[1, 2, 3, 4]]))[0, -1] - swapped).abs().max() > 1e-3


@pytest.mark.parametrize("sqrt2", [True, False])
def test_activations_are_multiplied_by_the_square_root_of_two(sqrt2: bool) -> None:
    gain = math.sqrt(2) if sqrt2 else 1.0
    net = mlp(width=6, in_shape=(2, 3), n_classes=4, sqrt2=sqrt2).double()
    x = noise(5, 2, 3)
    h = gain * F.relu(x.flatten(1) @ net.first.weight.mT)
    h = gain * F.relu(h @ net.second.weight.mT)
    torch.testing.assert_close(net(x), h @ net.head.weight.mT)
    block = gpt(width=8, vocab=4, n_layer=1, head_size=8, context=4, sqrt2=sqrt2).double().blocks[0]
    assert isinstance(block, Block)
    for name in ("q", "k", "v", "o"):
        torch.nn.init.zeros_(getattr(block, name).weight)
    y = noise(1, 4, 8)
    turn = torch.ones(4, 4, dtype=torch.complex128)
    hidden = gain * F.gelu(rms_norm(y) @ block.up.weight.mT)
    torch.testing.assert_close(
        block(y, turn),
        y + hidden @ block.down.weight.mT,
    )


def test_a_model_under_vmap_equals_a_loop_in_bfloat16_too() -> None:
    model = gpt(width=16, vocab=20, head_size=8, context=8)
    stacked = {n: torch.stack([p.detach(), 2 * p.detach()]) for n, p in model.named_parameters()}
    x = torch.arange(16).view(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        together = vmap(lambda w: functional_call(model, w, (x,)))(stacked)
        second = functional_call(model, {n: w[1] for n, w in stacked.items()}, (x,))
    assert together.dtype == torch.bfloat16
    torch.testing.assert_close(together[1], second, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("per_lane", [False, True], ids=["shared images", "images a lane"])
@pytest.mark.parametrize("model", ["vit", "cnn"])
def test_an_image_model_under_vmap_equals_a_loop_in_value_and_gradient(
    model: str, per_lane: bool
) -> None:
    net = model_factory(spec("adamw", model, model_fields={"sqrt2": True}), data_for(model))(
        16
    ).double()
    side = 8 if model == "cnn" else 4
    x = noise(3, 5, 1, side, side) if per_lane else noise(5, 1, side, side)
    stacked = {
        name: noise(3, *p.shape, seed=i).requires_grad_()
        for i, (name, p) in enumerate(net.named_parameters())
    }
    together = vmap(lambda w, x: functional_call(net, w, (x,)), (0, 0 if per_lane else None))(
        stacked, x
    )
    loop = torch.stack(
        [
            functional_call(net, {n: w[i] for n, w in stacked.items()}, (x[i] if per_lane else x,))
            for i in range(3)
        ]
    )
    torch.testing.assert_close(together, loop)
    pull = noise(*together.shape, seed=9)
    for a, b in zip(
        torch.autograd.grad((together * pull).sum(), list(stacked.values())),
        torch.autograd.grad((loop * pull).sum(), list(stacked.values())),
        strict=True,
    ):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b)


def test_a_tied_weight_is_one_parameter_with_the_output_role() -> None:
    tied, untied = (gpt(width=16, vocab=20, head_size=8, tied=t) for t in (True, False))
    assert tied.head.weight is tied.embedding.weight
    names = {name for name, _ in tied.named_parameters()}
    assert names == {name for name, _ in untied.named_parameters()} - {"head.weight"}
    assert set(tied.roles()) == names
    assert tied.roles()["embedding.weight"] == "output"
    assert untied.roles()["embedding.weight"] == "input"


@pytest.mark.parametrize("lanes_", [1, 2])
def test_a_tied_weight_moves_once_by_the_gradient_of_both_its_uses(lanes_: int) -> None:
    run = spec("adamw", "gpt", steps=5, batch=16, model_fields={"tied": True})
    unit = [run.point(run.log2_lr - i, 0) for i in range(lanes_)]
    ours = stepped(unit, dtype=torch.float64)
    begun = lanes(unit, dtype=torch.float64)
    for lane, one in enumerate(unit):
        other = gpt(width=16, vocab=61, n_layer=1, head_size=8, context=8, tied=True).double()
        other.load_state_dict(weights(begun, lane), strict=False)
        optimizer = torch.optim.AdamW(
            other.parameters(), lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
        )
        for t in range(one.steps):
            x, y, _ = begun.batches.train(t)
            optimizer.zero_grad()
            F.cross_entropy(other(x).flatten(0, 1), y.flatten()).backward()
            optimizer.param_groups[0]["lr"] = one.lr * lr_factor(one, t)
            optimizer.step()
        end = weights(ours, lane)
        assert "head.weight" not in end
        for name, w in other.named_parameters():
            torch.testing.assert_close(end[name], w.detach(), rtol=0, atol=1e-10)
        assert (end["embedding.weight"] - weights(begun, lane)["embedding.weight"]).abs().min() > 0


@pytest.mark.parametrize("factory", [gpt, vit])
def test_a_residual_branch_is_scaled_by_the_base_depth_over_the_depth(
    factory: Callable[..., GPT | ViT],
) -> None:
    x = noise(2, 4, 8)
    turn = (torch.ones(4, 4, dtype=torch.complex128),) if factory is gpt else ()

    def branches(**fields: int) -> tuple[Tensor, Tensor]:
        """The parts that attention and the MLP add to x."""
        torch.manual_seed(0)
        block = factory(8, head_size=8, **fields).double().blocks[0]
        added = []
        for off in ("down", "o"):
            kept = getattr(block, off).weight.data.clone()
            getattr(block, off).weight.data.zero_()
            added.append((block(x, *turn) - x).detach())
            getattr(block, off).weight.data.copy_(kept)
        return added[0], added[1]

    plain, same = branches(n_layer=3), branches(n_layer=3, residual_base=3)
    scaled = branches(n_layer=8, residual_base=2)
    for a, b, c in zip(plain, same, scaled, strict=True):
        assert a.abs().max() > 0.01
        assert torch.equal(a, b)
        torch.testing.assert_close(c, a * 2 / 8)


@pytest.mark.parametrize("factory", [gpt, vit])
def test_heads_grow_with_the_width_at_a_fixed_size(
    factory: Callable[..., GPT | ViT],
) -> None:
    for width in (16, 64):
        assert factory(width, head_size=16).blocks[0].head_size == 16


@pytest.mark.parametrize(
    ("factory", "field"), [(gpt, "head_size"), (vit, "head_size"), (cnn, "group")]
)
def test_a_width_that_its_heads_or_groups_do_not_divide_is_an_input_error(
    factory: Callable[..., torch.nn.Module], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        factory(40, **{field: 32})
    assert str(caught.value) == f"width 40 is not a multiple of {field} 32"
    assert caught.value.hint == "the nearest widths are 32 and 64"
    with pytest.raises(InputError) as caught:
        factory(8, **{field: 32})
    assert caught.value.hint == "the nearest width is 32"


def test_a_run_of_a_wrong_width_is_an_input_error() -> None:
    with pytest.raises(InputError, match="width 20 is not a multiple of head_size 8"):
        lanes([spec("adamw", "gpt", width=20)])


def test_an_odd_head_size_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"^model.head_size: got 3, needs an even number$"):
        gpt(width=9, head_size=3)
    with pytest.raises(InputError, match=r"^model.head_size: got 6, needs a multiple of 4$"):
        vit(width=12, head_size=6)


def test_group_norm_shares_statistics_within_groups_of_the_same_size_at_every_width() -> None:
    for width in (8, 24):
        x = 3 * noise(2, width, 4, 5) + 1
        grouped = x.view(2, width // 8, 8 * 20)
        normal = (grouped - grouped.mean(-1, keepdim=True)) / grouped.std(
            -1, correction=0, keepdim=True
        )
        expected = math.sqrt(2) * normal.view_as(x).clamp(min=0)
        found = activated(x, 8, math.sqrt(2))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    louder = x.clone()
    louder[:, 8:] = noise(2, 16, 4, 5, seed=1)
    assert torch.equal(activated(louder, 8, 1.0)[:, :8], activated(x, 8, 1.0)[:, :8])


def test_a_cnn_is_the_residual_network_of_its_description() -> None:
    torch.manual_seed(0)
    net = cnn(16, in_shape=(3, 9, 6), n_classes=4, n_block=3).double()
    x = noise(2, 3, 9, 6)
    h = activated(F.conv2d(x, net.stem.weight, stride=2, padding=1), 8, math.sqrt(2))
    for block, size in zip(net.blocks, [(3, 2), (2, 1), (1, 1)], strict=True):
        assert isinstance(block, CNNBlock)
        h = F.avg_pool2d(h, 2, ceil_mode=True)
        assert h.shape[2:] == size
        inner = activated(h, 8, math.sqrt(2))
        inner = F.conv2d(inner, block.first.weight, padding=1)
        inner = activated(inner, 8, math.sqrt(2))
        h = h + F.conv2d(inner, block.second.weight, padding=1)
    pooled = activated(h, 8, math.sqrt(2)).mean(dim=(2, 3))
    pooled = pooled - pooled.mean(1, keepdim=True)
    pooled = pooled / (pooled.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(net(x), pooled @ net.head.weight.mT)
    assert sum(p.numel() for p in net.parameters()) == 9 * 16 * (3 + 6 * 16) + 4 * 16


def test_a_model_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        model = gpt(width=65536, n_layer=48)
    assert isinstance(model, GPT)
    assert sum(p.numel() for p in model.parameters()) > 2e12


@pytest.mark.parametrize("model", MODELS)
def test_the_registry_knows_every_field_of_a_model(model: str) -> None:
    assert registry.load("model", model) in (gpt, mlp, vit, cnn)
    assert "sqrt2" in registry.describe("model", model).defaults


def test_made_up_text_can_be_learned() -> None:
    record = records([spec("adamw_mup", "gpt", steps=150, batch=16, log2_lr=-5.0)], tokens())[0]
    assert record.loss < 0.75 * math.log(61)
