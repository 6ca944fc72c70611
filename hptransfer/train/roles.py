"""Roles of the parameters of any `nn.Module`: said by its `roles()`, or seen from two widths."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from hptransfer.errors import InputError, suggest
from hptransfer.train import layouts
from hptransfer.train.refused import refuse

SAID = ("input", "embedding", "hidden", "qkv", "output", "vector", "bias", "gain")
FUSED = re.compile(r"(^|[._])(w?qkv|c_attn|in_proj|query_key_value)([._]|$)")
_SAY = "roles() of the model can say it, for instance {{{0!r}: {1!r}}}; allowed: " + ", ".join(SAID)


@dataclass(frozen=True)
class Kind:
    """What `Param` holds of a parameter beside its shapes."""

    role: str
    embedding: bool = False
    conv: bool = False
    gain: bool = False
    tied: bool = False
    parts: int = 1
    stacked: int = 0


@dataclass(frozen=True)
class _Place:
    """A parameter, the modules that own it, its shape, and its shape at another width.

    `wider` is None where the other model lacks it.
    """

    name: str
    owners: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    wider: tuple[int, ...] | None

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def embeds(self) -> bool:
        return any(isinstance(owner, nn.Embedding) for owner in self.owners)


def kinds(
    model: nn.Module, wider: nn.Module, said: Mapping[str, str], *, in_run: bool = True
) -> dict[str, Kind]:
    """Parameter name -> Kind. `wider`: the same model at another width; `said` wins.

    A matrix that grows with the width on both sides is hidden, on its output side alone input, on
    its input side alone output. Linear and convolution weights are (d_out, d_in, ...), embeddings
    (vocab, d). A weight that is embedding and head is an output layer. A parameter that does not
    train has no role. `in_run`: as in `refuse`. Raises InputError, naming the parameter, where the
    widths do not tell, and where the layout is another than its role has.
    """
    refuse(model, in_run=in_run)
    said = _by_first_name(model, said)
    growing = {name: tuple(p.shape) for name, p in wider.named_parameters()}
    modules = dict(model.named_modules(remove_duplicate=False))
    homes: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        homes.setdefault(id(p), []).append(name)
    kind_of: dict[str, Kind] = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        owners = {id(m): m for m in (modules[h.rpartition(".")[0]] for h in homes[id(p)])}
        shape, other = tuple(p.shape), growing.get(name)
        known = other if other is not None and len(other) == len(shape) else None
        place = _Place(name, tuple(owners.values()), shape, known)
        kind_of[name] = _said(place, said[name]) if name in said else _seen(place)
    if not kind_of:
        raise InputError(
            "the model has no parameter that trains", "requires_grad = True on its weights"
        )
    return kind_of


def _by_first_name(model: nn.Module, said: Mapping[str, str]) -> dict[str, str]:
    """What is said, by the first name of each parameter: a shared one has several."""
    first = {id(p): name for name, p in model.named_parameters()}
    every = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    own: dict[str, str] = {}
    for name, role in said.items():
        if name not in every:
            raise InputError(
                f"roles() names {name!r}, which is no parameter",
                suggest(name, every) or f"parameters: {', '.join(first.values())}",
            )
        if own.setdefault(every[name], role) != role:
            raise InputError(
                f"{name}: roles() says {role!r}, and {own[every[name]]!r} under another name",
                "one parameter has one role; a weight that is embedding and head is 'output'",
            )
    return own


def _said(place: _Place, said: str) -> Kind:
    name, shape, owner = place.name, place.shape, place.owners[0]
    if said not in SAID:
        raise InputError(
            f"{name}: roles() says {said!r}, allowed: {', '.join(SAID)}", suggest(said, SAID)
        )
    if said in ("vector", "bias", "gain"):
        stacked = layouts.stacked_vectors(owner, shape)
        if len(shape) - stacked != 1:
            raise _wrong_size(place, said)
        gain = said == "gain" or (said == "vector" and _gains(place))
        return Kind("vector", gain=gain, stacked=stacked)
    if len(shape) < 2:
        raise _wrong_size(place, said)
    if said == "embedding" or (said == "input" and place.embeds):
        layouts.check_table(name, shape, place.wider)
        return Kind("input", embedding=True)
    role = "hidden" if said == "qkv" else said
    tied = said == "output" and place.embeds
    conv = isinstance(owner, layouts.CONVS)
    stacked = 0 if conv else layouts.stacked_matrices(name, role, owner, shape, place.wider)
    if said == "qkv":
        layouts.check_fused(name, shape[stacked:], place.wider and place.wider[stacked:])
        return Kind("hidden", parts=3, stacked=stacked)
    parts = layouts.gates(owner, place.last)
    return Kind(role, conv=conv, tied=tied, parts=parts, stacked=stacked)


def _wrong_size(place: _Place, said: str) -> InputError:
    return InputError(
        f"{place.name}: roles() says {said!r}, but its shape is {place.shape}",
        "one-dimensional parameters are bias or gain, the others are not"
        if place.shape
        else "a number is a vector of one element: nn.Parameter(torch.ones(1))",
    )


def _gains(place: _Place) -> bool:
    """A one-dimensional `weight` scales what a normalisation layer gives."""
    others = (nn.Linear, nn.Embedding, nn.PReLU, *layouts.CONVS)
    return place.last == "weight" and not any(isinstance(o, others) for o in place.owners)


def _seen(place: _Place) -> Kind:
    name, shape, owner = place.name, place.shape, place.owners[0]
    if place.wider is None:
        raise InputError(
            f"{name}: not in the model at another width",
            "widths must share their parameters' names; else " + _SAY.format(name, "hidden"),
        )
    if len(shape) == 1:
        return _seen_vector(place)
    if place.embeds:
        if all(isinstance(each, nn.Embedding) for each in place.owners):
            return Kind("input", embedding=True)
        return Kind("output", tied=True)
    fused = FUSED.search(name) is not None
    if isinstance(owner, nn.MultiheadAttention) and fused:
        return _fused(place)
    if not layouts.is_matrix(owner, place.last):
        raise _unknown(place)
    if fused:
        return _fused(place)
    conv = isinstance(owner, layouts.CONVS)
    rows, columns = layouts.sides(shape, place.wider)
    if conv and owner.groups != 1:
        raise InputError(
            f"{name}: a convolution in {owner.groups} groups mixes no channels across them",
            _SAY.format(name, "hidden" if columns else "input"),
        )
    role = {(True, True): "hidden", (True, False): "input", (False, True): "output"}.get(
        (rows, columns)
    )
    if role is None:
        raise InputError(
            f"{name}: its shape {shape} does not change with the width, so its role does not show",
            _SAY.format(name, "hidden"),
        )
    return Kind(role, conv=conv, parts=layouts.gates(owner, place.last))


def _seen_vector(place: _Place) -> Kind:
    name, owner = place.name, place.owners[0]
    if place.last.startswith("bias") or place.last.endswith("bias"):
        return Kind("vector")
    if isinstance(owner, nn.PReLU):
        raise InputError(
            f"{name}: the slope of PReLU starts at 0.25, and a gain at 1, a bias at 0",
            "roles() of the model can say 'bias', which starts it as ReLU",
        )
    if _gains(place):
        return Kind("vector", gain=True)
    raise InputError(
        f"{name}: a one-dimensional parameter of {type(owner).__name__} may be a gain or a bias",
        _SAY.format(name, "gain"),
    )


def _unknown(place: _Place) -> InputError:
    """What to do about a parameter that has the layout of no known layer."""
    owner, n = place.owners[0], len(place.shape)
    known = "make it part of nn.Linear, nn.Embedding or nn.Conv2d"
    if n == 0:
        hint = "a number is a vector of one element: nn.Parameter(torch.ones(1)), with its role"
    elif layouts.is_of_torch(owner) and n > 2:
        hint = known
    else:
        hint = f"{known}; else " + _SAY.format(place.name, "hidden" if n > 2 else "embedding")
    return InputError(
        f"{place.name}: a {n}-dimensional parameter of {type(owner).__name__}, which no known "
        "layer owns",
        hint,
    )


def _fused(place: _Place) -> Kind:
    """q, k and v in one matrix are three matrices to a spectral norm."""
    if place.shape[0] != 3 * math.prod(place.shape[1:]):
        raise InputError(
            f"{place.name}: fused by its name, but {place.shape} is not three square matrices",
            "make q, k and v layers of their own; else " + _SAY.format(place.name, "hidden"),
        )
    return Kind("hidden", parts=3)
