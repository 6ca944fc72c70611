"""Whole runs against a plain training loop, 50 steps in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hptransfer.datasets import offsets
from hptransfer.spec import Param, RunSpec
from hptransfer.train.build import model_factory
from hptransfer.train.schedule import lr_factor
from units import CONTEXT, data_for, digits, lanes, spec, stepped, tokens, weights


def batch_of(run: RunSpec, t: int) -> tuple[Tensor, Tensor]:
    """The training batch of a step, straight from the data."""
    if run.model["name"] == "mlp":
        data = digits()
        chosen = offsets(run.seed, t, run.batch, len(data.y_train))
        return torch.from_numpy(data.x_train[chosen]), torch.from_numpy(data.y_train[chosen])
    stream = torch.from_numpy(tokens().train).long()
    begins = offsets(run.seed, t, run.batch, len(stream) - CONTEXT)
    windows = torch.stack([stream[b : b + CONTEXT + 1] for b in begins.tolist()])
    return windows[:, :-1], windows[:, 1:]


def plain_gradients(run: RunSpec, model: torch.nn.Module, t: int) -> float:
    """Gradients of step t by an ordinary backward pass, into `.grad`."""
    model.zero_grad()
    x, y = batch_of(run, t)
    x = x.double() if x.is_floating_point() else x
    loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
    loss.backward()
    return loss.item()


def plain_model(run: RunSpec) -> torch.nn.Module:
    model = model_factory(run, data_for(run.model["name"]))(run.width).double()
    model.load_state_dict(weights(lanes([run], dtype=torch.float64)))
    return model


@pytest.mark.parametrize("model", ["gpt", "mlp"])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_a_run_with_adamw_follows_torch_for_50_steps(model: str, clip: float) -> None:
    run = spec("adamw", model, steps=50, warmup=0.2, clip=clip, hp={"weight_decay": 0.5})
    ours = stepped([run], dtype=torch.float64)
    plain = plain_model(run)
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.5
    )
    for t in range(run.steps):
        optimizer.param_groups[0]["lr"] = run.lr * lr_factor(run, t)
        loss = plain_gradients(run, plain, t)
        # Lanes keeps float32 losses; the weights below are compared in float64
        assert ours.losses[0, t].item() == pytest.approx(loss, rel=1e-5)
        if clip:
            # torch divides by norm + 1e-6; the norm is near 1 here
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
        optimizer.step()
    end = weights(ours)
    for name, w in plain.named_parameters():
        torch.testing.assert_close(end[name], w.detach(), rtol=0, atol=1e-5 if clip else 1e-11)


@pytest.mark.parametrize("optimizer", ["scion", "scion_unconstrained"])
@pytest.mark.parametrize("model", ["gpt", "mlp"])
def test_a_run_with_scion_follows_the_papers_loop_for_50_steps(optimizer: str, model: str) -> None:
    run = spec(optimizer, model, steps=50, batch=32, hp={"polar": "svd"}, log2_lr=-6.0)
    ours = stepped([run], dtype=torch.float64)
    plain = plain_model(run)
    params = {name: g.p for g in ours.groups for name in g.names}
    radius = {"input": 1.0, "hidden": 3.0, "output": 10.0}
    d: dict[str, Tensor] = {}
    for t in range(run.steps):
        plain_gradients(run, plain, t)
        gamma = run.lr * lr_factor(run, t)
        with torch.no_grad():
            for name, x in plain.named_parameters():
                assert x.grad is not None
                d[name] = 0.1 * x.grad + 0.9 * d.get(name, torch.zeros_like(x))
                if optimizer == "scion":
                    x.mul_(1 - gamma)
                p = params[name]
                x.sub_(gamma * radius[p.role] * reference_direction(p, d[name]))
    end = weights(ours)
    for name, w in plain.named_parameters():
        torch.testing.assert_close(end[name], w.detach(), rtol=0, atol=1e-7)


def reference_direction(p: Param, m: Tensor) -> Tensor:
    """D(M) of ColNorm -> Spectral -> Sign, written out from the paper's tables."""
    if p.embedding:
        return p.shape[1] ** 0.5 * m / m.norm(dim=1, keepdim=True).clamp(min=1e-300)
    if p.role == "output":
        return m.sign() / p.shape[1]
    u, values, vh = torch.linalg.svd(m, full_matrices=False)
    u = u * (values > 1e-10 * values[0])  # a dead unit has a zero row
    factor = (p.shape[0] / p.shape[1]) ** 0.5
    return (max(1.0, factor) if p.role == "input" else factor) * u @ vh
