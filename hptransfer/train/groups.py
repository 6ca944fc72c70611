"""Same-shaped parameters of a role, stacked so that one call updates them all."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hptransfer.errors import InputError
from hptransfer.optimizers.rules import Stack, State
from hptransfer.spec import Param

# Numbers stacked for one batched update: on a GPU enough to fill it, on a CPU so few that the
# update's temporaries stay in its cache, but two matrices for two threads.
GROUP_ELEMENTS = {"cuda": 2**24, "cpu": 2**20}
GROUP_LEAST = {"cuda": 1, "cpu": 2}


@dataclass
class Group:
    """Same-shaped parameters of a role; `w`, `g`, every state tensor: (k, [lanes,] *shape).

    With one lane `g` is a list of k gradients, as the backward pass leaves them. `carried`: the
    optimizer keeps its momentum in the gradients (ScionLight), so the next ones are added to it.
    """

    p: Param
    names: list[str]
    w: Tensor
    g: Stack
    state: State
    carried: bool = False


def grouped(params: Sequence[Param], lanes: int, device: torch.device) -> list[list[Param]]:
    """Same-shaped parameters of a role, in lists of at most GROUP_ELEMENTS numbers."""
    kind = device.type if device.type in GROUP_ELEMENTS else "cuda"
    kinds: dict[Param, list[Param]] = {}
    for p in params:
        kinds.setdefault(replace(p, name=""), []).append(p)
    groups = []
    for alike in kinds.values():
        fits = GROUP_ELEMENTS[kind] // (lanes * math.prod(alike[0].shape))
        size = max(fits, math.ceil(GROUP_LEAST[kind] / lanes))
        groups.extend(alike[i : i + size] for i in range(0, len(alike), size))
    return groups


def regrouped(names: list[str], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The parameters of this name in a snapshot, whose groups may be others."""
    place = {name: (group, i) for group in groups for i, name in enumerate(group["names"])}
    parts = [place[name] for name in names]
    first = parts[0][0]
    return {
        "w": torch.stack([group["w"][i] for group, i in parts]),
        "state": {
            key: torch.stack([group["state"][key][i] for group, i in parts])
            for key in first["state"]
        },
        "g": None if first["g"] is None else torch.stack([group["g"][i] for group, i in parts]),
    }


def separate(leaves: Iterable[Tensor]) -> None:
    """Copy gradients that share memory, as those of the two terms of a sum may.

    Else adding to one, or scaling it, would change the other.
    """
    seen: set[int] = set()
    for leaf in leaves:
        if leaf.grad is not None and leaf.grad.layout is torch.strided:
            place = leaf.grad.data_ptr()
            if place in seen:
                leaf.grad = leaf.grad.clone()
            seen.add(place)


def gradient_of(leaf: Tensor) -> Tensor:
    """Its gradient; zeros where it took no part in the loss. Raises InputError for a sparse one."""
    if leaf.grad is None:
        leaf.grad = torch.zeros_like(leaf)
    if leaf.grad.layout is not torch.strided:
        raise sparse_gradient(tuple(leaf.shape))
    return leaf.grad


def sparse_gradient(shape: tuple[int, ...]) -> InputError:
    """The refusal of a gradient that lists its entries: every optimizer takes a whole tensor."""
    return InputError(
        f"the gradient of a parameter of shape {shape} is sparse", "sparse = False in its embedding"
    )
