"""Layouts of weights: which dimensions are the rows and columns of a matrix, and which count."""

import math

from torch import nn

from hptransfer.errors import InputError

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_GATES: tuple[tuple[tuple[type[nn.Module], ...], int], ...] = (
    ((nn.LSTM, nn.LSTMCell), 4),
    ((nn.GRU, nn.GRUCell), 3),
    ((nn.RNN, nn.RNNCell), 1),
)
_RECURRENT = tuple(kind for kinds, _ in _GATES for kind in kinds)
_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")

Shape = tuple[int, ...]


def is_matrix(owner: nn.Module, last: str) -> bool:
    """Whether this parameter of a known layer is its weight, (d_out, d_in, ...)."""
    if isinstance(owner, nn.MultiheadAttention):
        return last in _PROJECTIONS
    if isinstance(owner, _RECURRENT):
        return last.startswith("weight")
    return isinstance(owner, (nn.Linear, *CONVS)) and last == "weight"


def is_of_torch(owner: nn.Module) -> bool:
    """Whether torch defines this layer, and so its layout; its lists of parameters have none."""
    lists = (nn.ParameterList, nn.ParameterDict)
    return type(owner).__module__.startswith("torch.nn.") and not isinstance(owner, lists)


def gates(owner: nn.Module, last: str) -> int:
    """Number of matrices that a recurrent layer keeps in this weight, 1 for another layer."""
    if not isinstance(owner, _RECURRENT) or not last.startswith(("weight_ih", "weight_hh")):
        return 1
    return next(n for kinds, n in _GATES if isinstance(owner, kinds))


def sides(shape: Shape, wider: Shape) -> tuple[bool, bool]:
    """Whether rows and columns of a weight (d_out, d_in, ...) grow with the width."""
    return wider[0] != shape[0], math.prod(wider[1:]) != math.prod(shape[1:])


def _growing(shape: Shape, wider: Shape | None) -> tuple[bool, ...] | None:
    """Which dimensions grow with the width; None where that is not known."""
    if wider is None or wider == shape:
        return None
    return tuple(a != b for a, b in zip(shape, wider, strict=True))


def check_table(name: str, shape: Shape, wider: Shape | None) -> None:
    """Raises InputError for an embedding that does not grow along its last dimension."""
    grows = _growing(shape, wider)
    if grows is not None and not grows[-1]:
        raise InputError(
            f"{name}: roles() says it is an embedding, but the last dimension of {shape} does not "
            "grow with the width",
            "an embedding is (rows, width): transpose it",
        )


def check_fused(name: str, shape: Shape, wider: Shape | None) -> None:
    """Raises InputError unless these are three square matrices, one under the other."""
    if shape[0] % 3:
        raise InputError(f"{name}: {shape[0]} rows are not three matrices", "split it")
    for each in (shape, wider or shape):
        if each[0] != 3 * math.prod(each[1:]):
            raise InputError(
                f"{name}: roles() says 'qkv', but {each} is not three square matrices (d_out, d_in)"
                " one under the other",
                "transpose it, or make q, k and v layers of their own",
            )


def stacked_vectors(owner: nn.Module, shape: Shape) -> int:
    """Leading dimensions of the biases of a stack of matrices that the same module owns."""
    lead = shape[:-1]
    stacks = [tuple(p.shape) for p in owner.parameters(recurse=False) if p.ndim >= len(shape) + 1]
    return len(lead) if lead and any(stack[: len(lead)] == lead for stack in stacks) else 0


def stacked_matrices(
    name: str, role: str, owner: nn.Module, shape: Shape, wider: Shape | None
) -> int:
    """Leading dimensions that count matrices: 0 for one matrix, 1 for experts (E, d_out, d_in).

    Raises InputError where rows and columns are not the last two dimensions, or the sides that grow
    with the width are not those of the role.
    """
    grows = _growing(shape, wider)
    if len(shape) == 2:
        if grows is not None:
            _check_sides(name, role, shape, grows)
        return 0
    if is_of_torch(owner):
        raise InputError(
            f"{name}: {type(owner).__name__} has a layout of its own, {shape}, which is no stack "
            "of matrices",
            "nn.Linear, nn.Embedding and nn.Conv1d to nn.Conv3d have known layouts",
        )
    if grows is None:
        raise InputError(
            f"{name}: {shape} may be a stack of matrices, which one width does not show",
            "give the same model at another width too",
        )
    if any(grows[:-2]):
        raise InputError(
            f"{name}: roles() says {role!r}, but the leading dimensions of {shape} grow with the "
            "width",
            "a stack of matrices is (number, d_out, d_in) with a fixed number; heads whose number "
            "grows belong into the rows of one matrix, and a kernel into nn.Conv2d",
        )
    _check_sides(name, role, shape, grows[-2:])
    return len(shape) - 2


def _check_sides(name: str, role: str, shape: Shape, grows: tuple[bool, ...]) -> None:
    """An input weight grows along its rows, an output weight along its columns."""
    if grows == {"input": (False, True), "output": (True, False)}.get(role):
        along, not_along = ("columns", "rows") if role == "input" else ("rows", "columns")
        hint = "a weight is (d_out, d_in): transpose it"
        raise InputError(
            f"{name}: roles() says {role!r}, but {shape} grows along its {along} alone, and not "
            f"along its {not_along}",
            f"{hint}; a table (rows, width) is an 'embedding'" if role == "input" else hint,
        )
