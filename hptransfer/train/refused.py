"""Modules and parameters that no run can train, refused by name with what to do."""

from torch import nn
from torch.nn.parameter import UninitializedParameter

from hptransfer.errors import InputError


def refuse(model: nn.Module, *, in_run: bool = True) -> None:
    """Raises InputError, naming the module or the parameter, where a run could not be right.

    A run is a function of weights and data, its weights are real, and its gradients dense. The
    first does not hold in a loop of the user's own, `in_run` false.
    """
    for name, module in model.named_modules():
        if in_run:
            _stateful(name or "the model", module)
            _random(name, module)
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        if getattr(module, "sparse", False) and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            raise InputError(f"{name}: its gradients are sparse", "sparse = False")
        if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
            raise InputError(
                f"{name}: Conv1D stores its weight as (d_in, d_out), and an optimizer takes "
                "(d_out, d_in)",
                "nn.Linear(d_in, d_out) with the transposed weight is the same layer",
            )
    for name, p in model.named_parameters():
        if isinstance(p, UninitializedParameter):
            raise InputError(
                f"{name}: a lazy parameter has no shape before the first call",
                "the layer with all its sizes, such as nn.Linear(d_in, d_out)",
            )
        if p.is_complex() and p.requires_grad:
            raise InputError(
                f"{name}: a complex parameter, and every optimizer takes real ones",
                "two real parameters, joined by torch.complex in the forward pass; a constant "
                "belongs into a buffer",
            )


def _stateful(name: str, module: nn.Module) -> None:
    if getattr(module, "track_running_stats", False):
        raise InputError(
            f"{name}: {type(module).__name__} keeps running statistics, which are no function of "
            "weights and data",
            "GroupNorm or RMSNorm, or track_running_stats = False",
        )


def _random(name: str, module: nn.Module) -> None:
    dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0  # pyright: ignore[reportPrivateUsage]
    if dropout:
        raise InputError(
            f"{name}: {type(module).__name__} draws outside the run's seed", "set p = 0"
        )
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0:
        raise InputError(
            f"{name}: {type(module).__name__} drops units outside the run's seed", "dropout = 0"
        )
