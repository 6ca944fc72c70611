"""Roles of the parameters of any `nn.Module`: said by its `roles()`, or seen from two widths."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from hptransfer.errors import InputError, suggest

SAID = ("input", "embedding", "hidden", "qkv", "output", "vector", "bias", "gain")
FUSED = re.compile(r"(^|[._])(w?qkv|c_attn|in_proj|query_key_value)([._]|$)")
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
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


def kinds(model: nn.Module, wider: nn.Module, said: Mapping[str, str]) -> dict[str, Kind]:
    """Parameter name -> Kind. `wider`: the same model at another width; `said` wins.

    A matrix that grows with the width on both sides is hidden, on its output side alone input, on
    its input side alone output. Linear and convolution weights are (d_out, d_in, ...), embeddings
    (vocab, d). A weight that is embedding and head is an output layer. Raises InputError, naming
    the parameter, where the widths do not tell.
    """
    _refuse(model)
    names = [name for name, _ in model.named_parameters()]
    for name in said:
        if name not in names:
            raise InputError(
                f"roles() names {name!r}, which is no parameter",
                suggest(name, names) or f"parameters: {', '.join(names)}",
            )
    growing = dict(wider.named_parameters())
    modules = dict(model.named_modules())
    homes: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        homes.setdefault(id(p), []).append(name)
    kind_of: dict[str, Kind] = {}
    for name, p in model.named_parameters():
        owners = [modules[home.rpartition(".")[0]] for home in homes[id(p)]]
        shape = tuple(p.shape)
        if name in said:
            kind_of[name] = _said(name, said[name], owners, shape)
        elif name not in growing or growing[name].ndim != p.ndim:
            raise InputError(
                f"{name}: not in the model at another width",
                "widths must share their parameters' names; else " + _SAY.format(name, "hidden"),
            )
        else:
            kind_of[name] = _seen(name, owners, shape, tuple(growing[name].shape))
    return kind_of


def _refuse(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if getattr(module, "track_running_stats", False):
            raise InputError(
                f"{name or 'the model'}: {type(module).__name__} keeps running statistics, which "
                "are no function of weights and data",
                "GroupNorm or RMSNorm, or track_running_stats = False",
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:  # pyright: ignore[reportPrivateUsage]
            raise InputError(
                f"{name}: {type(module).__name__} draws outside the run's seed", "set p = 0"
            )


def _said(name: str, said: str, owners: list[nn.Module], shape: tuple[int, ...]) -> Kind:
    embeds = any(isinstance(owner, nn.Embedding) for owner in owners)
    conv = any(isinstance(owner, _CONVS) for owner in owners) and len(shape) > 1
    flat = len(shape) == 1
    if said not in SAID:
        raise InputError(
            f"{name}: roles() says {said!r}, allowed: {', '.join(SAID)}", suggest(said, SAID)
        )
    if flat != (said in ("vector", "bias", "gain")):
        raise InputError(
            f"{name}: roles() says {said!r}, but its shape is {shape}",
            "one-dimensional parameters are bias or gain, the others are not",
        )
    match said:
        case "vector" | "bias" | "gain":
            return Kind(
                "vector", gain=said == "gain" or (said == "vector" and _gains(name, owners))
            )
        case "embedding":
            return Kind("input", embedding=True)
        case "input":
            return Kind("input", embedding=embeds, conv=conv)
        case "output":
            return Kind("output", conv=conv, tied=embeds)
        case "qkv":
            rows = math.prod(shape[:1])
            if rows % 3:
                raise InputError(f"{name}: {rows} rows are not three matrices", "split it")
            return Kind("hidden", parts=3)
        case _:
            return Kind("hidden", conv=conv)


def _gains(name: str, owners: list[nn.Module]) -> bool:
    """A one-dimensional `weight` scales what a normalisation layer gives."""
    return name.rpartition(".")[2] == "weight" and all(
        not isinstance(owner, (nn.Linear, nn.Embedding, *_CONVS)) for owner in owners
    )


def _seen(
    name: str, owners: list[nn.Module], shape: tuple[int, ...], wider: tuple[int, ...]
) -> Kind:
    if len(shape) == 1:
        last = name.rpartition(".")[2]
        if last.endswith("bias"):
            return Kind("vector")
        if _gains(name, owners):
            return Kind("vector", gain=True)
        raise InputError(
            f"{name}: a one-dimensional parameter of {type(owners[0]).__name__} may be a gain or a "
            "bias",
            _SAY.format(name, "gain"),
        )
    if any(isinstance(owner, nn.Embedding) for owner in owners):
        if len(owners) > 1:
            return Kind("output", tied=True)
        return Kind("input", embedding=True)
    owner = owners[0]
    fused = FUSED.search(name) is not None
    if isinstance(owner, nn.MultiheadAttention) and fused:
        return _fused(name, shape)
    if not isinstance(owner, (nn.Linear, *_CONVS)):
        raise InputError(
            f"{name}: a {len(shape)}-dimensional parameter of {type(owner).__name__}, which no "
            "known layer owns",
            "make it part of nn.Linear, nn.Embedding or nn.Conv2d; else "
            + _SAY.format(name, "embedding"),
        )
    if fused:
        return _fused(name, shape)
    conv = isinstance(owner, _CONVS)
    if conv and owner.groups != 1:
        raise InputError(
            f"{name}: a convolution in {owner.groups} groups mixes no channels across them",
            _SAY.format(name, "hidden"),
        )
    match (wider[0] != shape[0], math.prod(wider[1:]) != math.prod(shape[1:])):
        case (True, True):
            return Kind("hidden", conv=conv)
        case (True, False):
            return Kind("input", conv=conv)
        case (False, True):
            return Kind("output", conv=conv)
        case _:
            raise InputError(
                f"{name}: its shape {shape} does not change with the width, so its role does not "
                "show",
                _SAY.format(name, "hidden"),
            )


def _fused(name: str, shape: tuple[int, ...]) -> Kind:
    """q, k and v in one matrix are three matrices to a spectral norm."""
    if shape[0] != 3 * shape[1]:
        raise InputError(
            f"{name}: fused by its name, but {shape} is not three square matrices",
            "make q, k and v layers of their own; else " + _SAY.format(name, "hidden"),
        )
    return Kind("hidden", parts=3)
