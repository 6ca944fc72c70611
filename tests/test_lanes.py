"""Several runs as lanes: each equals a single run, and none touches another."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hptransfer.datasets import Tokens, spread
from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.train.groups import GROUP_ELEMENTS, GROUP_LEAST, separate
from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import prepare
from hptransfer.train.schedule import lr_factor
from units import (
    CONTEXT,
    MODELS,
    OPTIMIZERS,
    PAIRS,
    VOCAB,
    digits,
    lanes,
    octaves_apart,
    spec,
    stepped,
    tokens,
    weights,
)


def outcome(unit: list[RunSpec], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Training losses (lanes, steps) and held-out losses (lanes,)."""
    running = stepped(unit, dtype=dtype)
    running.read_out()
    return running.losses, running.evaluate()


@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 7, 0)], ids=["one seed", "mixed seeds"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lanes_equal_single_runs(optimizer: str, model: str, seeds: tuple[int, ...]) -> None:
    unit = octaves_apart(spec(optimizer, model, batch=16, clip=0.5), seeds)
    together = stepped(unit, dtype=torch.float64)
    singles = [stepped([run], dtype=torch.float64) for run in unit]
    for lane, alone in enumerate(singles):
        # float32 losses
        torch.testing.assert_close(together.losses[lane], alone.losses[0], rtol=1e-6, atol=0)
        for name, w in weights(alone).items():
            torch.testing.assert_close(weights(together, lane)[name], w, rtol=0, atol=1e-9)
    for running in (together, *singles):
        running.read_out()
    heldout = together.evaluate()
    for lane, alone in enumerate(singles):
        torch.testing.assert_close(heldout[lane], alone.evaluate()[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lanes_equal_single_runs_in_float32(optimizer: str, model: str) -> None:
    unit = octaves_apart(spec(optimizer, model, batch=32, steps=4), (0, 1))
    losses, heldout = outcome(unit)
    for lane, run in enumerate(unit):
        alone_losses, alone_heldout = outcome([run])
        torch.testing.assert_close(losses[lane], alone_losses[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(heldout[lane], alone_heldout[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "key", "values"),
    [
        ("adamw", "weight_decay", (0.0, 5.0)),
        ("adamw", "beta2", (0.9, 0.99)),
        ("adamw", "init_std", (0.02, 0.2)),
        ("muon", "beta", (0.5, 0.95)),
        ("muon", "aux_lr", (2.0**-9, 2.0**-6)),
        ("scion", "radius_hidden", (1.0, 9.0)),
        ("scion_unconstrained", "beta", (0.0, 0.95)),
        ("transported_scion", "transport", (0.0, 1.0)),
    ],
)
def test_a_real_hyperparameter_may_differ_by_lane(
    optimizer: str, key: str, values: tuple[float, float]
) -> None:
    unit = [spec(optimizer, "mlp", batch=16, hp={key: value}) for value in values]
    losses, heldout = outcome(unit, dtype=torch.float64)
    for lane, run in enumerate(unit):
        alone_losses, alone_heldout = outcome([run], dtype=torch.float64)
        torch.testing.assert_close(losses[lane], alone_losses[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(heldout[lane], alone_heldout[0], rtol=0, atol=1e-9)
    assert not torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 7, 9)], ids=["one seed", "mixed seeds"])
@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_a_diverging_lane_leaves_the_others_untouched_bit_for_bit(
    optimizer: str, model: str, seeds: tuple[int, ...]
) -> None:
    calm = octaves_apart(spec(optimizer, model, clip=1.0), seeds)
    wild = [calm[0], calm[1].point(120.0, calm[1].seed), calm[2]]
    running = stepped(wild)
    for group in running.groups:
        group.w[:, 1] = torch.nan  # one evaluation sees the worst point of any method
    running.read_out()
    sick = running.evaluate()
    losses, healthy = outcome(calm)
    for lane in (0, 2):
        assert torch.equal(running.losses[lane], losses[lane])
        assert torch.equal(sick[lane], healthy[lane])
    assert not sick[1].isfinite()
    assert not torch.equal(running.losses[1], losses[1])


def test_a_lane_that_overflows_mid_run_leaves_the_others_untouched_bit_for_bit() -> None:
    calm = octaves_apart(spec("adamw", "gpt"))
    wild = [calm[0], calm[1].point(120.0, 0), calm[2]]
    sick, healthy = stepped(wild), stepped(calm)
    assert sick.finite(5).tolist() == [True, False, True]
    assert sick.finite(0).tolist() == [True, True, True]
    for lane in (0, 2):
        assert torch.equal(sick.losses[lane], healthy.losses[lane])
        for name, w in weights(healthy, lane).items():
            assert torch.equal(weights(sick, lane)[name], w)


@pytest.mark.parametrize(("optimizer", "model"), PAIRS)
def test_no_operation_falls_back_to_a_loop_over_lanes(optimizer: str, model: str) -> None:
    # torch's stub leaves it out
    switch = torch._C._functorch._set_vmap_fallback_warning_enabled  # pyright: ignore[reportAttributeAccessIssue]
    switch(True)  # a warning would be an error
    try:
        outcome(octaves_apart(spec(optimizer, model, steps=2, clip=1.0), (0, 1, 2)))
        outcome(octaves_apart(spec(optimizer, model, steps=1, precision="bfloat16")))
    finally:
        switch(False)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_micro_batches_equal_the_full_batch(model: str, n: int) -> None:
    for seeds in ((0, 0), (0, 3)):
        unit = octaves_apart(spec("adamw", model, batch=6), seeds)[:n]
        full = stepped(unit, dtype=torch.float64)
        for size in (1, 4, 100):  # 4 does not divide 6
            parts = stepped(unit, dtype=torch.float64, micro_batch=size)
            torch.testing.assert_close(parts.losses, full.losses, rtol=1e-6, atol=0)
            for lane in range(n):
                for name, w in weights(full, lane).items():
                    torch.testing.assert_close(weights(parts, lane)[name], w, rtol=0, atol=1e-9)
            torch.testing.assert_close(parts.evaluate(), full.evaluate(), rtol=0, atol=1e-9)


def test_gradients_that_share_memory_are_parted() -> None:
    a, b = torch.zeros(6, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    ((a.view(2, 3) + b.view(2, 3)) * torch.arange(6.0).view(2, 3)).sum().backward()
    assert a.grad is not None and b.grad is not None
    assert a.grad.data_ptr() == b.grad.data_ptr(), "torch gives both the gradient of the sum"
    separate([a, b])
    a.grad.zero_()
    assert b.grad.flatten().tolist() == list(range(6))


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("linear", 0.0, [1, 0.75, 0.5, 0.25, 0]),
        ("linear", 0.5, [0.5, 1, 1, 0.5, 0]),
        ("constant", 0.0, [1, 1, 1, 1, 1]),
        ("constant", 0.5, [0.5, 1, 1, 1, 1]),
        ("cosine", 0.0, [1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5, 0]),
        ("linear", 1.0, [0.25, 0.5, 0.75, 1, 0]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    schedule: str, warmup: float, expected: list[float]
) -> None:
    run = spec(steps=4, schedule=schedule, warmup=warmup)
    assert [lr_factor(run, t) for t in range(5)] == pytest.approx(expected, abs=1e-15)


def test_a_linear_decay_ends_its_last_step_at_one_over_the_steps() -> None:
    run = spec(steps=100, schedule="linear")
    assert lr_factor(run, 0) == 1.0
    assert lr_factor(run, 99) == pytest.approx(0.01)
    assert lr_factor(run, 100) == 0.0


@pytest.mark.parametrize("model", MODELS)
def test_training_batches_are_a_pure_function_of_seed_and_step(model: str) -> None:
    one = spec("adamw", model)
    alone, other = lanes([one]).batches, lanes([one.point(-3.0, 5)]).batches
    both = lanes([one, one.point(-3.0, 5)]).batches
    for t in (3, 0, 3):
        x, y, shared = alone.train(t)
        x5, y5, _ = other.train(t)
        assert shared
        stacked_x, stacked_y, shared = both.train(t)
        assert not shared
        assert torch.equal(stacked_x, torch.stack([x, x5]))
        assert torch.equal(stacked_y, torch.stack([y, y5]))
        assert not torch.equal(x, x5)
    assert not torch.equal(alone.train(0)[0], alone.train(1)[0])


@pytest.mark.parametrize("model", MODELS)
def test_every_seed_is_evaluated_on_the_same_batches(model: str) -> None:
    one = spec("adamw", model)
    alone, other = lanes([one]).batches, lanes([one.point(-3.0, 1005)]).batches
    for mine, theirs in zip(alone.heldout(6, 4), other.heldout(6, 4), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_every_held_out_image_is_evaluated_once(most: int) -> None:
    batches = lanes([spec("adamw", "mlp")]).batches
    count = len(digits().y_heldout)
    seen = [y for _, y in batches.heldout(count, most)]
    assert max(len(y) for y in seen) <= most
    assert torch.equal(torch.cat(seen), torch.from_numpy(digits().y_heldout))


def test_windows_of_held_out_text_do_not_overlap() -> None:
    run = spec("adamw", "gpt")
    count = tokens().heldout_examples(run.model["context"])
    x, y = (torch.cat(part) for part in zip(*lanes([run]).batches.heldout(count, 8), strict=True))
    assert len(x) == count
    text = torch.from_numpy(tokens().heldout)
    at = spread(count, len(text) - run.model["context"])
    assert (np.diff(at) >= run.model["context"]).all()
    for start, window, after in zip(at, x, y, strict=True):
        both = text[start : start + run.model["context"] + 1].long()
        assert torch.equal(window, both[:-1])
        assert torch.equal(after, both[1:])


def test_the_loss_is_the_same_however_many_examples_are_evaluated_at_once() -> None:
    run = spec("adamw", "gpt", eval_examples=10, batch=8)
    whole, parts = (lanes([run], micro_batch=n).evaluate() for n in (8, 3))
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=0)


def test_more_examples_than_are_held_out_are_an_input_error() -> None:
    run = spec("adamw", "mlp", eval_examples=10**6)
    with pytest.raises(InputError, match="eval_examples: got 1000000, the held-out part holds"):
        lanes([run]).evaluate()


def test_evaluation_reads_the_held_out_part_alone() -> None:
    data = tokens()
    shifted = replace(data, train=(data.train + 1) % VOCAB)
    run = spec("adamw", "gpt")
    a, b = (lanes([run], part) for part in (data, shifted))
    assert torch.equal(a.evaluate(), b.evaluate())
    a.gradients(0)
    b.gradients(0)
    assert a.losses[0, 0] != b.losses[0, 0]


def test_a_target_is_the_token_after_its_input() -> None:
    counting = np.arange(200, dtype=np.uint8)
    data = Tokens("counting", counting, counting, 200, "0" * 64)
    x, y, _ = lanes([spec("adamw", "gpt")], data).batches.train(0)
    assert x.shape == y.shape == (4, CONTEXT)
    assert torch.equal(y, x + 1)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_tokens_of_16_bits_are_read(device: str) -> None:
    counting = (np.arange(3000) % 1000).astype(np.uint16)
    data = Tokens("wide", counting, counting, 1000, "0" * 64)
    running = Lanes([spec("adamw", "gpt")], data, torch.device(device))
    running.gradients(0)
    assert running.losses[0, 0].item() == pytest.approx(math.log(1000), rel=0.05)


def test_weights_depend_on_seed_and_name_alone() -> None:
    a = spec("adamw", "gpt")
    unit = [a, a.point(-1.0, 0), a.point(-8.0, 4)]
    together = lanes(unit)
    for lane, run in enumerate(unit):
        alone = weights(lanes([run]))
        assert all(torch.equal(w, alone[name]) for name, w in weights(together, lane).items())
    same, other = weights(together, 0), weights(together, 2)
    assert all(torch.equal(w, weights(together, 1)[name]) for name, w in same.items())
    assert not any(torch.equal(w, other[name]) for name, w in same.items())
    deeper = weights(lanes([spec("adamw", "gpt", model_fields={"n_layer": 2})]))
    assert all(torch.equal(w, deeper[name]) for name, w in same.items())
    drawn = [w.flatten()[:8] for w in same.values()]
    assert len({tuple(w.tolist()) for w in drawn}) == len(drawn)


def test_large_groups_are_split_without_changing_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = octaves_apart(spec("scion", "gpt", batch=16), (0, 1))
    whole = stepped(unit, dtype=torch.float64)
    monkeypatch.setitem(GROUP_ELEMENTS, "cpu", 1)
    monkeypatch.setitem(GROUP_LEAST, "cpu", 1)
    split = stepped(unit, dtype=torch.float64)
    assert all(len(group.names) == 1 for group in split.groups)
    assert len(whole.groups) < len(split.groups)
    for lane in range(2):
        for name, w in weights(whole, lane).items():
            torch.testing.assert_close(weights(split, lane)[name], w, rtol=0, atol=1e-9)


def test_parameters_carry_their_role_and_their_shape_at_the_base_width() -> None:
    params = {p.name: p for p in prepare(spec("adamw", "gpt"), tokens()).params}
    assert {p.role for p in params.values()} == {"input", "hidden", "output"}
    embedding, down = params["embedding.weight"], params["blocks.0.down.weight"]
    assert embedding.embedding and not down.embedding
    assert (embedding.d_out, embedding.d_in, embedding.m) == (16, VOCAB, 1.0)
    assert (down.shape, down.base_shape, down.m) == ((16, 64), (8, 32), 2.0)
    assert params["head.weight"].m == 2.0
    first = prepare(spec("adamw", "mlp"), digits()).params[0]
    assert (first.role, first.shape, first.m) == ("input", (16, 16), 1.0)


def test_a_model_trains_in_bfloat16_and_keeps_float32_weights() -> None:
    for model in MODELS:
        for n in (1, 2):
            unit = octaves_apart(
                spec("adamw_mup", model, steps=30, batch=16, precision="bfloat16", log2_lr=-5.0)
            )[:n]
            running = stepped(unit)
            assert all(group.w.dtype == torch.float32 for group in running.groups)
            assert running.losses.isfinite().all()
            assert (running.losses[:, -1] < running.losses[:, 0] - 0.1).all()
            exact = stepped([replace(run, precision="float32") for run in unit])
            difference = (running.losses - exact.losses).abs().max()
            assert 0 < difference < 0.1


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_text_shorter_than_the_context_is_an_input_error(part: str) -> None:
    data = tokens()
    short = replace(data, **{part: getattr(data, part)[:CONTEXT]})
    with pytest.raises(InputError) as caught:
        lanes([spec("adamw", "gpt")], short)
    assert str(caught.value) == (
        f"data 'made_up': its {part} part has 8 tokens, needs more than the context of 8"
    )
    assert caught.value.hint == "a shorter model.context, or more data"
    enough = replace(data, **{part: getattr(data, part)[: CONTEXT + 1]})
    lanes([spec("adamw", "gpt")], enough).gradients(0)
