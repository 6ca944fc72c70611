"""Tensors that `fully_shard` divides among processes: read, written and kept as plain ones are.

A rule that moves each entry by itself works on the part of this process. Any other rule is given
the whole tensor, which every process gathers.
"""

import sys
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs


def is_sharded(tensor: Tensor) -> "TypeIs[DTensor]":
    """Whether a tensor is divided among processes."""
    loaded = sys.modules.get("torch.distributed.tensor")  # takes time to import where nobody did
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def read(tensor: Tensor, *, whole: bool) -> Tensor:
    """A plain tensor: the tensor itself, or of a sharded one the whole, or the part that is here.

    The part shares its memory with the sharded tensor.
    """
    if not is_sharded(tensor):
        return tensor
    return tensor.full_tensor() if whole else tensor.to_local()


def write(tensor: Tensor, value: Tensor, *, whole: bool) -> None:
    """Write a plain tensor into one that `read` gave it of, in the dtype of that one."""
    if is_sharded(tensor):
        value = _divided(tensor, value).to_local() if whole else value
        tensor = tensor.to_local()
    if tensor is not value and tensor.data_ptr() != value.data_ptr():
        tensor.copy_(value)


def like(tensor: Tensor, value: Tensor, *, whole: bool) -> Tensor:
    """A state entry of a parameter: divided as the parameter is, where it has an entry for each.

    `value`: a plain tensor, for the whole parameter or for the part that is here.
    """
    if not is_sharded(tensor):
        return value
    from torch.distributed.tensor import DTensor

    if not whole:
        return DTensor.from_local(
            value,
            tensor.device_mesh,
            tensor.placements,
            run_check=False,
            shape=tensor.shape,
            stride=tensor.stride(),
        )
    return _divided(tensor, value) if value.shape == tensor.shape else value


def _divided(tensor: "DTensor", value: Tensor) -> "DTensor":
    """A whole tensor, equal in every process, divided as `tensor` is; nothing is sent."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = tensor.device_mesh
    everywhere = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=tensor.placements)
