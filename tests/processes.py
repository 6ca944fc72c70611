"""Two processes that train one model together; run by tests/test_processes.py.

    python processes.py RANK FOLDER

Each process writes what it found into FOLDER: rank 0 the weights, every rank its errors.
"""

import copy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import hptransfer.optim
from hptransfer.optim import RuleOptimizer
from looped import Net, batch, loss_of, made, net
from units import OPTIMIZERS

STEPS = 4
RANKS = 2


def step(model: nn.Module, optimizer: RuleOptimizer, t: int) -> None:
    """A step on the half of the batch that belongs to this process."""
    optimizer.zero_grad()
    loss_of(model, batch(t).chunk(RANKS)[dist.get_rank()]).backward()
    optimizer.step()


def parallel(name: str, mesh: DeviceMesh) -> dict[str, Tensor]:
    """DistributedDataParallel; the optimizer is built over the wrapper."""
    model = net(name)
    wrapped = DistributedDataParallel(model)
    optimizer = made(name, wrapped)
    for t in range(STEPS):
        step(wrapped, optimizer, t)
    return whole(model)


def sharded(name: str, mesh: DeviceMesh) -> tuple[Net, RuleOptimizer]:
    model = net(name)
    for part in (model.up, model.down):
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = made(name, model)
    return model, optimizer


def shards(name: str, mesh: DeviceMesh) -> dict[str, Tensor]:
    """`fully_shard`: 11 rows of the embedding are not alike on both ranks."""
    model, optimizer = sharded(name, mesh)
    for t in range(STEPS):
        step(model, optimizer, t)
    for p, own in optimizer.state.items():
        for key, value in own.items():
            if value.shape == p.shape:
                assert isinstance(value, DTensor), f"{key} is whole in every process"
                here = value.to_local()
                assert here.untyped_storage().nbytes() == here.nbytes, f"{key} holds more memory"
    optimizer.eval()
    optimizer.train()
    return whole(model)


def resumed(name: str, mesh: DeviceMesh) -> dict[str, Tensor]:
    """`fully_shard`, saved whole after two steps and loaded into other processes' shards."""
    model, optimizer = sharded(name, mesh)
    for t in range(2):
        step(model, optimizer, t)
    options = dcp.StateDictOptions(full_state_dict=True)
    states = copy.deepcopy(dcp.get_state_dict(model, optimizer, options=options))
    fresh, loaded = sharded(name, mesh)
    for group in loaded.param_groups:
        group["lr"] = 2.0**-12
    dcp.set_state_dict(
        fresh, loaded, model_state_dict=states[0], optim_state_dict=states[1], options=options
    )
    for t in range(2, STEPS):
        step(fresh, loaded, t)
    return whole(fresh)


def drawn(name: str, mesh: DeviceMesh) -> dict[str, Tensor]:
    """The init of an optimizer, drawn into shards of a model that began on the meta device."""
    with torch.device("meta"):
        model = Net(16)
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    hptransfer.optim.init_(model, name, base=Net(8))
    return whole(model)


CASES: dict[str, Callable[[str, DeviceMesh], dict[str, Tensor]]] = {
    "parallel": parallel,
    "shards": shards,
    "resumed": resumed,
    "drawn": drawn,
}


def whole(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().clone()
        for name, p in model.named_parameters()
    }


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    found: dict[tuple[str, str], dict[str, Tensor] | str] = {}
    for case, trained in CASES.items():
        for name in OPTIMIZERS:
            try:
                found[case, name] = trained(name, mesh)
            except Exception:
                found[case, name] = traceback.format_exc()
    torch.save(found, folder / f"found-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
