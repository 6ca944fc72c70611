"""One forward pass of somebody's own model, watched: what no shape of a parameter shows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hptransfer.datasets import Examples, Tokens
from hptransfer.errors import InputError
from hptransfer.spec import Param

_PRODUCTS = {  # the places of the two factors
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.baddbmm: (1, 2),
}
_COPIES = (torch.ops.aten.clone, torch.ops.aten._to_copy)
# Tagged as random, but without a dropout of their own: `_random` reads their argument.
_MAYBE_RANDOM = ("scaled_dot_product", "rnn", "lstm", "gru")


class _Watch(TorchDispatchMode):
    """Follows parameters through views and copies into the products that they take part in.

    `summed`: name -> dimensions of the parameter that a product sums over. `random`: operations
    that drew numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.summed: dict[str, set[int]] = {}
        self.random: list[str] = []
        # by storage: a parameter, and the stride of each of its dimensions -> that dimension
        self._known: dict[StorageWeakRef, tuple[str, dict[int, int]]] = {}
        for name, p in model.named_parameters():
            dims = {p.stride(i): i for i in range(p.ndim) if p.shape[i] > 1}
            self._known[StorageWeakRef(p.untyped_storage())] = name, dims

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if torch.Tag.nondeterministic_seeded in func.tags and _random(func, args, kwargs or {}):
            self.random.append(str(packet).removeprefix("aten."))
        if packet in _COPIES:
            self._copied(args[0], out)
        if packet in _PRODUCTS:
            left, right = (args[place] for place in _PRODUCTS[packet])
            if self._of(left) is None or self._of(right) is None:  # else a product of weights
                self._sums(left, -1)
                self._sums(right, -2)
        return out

    def _of(self, tensor: Tensor) -> tuple[str, dict[int, int]] | None:
        return self._known.get(StorageWeakRef(tensor.untyped_storage()))

    def _copied(self, source: Tensor, copy: Tensor) -> None:
        known = self._of(source)
        if known is not None and source.shape == copy.shape:
            name, dims = known
            strides = {
                copy.stride(i): dims[source.stride(i)]
                for i in range(source.ndim)
                if source.shape[i] > 1 and source.stride(i) in dims
            }
            self._known[StorageWeakRef(copy.untyped_storage())] = name, strides

    def _sums(self, factor: Tensor, dim: int) -> None:
        known = self._of(factor)
        if known is not None and factor.stride(dim) in known[1] and factor.shape[dim] > 1:
            self.summed.setdefault(known[0], set()).add(known[1][factor.stride(dim)])


def _random(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether an operation that may draw numbers does."""
    if not any(part in str(func) for part in _MAYBE_RANDOM):
        return True
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return bool(given.get("dropout_p", given.get("dropout", 0.0)))


def check(model: nn.Module, params: Sequence[Param], data: Tokens | Examples, x: Tensor) -> None:
    """Run a forward pass on `x` and raise InputError where no run of the model could be right.

    That is: another result than logits, chance, buffers that a pass changes, a weight that stands
    transposed, an embedding that is the head too and does not say so.
    """
    before = {name: (id(b), b._version) for name, b in model.named_buffers()}
    with _Watch(model) as watch:
        logits = model(x)
    check_logits(logits, data, x)
    if watch.random:
        raise InputError(
            f"its forward pass draws random numbers ({watch.random[0]}), outside the run's seed",
            "dropout = 0, and noise that is a function of the input",
        )
    for name, b in model.named_buffers():
        if before.get(name) != (id(b), b._version):
            raise InputError(
                f"{name}: the forward pass changes this buffer, so a loss is no function of weights"
                " and data",
                "a model without a state of its own",
            )
    for p in params:
        _check_sides(p, watch.summed.get(p.name, set()))


def _check_sides(p: Param, summed: set[int]) -> None:
    last = len(p.shape) - 1
    if p.embedding and last in summed:  # over its rows it is a product with one-hot inputs
        raise InputError(
            f"{p.name}: it is an embedding, and the model multiplies by it too",
            f"roles() of the model can say what it is, for instance {{{p.name!r}: 'output'}} where "
            "it is the head too",
        )
    matrix = p.role != "vector" and not (p.embedding or p.conv)
    if matrix and summed and last not in summed:
        raise InputError(
            f"{p.name}: the model sums over dimension {min(summed)} of {p.shape}, so its rows are "
            "not its outputs",
            "a weight is (d_out, d_in), of experts (E, d_out, d_in): transpose it, and its use",
        )


def check_logits(logits: object, data: Tokens | Examples, x: Tensor) -> None:
    """Raises InputError unless these are the logits of a batch x: (B, T, vocab) or (B, classes)."""
    text = isinstance(data, Tokens)
    lead = tuple(x.shape) if text else (len(x),)
    least = data.vocab if isinstance(data, Tokens) else data.n_classes
    needs = f"({', '.join(map(str, (*lead, least)))}), " + (
        "(batch, context, vocab)" if text else "(batch, classes)"
    )
    if not isinstance(logits, Tensor):
        raise InputError(
            f"it gave a {type(logits).__name__}, needs logits {needs}",
            "forward(x) returns the logits alone",
        )
    if logits.shape[:-1] != lead or logits.shape[-1] < least or not logits.is_floating_point():
        raise InputError(
            f"it gave {logits.dtype} of shape {tuple(logits.shape)}, needs logits {needs}",
            "forward(x) returns one number per token and entry of the vocabulary"
            if text
            else "forward(x) returns one number per image and class",
        )
