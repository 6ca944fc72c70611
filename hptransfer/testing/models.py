"""The contract of a model: a function of the width that gives an nn.Module."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from hptransfer import registry
from hptransfer.datasets import Tokens
from hptransfer.registry import Part
from hptransfer.spec import RunSpec
from hptransfer.testing.common import (
    Clause,
    fails_in_lanes,
    falls,
    require,
    resumes,
    small_spec,
    summary,
    tiny_images,
    tiny_text,
)
from hptransfer.train.build import Data, in_dtype
from hptransfer.train.prepare import Prepared, prepare

_READS = ("data-dependent control flow", "calling .item()")  # what vmap says of Python's reading


def clauses(part: Part, target: str, width: int) -> Iterator[Clause]:
    del target
    data: Data = tiny_text() if "context" in part.defaults else tiny_images()
    adamw = registry.describe("optimizer", "adamw")
    prepared = _prepared(small_spec(adamw, part, width, batch=8), data)
    yield "says what it is in its first line", lambda: summary(part)
    yield "is built at two widths, with a role for every parameter", lambda: _roles(prepared())
    yield "gives logits of the right shape", lambda: _logits(prepared())
    yield "treats the examples of a batch apart", lambda: _apart(prepared())
    if isinstance(data, Tokens):
        yield "sees no token before its time", lambda: _causal(prepared())
    yield "gives every parameter a gradient", lambda: _gradients(prepared())
    yield "runs as lanes (vmap = loop)", lambda: _as_lanes(prepared())
    yield "resumes to the same bytes", lambda: resumes(prepared())
    for name in ("adamw", "scion_unconstrained"):
        own = _prepared(small_spec(registry.describe("optimizer", name), part, width), data)
        yield f"learns under {name}", lambda own=own: falls(own())


def _prepared(spec: RunSpec, data: Data) -> Callable[[], Prepared]:
    """A function that prepares a run on its first call, in the clause that it may break."""
    return cache(partial(prepare, spec, data))


def _built(prepared: Prepared) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return in_dtype(prepared.build(), torch.float64)


def _examples(data: Data, n: int = 4) -> Tensor:
    if isinstance(data, Tokens):
        stream = torch.from_numpy(data.train).long()
        return stream[: n * 8].view(n, 8)
    return torch.from_numpy(data.x_train[:n]).double()


def _roles(prepared: Prepared) -> str:
    counts = Counter(p.role for p in prepared.params)
    return ", ".join(f"{count} {role}" for role, count in counts.items())


def _logits(prepared: Prepared) -> str:
    data = prepared.data
    x = _examples(data)
    expected = (4, 8, data.vocab) if isinstance(data, Tokens) else (4, data.n_classes)
    shape = tuple(_built(prepared)(x).shape)
    require(shape == expected, f"got {shape}, needs {expected}")
    return str(shape)


def _apart(prepared: Prepared) -> None:
    model, x = _built(prepared), _examples(prepared.data)
    difference = (model(x)[:1] - model(x[:1])).abs().max().item()
    require(difference < 1e-9, f"an example alone gives logits that differ by {difference:.1e}")


def _causal(prepared: Prepared) -> None:
    model, x = _built(prepared), _examples(prepared.data)
    later = x.clone()
    later[:, 5:] = 0
    difference = (model(x)[:, :5] - model(later)[:, :5]).abs().max().item()
    require(difference < 1e-9, f"later tokens change earlier logits by {difference:.1e}")


def _gradients(prepared: Prepared) -> None:
    model, x = _built(prepared), _examples(prepared.data)
    logits = model(x)
    logits.square().sum().backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, p in trained:
        require(p.grad is not None, f"{name} takes no part in the logits")


def _as_lanes(prepared: Prepared) -> str | None:
    if why := fails_in_lanes(prepared):
        # An operation without a batching rule is torch's matter, Python's reading is the model's.
        reads = any(part in why for part in _READS)
        require(not reads, f"Python reads a value, where torch.where would not ({why})")
        return f"trains one run at a time, for several lanes fail ({why})"
    model, x = _built(prepared), _examples(prepared.data)
    one = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    two = {name: torch.stack([p, 1.1 * p]) for name, p in one.items()}
    both = vmap(lambda weights: functional_call(model, weights, (x,)))(two)
    for i, scale in enumerate((1.0, 1.1)):
        alone = functional_call(model, {n: scale * p for n, p in one.items()}, (x,))
        difference = (both[i] - alone).abs().max().item()
        require(difference < 1e-9, f"lane {i} differs by {difference:.1e}")
    return None
