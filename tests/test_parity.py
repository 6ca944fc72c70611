"""The same gradients into our rules and into independent implementations, 50 to 60 steps."""

from collections.abc import Callable, Iterable

import pytest
import pytorch_optimizer as other
import torch
from pytorch_optimizer.optimizer.scion import Col, LMONorm
from torch import Tensor

from hptransfer import registry
from hptransfer.geometry.norms import polar
from hptransfer.optimizers.rules import Rule, init_state
from hptransfer.optimizers.scion import scion_unconstrained
from hptransfer.spec import Param
from units import (
    DENSE,
    EMBEDDING,
    HIDDEN,
    OUTPUT,
    VECTOR,
    at,
    random,
)

CONV = Param("c", "hidden", (6, 4, 3, 3), (3, 2, 3, 3), conv=True)
CONV1D = Param("d", "hidden", (6, 4, 5), (3, 2, 5), conv=True)
TIED = Param("t", "output", (7, 8), (7, 2), tied=True)
ALL = (EMBEDDING, DENSE, HIDDEN, OUTPUT, VECTOR, CONV)
STEPS = 60

Make = Callable[[dict[str, torch.nn.Parameter]], torch.optim.Optimizer]


def gradient(p: Param, w: Tensor, t: int) -> Tensor:
    """Gradient of a quadratic with a curvature per entry, and noise, so that momentum matters."""
    curvature = random(*p.shape, seed=1).abs()
    noise = random(*p.shape, seed=100 + t).to(w.dtype)
    return curvature.to(w.dtype) * (w - random(*p.shape, seed=2).to(w.dtype)) + 0.5 * noise


def distances(
    name: str,
    params: Iterable[Param],
    make: Make,
    peak: float = 0.05,
    dtype: torch.dtype = torch.float64,
    carried: bool = False,
    **hp: object,
) -> dict[str, float]:
    """Give both the gradients at our iterate; largest difference of weights over distance moved.

    The lr decays linearly; each group of the other optimizer has `factor` times that lr. `carried`:
    both keep their momentum in the gradient buffer.
    """
    rules: dict[str, Rule] = {}
    start, ours, states, described = {}, {}, {}, {}
    factory = registry.load("optimizer", name)
    for p in params:
        rules[p.name] = factory(p, **hp)
        described[p.name] = p
        w = rules[p.name].init_weight(torch.Generator().manual_seed(0)).to(dtype)
        start[p.name], ours[p.name] = w, w[None]
        states[p.name] = init_state(rules[p.name], w[None])
    theirs = {key: torch.nn.Parameter(w.clone()) for key, w in start.items()}
    optimizer = make(theirs)
    for t in range(STEPS):
        lr = peak * (1 - t / STEPS)
        for key, rule in rules.items():
            g = gradient(described[key], ours[key][0], t)
            grad = theirs[key].grad
            theirs[key].grad = g + grad if carried and grad is not None else g.clone()
            buffer = states[key].pop("gradient", torch.zeros_like(g))
            ours[key], states[key] = rule.update(
                g[None] + buffer, states[key], ours[key], at(t, lr, lr_peak=peak)
            )
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)
        optimizer.step()
    return {
        key: ((w[0] - theirs[key].detach()).norm() / (w[0] - start[key]).norm()).item()
        for key, w in ours.items()
    }


def every(params: dict[str, torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    return list(params.values())


# torch.optim


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_torch_adamw(decay: float) -> None:
    found = distances(
        "adamw",
        ALL,
        lambda w: torch.optim.AdamW(
            every(w), lr=1.0, betas=(0.8, 0.95), eps=1e-8, weight_decay=decay
        ),
        beta1=0.8,
        weight_decay=decay,
    )
    assert max(found.values()) < 1e-12


def test_adamw_mup_is_torch_adamw_with_the_multipliers_of_yangs_table() -> None:
    """m = 4, or 2 for the convolution; decay times m, because torch multiplies it by the lr."""

    def make(w: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
        table = {"e": 1.0, "i": 1.0, "v": 1.0, "h": 4.0, "o": 4.0, "c": 2.0}
        groups = [
            {
                "params": [w[key]],
                "factor": 1 / m,
                "weight_decay": 0.1 * m,
                "eps": 1e-3 / m if key in "hc" else 1e-3,
            }
            for key, m in table.items()
        ]
        return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))

    assert max(distances("adamw_mup", ALL, make, eps=1e-3, weight_decay=0.1).values()) < 1e-12


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.0, True), (0.9, False), (0.9, True)]
)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_sgd_is_torch_sgd(momentum: float, nesterov: bool, decay: float) -> None:
    """Torch refuses Nesterov without momentum; there ours is plain SGD."""
    found = distances(
        "sgd",
        ALL,
        lambda w: torch.optim.SGD(
            every(w),
            lr=1.0,
            momentum=momentum,
            nesterov=nesterov and momentum > 0,
            weight_decay=decay,
        ),
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=decay,
    )
    assert max(found.values()) < 1e-12


@pytest.mark.parametrize("scaling", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("same_polar", [True, False])
def test_muon_is_torch_muon(
    scaling: str, nesterov: bool, same_polar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch casts to bfloat16 before it divides by the norm, we cast after; a rounding is 2^-9.

    The five steps, whose slope at 0 is 3.4 each, carry it to about a percent of the way. With the
    same exact polar factor in both the rest must agree to rounding. float32, because with bfloat16
    weights and without Nesterov torch overwrites its momentum.
    """
    if same_polar:
        monkeypatch.setattr(
            "torch.optim._muon._zeropower_via_newtonschulz", lambda g, *_: polar(g, "svd")
        )
    wide = Param("w", "hidden", (8, 12), (2, 3))
    found = distances(
        "muon",
        (HIDDEN, wide),
        lambda w: torch.optim.Muon(
            every(w),
            lr=1.0,
            weight_decay=0.1,
            momentum=0.95,
            nesterov=nesterov,
            adjust_lr_fn=scaling,
        ),
        dtype=torch.float64 if same_polar else torch.float32,
        polar="svd" if same_polar else "jordan",
        weight_decay=0.1,
        scaling=scaling,
        nesterov=nesterov,
    )
    assert max(found.values()) < (1e-12 if same_polar else 0.03)


# pytorch-optimizer


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lion_is_the_other_lion(decay: float) -> None:
    found = distances(
        "lion",
        ALL,
        lambda w: other.Lion(every(w), lr=1.0, betas=(0.9, 0.99), weight_decay=decay),
        weight_decay=decay,
    )
    assert max(found.values()) < 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_signsgd_is_the_other_signsgd(beta: float) -> None:
    found = distances(
        "signsgd",
        ALL,
        lambda w: other.SignSGD(every(w), lr=1.0, momentum=beta, weight_decay=0.3),
        beta=beta,
        weight_decay=0.3,
    )
    assert max(found.values()) < 1e-12


@pytest.mark.parametrize("adjusted", [False, True])
def test_muon_is_the_other_muon_on_matrices_and_convolutions(
    adjusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pytorch_optimizer.optimizer.muon.base.zero_power_via_newton_schulz_5",
        lambda g, **_: polar(g, "svd"),
    )
    found = distances(
        "muon",
        (HIDDEN, CONV),
        lambda w: other.Muon(
            [{"params": [p], "use_muon": True} for p in every(w)],
            weight_decay=0.1,
            use_adjusted_lr=adjusted,
        ),
        polar="svd",
        weight_decay=0.1,
        scaling="match_rms_adamw" if adjusted else "original",
    )
    assert max(found.values()) < 1e-12


# Their norm, its options, and the radius, for each of our parameters
SCION_TABLES: dict[str, dict[str, tuple[Param, LMONorm, dict[str, bool], float]]] = {
    "default": {
        "e": (EMBEDDING, LMONorm.COL, {"transpose": True}, 1.0),
        "i": (DENSE, LMONorm.SPECTRAL, {"max_scale": True}, 1.0),
        "h": (HIDDEN, LMONorm.SPECTRAL, {}, 3.0),
        "c": (CONV, LMONorm.SPECTRALCONV, {}, 3.0),
        "d": (CONV1D, LMONorm.SPECTRALCONV, {}, 3.0),
        "o": (OUTPUT, LMONorm.SIGN, {}, 10.0),
        "v": (VECTOR, LMONorm.BIAS, {}, 3.0),
    },
    "sign": {
        "e": (EMBEDDING, LMONorm.SIGN, {"normalize": False}, 1.0),
        "i": (DENSE, LMONorm.SIGN, {}, 1.0),
        "h": (HIDDEN, LMONorm.SIGN, {}, 3.0),
        "t": (TIED, LMONorm.SIGN, {}, 10.0),
    },
    "colnorm": {
        "e": (EMBEDDING, LMONorm.COL, {"transpose": True}, 1.0),
        "h": (HIDDEN, LMONorm.COL, {"normalized": True}, 3.0),
        "o": (OUTPUT, LMONorm.COL, {"normalized": True}, 10.0),
    },
    "rownorm": {
        "e": (EMBEDDING, LMONorm.ROW, {"normalized": False, "transpose": True}, 1.0),
        "h": (HIDDEN, LMONorm.ROW, {"normalized": True}, 3.0),
        "o": (OUTPUT, LMONorm.ROW, {"normalized": True}, 10.0),
    },
}


@pytest.mark.parametrize(
    ("table", "same_polar"), [*((name, True) for name in SCION_TABLES), ("default", False)]
)
@pytest.mark.parametrize("name", ["scion", "scion_unconstrained", "scion_light"])
def test_scion_and_scion_light_are_the_other_ones(
    table: str, name: str, same_polar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Light in both forms; the tolerance allows for their eps, see the next test."""
    if same_polar:
        monkeypatch.setattr(
            "pytorch_optimizer.optimizer.scion.zero_power_via_newton_schulz_5",
            lambda g, *_, **__: polar(g, "svd"),
        )
    light = name == "scion_light"
    cls = other.SCIONLight if light else other.SCION
    entries = SCION_TABLES[table]
    norms = {} if table == "default" else {"input": table, "hidden": table, "output": table}
    for constrained in (False, True) if light else (name == "scion",):

        def make(
            w: dict[str, torch.nn.Parameter], constrained: bool = constrained
        ) -> torch.optim.Optimizer:
            groups = [
                {"params": [w[key]], "norm_type": norm, "norm_kwargs": kwargs, "scale": radius}
                for key, (_, norm, kwargs, radius) in entries.items()
            ]
            return cls(groups, lr=1.0, momentum=0.1, constraint=constrained)

        found = distances(
            name,
            [p for p, *_ in entries.values()],
            make,
            dtype=torch.float64 if same_polar else torch.float32,
            carried=light,
            polar="svd" if same_polar else "jordan",
            **norms,
            **({"constrained": constrained} if light else {}),
        )
        assert max(found.values()) < (1e-6 if same_polar else 0.03)


def test_their_absolute_eps_shrinks_the_steps_of_small_gradients_and_ours_is_relative() -> None:
    """They add 1e-8 to the norm of a token: no longer a steepest direction, and with a smaller loss
    another run. The norm's unit step is right, so ours divides by the norm alone."""
    g = 1e-8 * random(*EMBEDDING.shape)
    theirs = Col(transpose=True).lmo(g).square().mean(1).sqrt()
    assert (theirs < 0.6).all()
    ours = scion_unconstrained(EMBEDDING).norm.lmo(g.mT).square().mean(0).sqrt()
    torch.testing.assert_close(ours, torch.ones(7).double())
