"""MOGA's row and column norms, and the guard against columns of unseen tokens."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from hptransfer.errors import InputError
from hptransfer.geometry.norms import MeanNorm, colnorm, moga_col, moga_row, rownorm, sign


def matrix(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("p", ["1.5", "2", "3"])
def test_moga_rows_are_the_published_formula(p: str) -> None:
    g, power = matrix(0, 3, 5), float(p) - 1
    size = g.abs().pow(float(p)).sum(dim=1, keepdim=True) ** (1 / float(p))
    rownorm_p = g.sign() * g.abs() ** power / size**power
    torch.testing.assert_close(-moga_row(p).lmo(g), 5 ** (-1 / float(p)) * rownorm_p)


@pytest.mark.parametrize("q", ["2", "3"])
def test_moga_columns_are_the_published_formula(q: str) -> None:
    g = matrix(0, 3, 5)
    star = float(q) / (float(q) - 1)
    size = g.abs().pow(star).sum(dim=0) ** (1 / star)
    colnorm_q = g.sign() * g.abs() ** (star - 1) / size ** (star - 1)
    torch.testing.assert_close(-moga_col(q).lmo(g), 3 ** (1 / float(q)) / 5 * colnorm_q)


def test_moga_holds_sign_colnorm_and_rownorm() -> None:
    assert moga_row("1") == sign()
    assert moga_row("2", one_hot=True) == rownorm(one_hot=True)
    assert moga_col("2") == colnorm()
    g = matrix(0, 3, 5)
    assert torch.equal(moga_col("inf").lmo(g), sign().lmo(g))


def test_the_infinite_row_takes_the_first_of_the_largest_entries_with_its_sign() -> None:
    g = torch.tensor([[1.0, -2, 2, 2], [0, 0, 0, 0], [3, 3, -3, 0], [1e-30, 0, -2e-30, 0]])
    expected = torch.tensor([[0.0, -1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
    assert torch.equal(-moga_row("inf").lmo(g), expected)
    assert torch.equal(-vmap(moga_row("inf").lmo)(torch.stack([g, -g]))[1], -expected)


def test_the_infinite_row_is_the_limit_of_large_p() -> None:
    g = matrix(2, 4, 6)
    limit = MeanNorm("row", 2000.0)
    torch.testing.assert_close(limit.lmo(g), moga_row("inf").lmo(g), atol=5e-3, rtol=0)


@pytest.mark.parametrize("make", [moga_row, moga_col])
@pytest.mark.parametrize("value", ["4", "0.5", "two", "nan", "-inf"])
def test_another_p_or_q_is_an_input_error(make: Callable[[str], MeanNorm], value: str) -> None:
    with pytest.raises(InputError) as error:
        make(value)
    allowed = "1, 1.5, 2, 3, inf" if make is moga_row else "2, 3, inf"
    assert f"{value!r}, allowed are {allowed}" in str(error.value)
    assert "(p, mean) -> inf" in error.value.hint


def test_a_column_norm_has_no_q_of_one() -> None:
    with pytest.raises(InputError, match=r"q = 1\.0, allowed are 2, 3, inf"):
        moga_col(1.0)


# The stale-row guard

GUARDED: dict[str, Callable[..., MeanNorm]] = {
    "sign": sign,
    "colnorm": colnorm,
    "rownorm": rownorm,
    "moga row": lambda **options: moga_row("inf", **options),
    "moga column": lambda **options: moga_col("3", **options),
}
every_guard = pytest.mark.parametrize("make", GUARDED.values(), ids=GUARDED.keys())


def tokens_of_lengths(lengths: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """A matrix (d, vocab) with columns of these 2-norms."""
    g = matrix(7, 4, len(lengths), dtype=dtype)
    return g / g.norm(dim=0) * torch.tensor(lengths, dtype=dtype)


@every_guard
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_columns_below_the_guard_stay_and_the_others_take_their_full_step(
    make: Callable[..., MeanNorm], scale: float
) -> None:
    g = scale * tokens_of_lengths([1.0, 0.0101, 0.0099, 0.0, 1e-30, 0.5])
    guarded = make(one_hot=True, guard=0.01).lmo(g)
    assert torch.equal(guarded[:, 2:5], torch.zeros(4, 3).double())
    fresh = g.clone()
    fresh[:, 2:5] = 0
    free = make(one_hot=True)
    assert torch.equal(guarded, free.lmo(fresh))
    torch.testing.assert_close(free.norm(guarded), torch.ones(()).double())
    assert free.lmo(g)[:, 2].abs().max() > 0 or free.exponent == math.inf


@every_guard
def test_a_guard_of_zero_changes_no_bit(make: Callable[..., MeanNorm]) -> None:
    g = tokens_of_lengths([1.0, 1e-3, 0.0, 1e-30], torch.float32)
    for guard in (0.0, torch.tensor(0.0)):
        assert torch.equal(make(guard=guard).lmo(g), make().lmo(g))
    assert torch.equal(
        make(guard=0.5).init((4, 9), torch.Generator().manual_seed(0)),
        make().init((4, 9), torch.Generator().manual_seed(0)),
    )


@every_guard
def test_lanes_may_differ_in_their_guard(make: Callable[..., MeanNorm]) -> None:
    g = torch.stack([tokens_of_lengths([1.0, 0.3, 0.03, 0.003]) for _ in range(3)])

    def lane(guard: Tensor, g: Tensor) -> Tensor:
        return make(guard=guard).lmo(g)

    lanes = vmap(lane)(torch.tensor([0.0, 0.01, 0.1]), g)
    loop = [make(guard=guard).lmo(g[0]) for guard in (0.0, 0.01, 0.1)]
    torch.testing.assert_close(lanes, torch.stack(loop))
    # one entry per row, all of them in the first column here
    assert make is GUARDED["moga row"] or not torch.equal(loop[1], loop[2])


@every_guard
def test_a_guard_does_not_hide_a_diverged_matrix(make: Callable[..., MeanNorm]) -> None:
    g = tokens_of_lengths([1.0, 0.5, 0.003])
    g[0, 1] = math.nan
    assert torch.equal(make(guard=0.01).lmo(g).isnan(), make().lmo(g).isnan())
