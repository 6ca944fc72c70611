"""The built-in models: what they compute, their roles, and golden losses with every optimizer."""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap

from hptransfer import registry
from hptransfer.lanes import build
from hptransfer.models.gpt import GPT, causal_attention, gpt, rms_norm, rotate
from hptransfer.models.mlp import mlp
from hptransfer.registry import InputError
from units import MODELS, OPTIMIZERS, data_for, lanes, records, spec, tokens

GOLDEN = Path(__file__).parent / "golden"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
        built = build(spec("adamw", model), data_for(model), 16)
        roles = built.roles()  # type: ignore[operator]
        assert set(roles) == {name for name, _ in built.named_parameters()}
        assert set(roles.values()) == {"input", "hidden", "output"}


def test_no_model_has_a_bias_or_a_gain() -> None:
    for model in MODELS:
        assert all(
            p.ndim == 2 for p in build(spec("adamw", model), data_for(model), 16).parameters()
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


def test_attention_is_the_masked_softmax_of_its_formula() -> None:
    q, k, v = (noise(2, 3, 5, 4, seed=s) for s in range(3))
    scores = q @ k.mT / math.sqrt(4)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = scores.masked_fill(mask, -math.inf).softmax(-1) @ v
    torch.testing.assert_close(causal_attention(q, k, v), expected)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, 0, 2), (0, None, 0), (0, 0, None)])
def test_attention_under_vmap_equals_a_loop_in_value_and_gradient(
    in_dims: tuple[int | None, ...],
) -> None:
    lanes_, shape = 3, (2, 3, 5, 4)
    leaves = []
    for seed, dim in enumerate(in_dims):
        full = list(shape)
        if dim is not None:
            full.insert(dim, lanes_)
        leaves.append(noise(*full, seed=seed).requires_grad_())

    def lane(i: int) -> list[Tensor]:
        return [t if d is None else t.select(d, i) for t, d in zip(leaves, in_dims, strict=True)]

    together = vmap(causal_attention, in_dims=in_dims)(*leaves)
    loop = torch.stack([causal_attention(*lane(i)) for i in range(lanes_)])
    torch.testing.assert_close(together, loop)
    pull = noise(*together.shape, seed=9)
    for a, b in zip(
        torch.autograd.grad((together * pull).sum(), leaves),
        torch.autograd.grad((loop * pull).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_rotation_keeps_lengths_and_depends_on_the_distance_alone() -> None:
    model = gpt(width=8, vocab=4, head_size=8, context=32).double()
    turn = torch.complex(model.cos, model.sin)
    q, k = noise(8), noise(8, seed=1)
    turned_q, turned_k = rotate(q.expand(32, 8), turn), rotate(k.expand(32, 8), turn)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(32))
    scores = turned_q @ turned_k.mT
    for distance in (0, 3, 20):
        along = scores.diagonal(-distance)
        # angles are float32
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-4)
    assert (scores[5, 0] - scores[9, 0]).abs() > 1e-3


def test_normalised_activations_have_rms_one() -> None:
    x = 100 * noise(3, 7, 64)
    torch.testing.assert_close(rms_norm(x).square().mean(-1), torch.ones(3, 7).double())
    x[0, 0] = 0
    x.requires_grad_()
    rms_norm(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("sqrt2", [True, False])
def test_activations_are_multiplied_by_the_square_root_of_two(sqrt2: bool) -> None:
    gain = math.sqrt(2) if sqrt2 else 1.0
    net = mlp(width=6, in_shape=(2, 3), n_classes=4, sqrt2=sqrt2).double()
    x = noise(5, 2, 3)
    h = gain * F.relu(x.flatten(1) @ net.first.weight.mT)
    h = gain * F.relu(h @ net.second.weight.mT)
    torch.testing.assert_close(net(x), h @ net.head.weight.mT)
    block = gpt(width=8, vocab=4, n_layer=1, head_size=8, context=4, sqrt2=sqrt2).double().blocks[0]
    for name in ("q", "k", "v", "o"):
        torch.nn.init.zeros_(getattr(block, name).weight)
    y = noise(1, 4, 8)
    turn = torch.ones(4, 4, dtype=torch.complex128)
    hidden = gain * F.gelu(rms_norm(y) @ block.up.weight.mT)  # type: ignore[union-attr]
    torch.testing.assert_close(
        block(y, turn),
        y + hidden @ block.down.weight.mT,  # type: ignore[union-attr]
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


def test_heads_grow_with_the_width_at_a_fixed_size() -> None:
    for width in (16, 64):
        block = gpt(width=width, vocab=4, head_size=16, context=4).blocks[0]
        assert block.head_size == 16


def test_a_width_that_the_head_size_does_not_divide_is_an_input_error() -> None:
    with pytest.raises(InputError) as caught:
        gpt(width=40, head_size=32)
    assert str(caught.value) == "width 40 is not a multiple of head_size 32"
    assert caught.value.hint == "the nearest widths are 32 and 64"
    with pytest.raises(InputError) as caught:
        gpt(width=8, head_size=32)
    assert caught.value.hint == "the nearest width is 32"
    with pytest.raises(InputError, match="width 20 is not a multiple of head_size 8"):
        lanes([spec("adamw", "gpt", width=20)])


def test_an_odd_head_size_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"^model.head_size: got 3, needs an even number$"):
        gpt(width=9, head_size=3)


def test_a_model_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        model = gpt(width=65536, n_layer=48)
    assert isinstance(model, GPT)
    assert sum(p.numel() for p in model.parameters()) > 2e12


@pytest.mark.parametrize("model", MODELS)
def test_the_registry_knows_every_field_of_a_model(model: str) -> None:
    assert registry.load("model", model) in (gpt, mlp)
    assert "sqrt2" in registry.describe("model", model).defaults


def test_made_up_text_can_be_learned() -> None:
    record = records([spec("adamw_mup", "gpt", steps=150, batch=16, log2_lr=-5.0)], tokens())[0]
    assert record.loss < 0.75 * math.log(61)
