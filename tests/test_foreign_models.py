"""Models as people bring them: each trains, or is refused by name with what to do."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from foreign import CPU, address, by_name, prepared_of, trained
from hptransfer import optim
from hptransfer.errors import InputError, Note
from hptransfer.optimizers.rules import as_matrix, from_matrix, matrix_shape
from hptransfer.spec import Param
from hptransfer.testing import kind_of, validate
from hptransfer.train.build import blocks, params
from hptransfer.train.coords import probe
from hptransfer.train.gradient_noise import _Gathered
from hptransfer.train.lanes import Lanes

TRAINED = {  # name -> whether several of its lanes train together
    "tied_gpt": True,
    "functionally_tied_said": True,
    "one_hot": True,
    "encoder_layer": None,  # torch warns of its speed under vmap, which fails a test
    "lstm": False,
    "gru": False,
    "moe": False,
    "dense_moe": True,
    "gqa_said": None,
    "vit": None,
    "albert": True,
    "t5": True,
    "conv1d": True,
    "frozen": True,
    "rotary": True,
    "reads_a_number": True,
    "OfWidth": True,
}
REFUSED = {
    "functionally_tied": (r"token\.weight: .* the model multiplies by it too", "'output'"),
    "encoder_layer_as_it_comes": (r"parts\.0\.layer\.self_attn: .* drops units", "dropout = 0"),
    "moe_transposed": (r"parts\.1\.up: the model sums over dimension 1", "transpose it"),
    "dense_transposed": (r"parts\.1\.up: the model sums over dimension 1", "transpose it"),
    "gqa": (r"parts\.0\.qkv\.weight: fused by its name", "layers of their own"),
    "batchnorm": ("1: BatchNorm2d keeps running statistics", "GroupNorm"),
    "hf_conv1d": (r"parts\.0: Conv1D stores its weight as \(d_in, d_out\)", "nn.Linear"),
    "transposed": (r"parts\.0\.w: the model sums over dimension 0", "transpose it"),
    "complex_weights": (r"parts\.0\.w: a complex parameter", "two real parameters"),
    "sparse": ("token: its gradients are sparse", "sparse = False"),
    "pair": (r"it gave a tuple, needs logits \(2, 8, 61\)", "the logits alone"),
    "raises_in_forward": (
        r"its forward pass failed .*zoo_models\.py:\d+: RuntimeError",
        "validate",
    ),
    "noisy": ("draws random numbers", "dropout = 0"),
    "counting": (r"parts\.1\.seen: the forward pass changes this buffer", "state of its own"),
    "GPT": ("a class with 'n_embd' as first argument", "call the first argument `width`"),
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "scion", "torch.optim:SGD"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_foreign_model_trains(name: str, optimizer: str) -> None:
    lr = {"torch.optim:SGD": -3.0, "scion": -7.0}.get(optimizer, -5.0)
    running = trained(prepared_of(name, optimizer, steps=16, log2_lr=lr, schedule="constant"))
    losses = running.losses[0]
    assert losses.isfinite().all()
    assert losses[-4:].mean() < losses[0]


@pytest.mark.parametrize("name", [name for name, maps in TRAINED.items() if maps])
def test_several_lanes_of_a_foreign_model_train_as_one_does(name: str) -> None:
    prepared = prepared_of(name, steps=4)
    alone, together = trained(prepared), trained(prepared, lanes=3, seeds=(0, 1))
    torch.testing.assert_close(together.losses[0], alone.losses[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_no_run_can_train_is_refused_by_name_with_what_to_do(name: str) -> None:
    message, hint = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        prepared_of(name)
    assert hint in caught.value.hint
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["transposed", "pair", "GPT", "noisy"])
def test_validate_refuses_what_a_run_refuses_with_the_same_words(name: str) -> None:
    message, hint = REFUSED[name]
    assert kind_of(address(name)) == "model"
    clause = "is built at two widths, with a role for every parameter"
    [check] = [c for c in validate(address(name)) if c.name == clause]
    assert not check.passed
    assert re.search(message.replace("(2, 8, 61)", ".*"), check.detail)
    assert hint in check.detail


def test_a_function_of_a_number_that_is_not_called_width_is_no_optimizer(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def gpt(n_embd: int, *, vocab: int = 9):\n    'A GPT.'\n")
    with pytest.raises(InputError, match="takes 'n_embd' first") as caught:
        kind_of(f"{tmp_path}/m.py:gpt")
    assert "`width`" in caught.value.hint


def test_sparse_gradients_that_no_module_shows_are_refused_in_a_step() -> None:
    prepared = prepared_of("sparse_by_function")
    with pytest.raises(InputError, match=r"parameter of shape \(61, 32\) is sparse") as caught:
        trained(prepared)
    assert "sparse = False" in caught.value.hint
    model = prepared.build()
    optimizer = optim.optimizer(model, "adamw", lr=0.1, base=prepared.model(16))
    model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    with pytest.raises(InputError, match=r"token\.weight: adamw does not support sparse"):
        optimizer.step()


# Frozen parameters


def test_a_frozen_parameter_keeps_the_constructors_values_in_every_number_of_lanes() -> None:
    prepared = prepared_of("frozen", steps=5, log2_lr=-4.0)
    assert "pos.weight" not in by_name(prepared)
    torch.manual_seed(1)
    alone = trained(prepared)
    torch.manual_seed(2)  # the state of the process decides nothing
    together = trained(prepared, lanes=2, seeds=(0, 3))
    torch.testing.assert_close(together.losses[0], alone.losses[0], rtol=1e-4, atol=1e-4)
    for running in (alone, together):
        fixed = dict(running.model.named_parameters())
        assert fixed["pos.weight"].square().mean().item() == pytest.approx(0.5)
        assert not fixed["pos.weight"].requires_grad
        assert fixed["features"].std().item() == pytest.approx(1, abs=0.1)
        assert torch.equal(fixed["features"], dict(alone.model.named_parameters())["features"])
        assert torch.equal(
            dict(running.model.named_buffers())["noise"], dict(alone.model.named_buffers())["noise"]
        )


def test_a_torch_optimizer_gets_no_frozen_parameter() -> None:
    prepared = prepared_of("frozen", "torch.optim:AdamW", hp={"weight_decay": 0.5})
    running = trained(prepared)
    assert running.foreign is not None
    count = sum(len(group["params"]) for group in running.foreign.optimizers[0].param_groups)
    assert count == len(prepared.params)
    fixed = dict(running.model.named_parameters())
    assert fixed["pos.weight"].square().mean().item() == pytest.approx(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(fixed["features"], prepared.build().get_parameter("features"))


def test_an_init_in_a_loop_of_ones_own_leaves_frozen_parameters_alone() -> None:
    model, base = (prepared_of("frozen").model(width) for width in (32, 16))
    before = {name: p.clone() for name, p in model.named_parameters()}
    roles = {"features": "hidden"}
    optim.init_(model, "scion", base=base, roles=roles)
    after = dict(model.named_parameters())
    assert torch.equal(after["pos.weight"], before["pos.weight"])
    assert torch.equal(after["features"], before["features"])
    assert not torch.equal(after["token.weight"], before["token.weight"])
    optimizer = optim.optimizer(model, "scion", lr=0.1, base=base, roles=roles)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(after["pos.weight"]) in held, "it may thaw"


def test_a_model_without_a_parameter_that_trains_is_refused() -> None:
    model = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that trains"):
        params(model, nn.Linear(8, 8), nn.Linear(2, 2))


# Stacks of matrices


def test_each_of_the_stacked_experts_is_a_matrix_of_its_own() -> None:
    up = by_name(prepared_of("moe", "muon"))["parts.1.up"]
    assert (up.role, up.stacked, matrix_shape(up)) == ("hidden", 1, (4, 64, 32))
    tensor = torch.randn(2, *up.shape)
    assert torch.equal(from_matrix(up, as_matrix(up, tensor)), tensor)
    assert torch.equal(as_matrix(up, tensor)[1, 2], tensor[1, 2])
    assert (up.d_out, up.d_in, up.m, up.m_out) == (64, 32, 2, 2)
    bias = by_name(prepared_of("moe"))["parts.1.up_bias"]
    assert (bias.role, bias.stacked, bias.d_out) == ("vector", 1, 64)


def test_the_update_of_every_expert_has_equal_singular_values_and_its_own_scale() -> None:
    prepared = prepared_of("dense_moe", "muon", log2_lr=-3.0, schedule="constant")
    running = Lanes([prepared.spec], prepared.data, CPU, prepared=prepared)
    [group] = [g for g in running.groups if g.names == ["parts.1.up"]]
    assert group.w.std().item() == pytest.approx(32**-0.5, rel=0.05)
    running.gradients(0)  # the head starts at zero, so no gradient reaches the experts
    running.update(0)
    before = group.w.clone()
    running.gradients(1)
    running.update(1)
    moved = torch.linalg.svdvals((before - group.w)[0])
    assert moved.shape == (3, 32)
    torch.testing.assert_close(moved, torch.full_like(moved, 2**0.5 / 8), rtol=0.1, atol=0)


class Stack(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(shape))


WRONG_LAYOUTS = {
    "heads": (lambda d: Stack(d // 4, 4, d), "hidden", "leading dimensions", "rows of one matrix"),
    "a kernel": (lambda d: Stack(d, d, 3), "hidden", "leading dimensions", "nn.Conv2d"),
    "two inputs": (lambda d: nn.Bilinear(d, d, d), "hidden", "layout of its own", "nn.Linear"),
    "a transposed kernel": (
        lambda d: nn.ConvTranspose1d(d, 2 * d, 3),
        "hidden",
        "ConvTranspose1d has a layout of its own",
        "nn.Conv1d",
    ),
    "a transposed head": (lambda d: Stack(d, 10), "output", "along its rows", "transpose it"),
    "a transposed input": (lambda d: Stack(10, d), "input", "along its columns", "'embedding'"),
    "a transposed table": (lambda d: Stack(d, 10), "embedding", "last dimension", "transpose it"),
    "a transposed qkv": (lambda d: Stack(d, 3 * d), "qkv", "three square matrices", "transpose it"),
    "a number": (lambda d: Stack(), "gain", "its shape is ()", "torch.ones(1)"),
}


@pytest.mark.parametrize("name", WRONG_LAYOUTS)
def test_a_said_role_that_the_layout_contradicts_is_refused(name: str) -> None:
    make, role, message, hint = WRONG_LAYOUTS[name]
    with torch.device("meta"):
        # 48 rows are three times 16, and not three matrices of 48 columns
        own, wider, base = make(48), make(96), make(24)
    said = {
        key: role if p.ndim != 1 else "bias" for key, p in own.named_parameters() if key != "bias"
    }
    with pytest.raises(InputError) as caught:
        params(own, wider, base, said)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_weight_of_a_layer_that_is_not_its_own_weight_asks_for_its_role() -> None:
    """Under its name a LoRA or a weight norm would be taken for an output layer."""

    def lora(width: int) -> nn.Module:
        layer = nn.Linear(width, width)
        layer.lora_a = nn.Parameter(torch.zeros(4, width))
        return layer

    with pytest.raises(InputError, match="lora_a: a 2-dimensional parameter of Linear") as caught:
        params(lora(8), lora(16), lora(4))
    assert "roles() of the model can say it" in caught.value.hint


def test_stacked_matrices_are_measured_one_under_the_other() -> None:
    p = Param("w", "hidden", (3, 4, 5), (3, 2, 5), stacked=1)
    difference = torch.randn(2, 3, 4, 5)
    gathered = _Gathered(p)
    gathered.add(difference)
    expected = torch.linalg.matrix_norm(difference.reshape(2, 12, 5), ord=2)
    torch.testing.assert_close(gathered.spectral[0], expected, rtol=0.02, atol=0)


# Shared modules, recurrent layers


def test_two_embeddings_of_one_weight_are_no_head() -> None:
    def twins(width: int) -> nn.Module:
        pair = nn.ModuleList([nn.Embedding(9, width), nn.Embedding(9, width)])
        pair[1].weight = pair[0].weight
        return pair

    [p] = params(twins(8), twins(16), twins(4))
    assert (p.role, p.embedding, p.tied) == ("input", True, False)


def test_a_block_at_three_places_is_recomputed_once_per_call() -> None:
    prepared = prepared_of("albert", steps=2)
    plain = trained(prepared)
    again = Lanes([prepared.spec], prepared.data, CPU, prepared=prepared, recompute=True)
    assert len(blocks(again.model)) == 1
    for t in range(2):
        again.gradients(t)
        again.update(t)
    assert torch.equal(again.losses, plain.losses)


def test_a_frozen_layer_is_none_that_the_coordinate_check_watches() -> None:
    prepared = prepared_of("frozen")
    running = Lanes([prepared.spec], prepared.data, CPU, prepared=prepared)
    outputs, _ = probe(running)
    assert "token" in outputs
    assert "pos" not in outputs


def test_a_shared_parameter_is_one_parameter_under_any_of_its_names() -> None:
    found = by_name(prepared_of("t5"))
    assert found["shared.weight"].embedding, "two embeddings are no head"
    assert not any("embed_tokens" in name for name in found)
    assert sum("up.weight" in name for name in by_name(prepared_of("albert"))) == 1
    model, wider = (prepared_of("t5").model(width) for width in (32, 64))
    other = {
        p.name: p for p in params(model, wider, model, {"decoder.embed_tokens.weight": "output"})
    }
    assert other["shared.weight"].tied
    twice = {"shared.weight": "embedding", "encoder.embed_tokens.weight": "output"}
    with pytest.raises(InputError, match="under another name"):
        params(model, wider, model, twice)


def test_a_recurrent_layer_shows_a_matrix_per_gate_and_its_biases() -> None:
    found = by_name(prepared_of("lstm"))
    assert (
        found["parts.0.inner.weight_hh_l0"].parts,
        found["parts.0.inner.weight_hh_l0"].d_out,
    ) == (
        4,
        32,
    )
    assert by_name(prepared_of("gru"))["parts.0.inner.weight_ih_l1"].parts == 3
    bias = found["parts.0.inner.bias_ih_l0"]
    assert (bias.role, bias.gain) == ("vector", False)


def test_the_slope_of_prelu_is_no_gain() -> None:
    with pytest.raises(InputError, match=r"slope of PReLU starts at 0\.25"):
        params(nn.PReLU(8), nn.PReLU(16), nn.PReLU(4))


def test_a_gain_that_its_constructor_starts_elsewhere_is_noted() -> None:
    with pytest.warns(
        Note, match=r"'layer_scale'.* parts\.0\.gamma at 1e-05 in place of 1; a rule"
    ):
        prepared_of("layer_scale")
    prepared_of("layer_scale", "torch.optim:SGD")  # which starts where the constructor does


def test_a_complex_buffer_keeps_its_imaginary_part() -> None:
    running = trained(prepared_of("rotary", steps=1))
    turn = dict(running.model.named_buffers())["turn"]
    assert turn.is_complex()
    assert turn.imag.abs().max() > 0.5
