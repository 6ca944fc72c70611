"""The vision transformer: patches, positions and the parts of its description."""

import math

import pytest
import torch

from hptransfer.errors import InputError
from hptransfer.models.gpt import rms_norm
from hptransfer.models.vit import cut, positions, vit
from units import random as noise


@pytest.mark.parametrize(
    ("in_shape", "patch", "size", "fitting"),
    [((1, 28, 28), 5, "28 x 28", "1, 2, 4, 7, 14, 28"), ((3, 12, 18), 4, "12 x 18", "1, 2, 3, 6")],
)
def test_a_patch_that_does_not_divide_the_image_is_an_input_error_that_names_those_that_do(
    in_shape: tuple[int, ...], patch: int, size: str, fitting: str
) -> None:
    with pytest.raises(InputError) as caught:
        vit(32, in_shape=in_shape, patch=patch)
    assert str(caught.value) == f"model.patch: {patch} does not divide images of {size}"
    assert caught.value.hint == f"patches that do: {fitting}"


def test_an_image_is_cut_into_its_patches_row_by_row() -> None:
    x = noise(2, 3, 4, 6)
    patches = cut(x, 2)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            piece = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 3 * row + column], piece.flatten(1))


def test_positions_are_the_published_sines_and_cosines() -> None:
    """`posemb_sincos_2d` of the paper's code (big_vision), element by element."""
    width, rows, columns = 16, 3, 2
    found = positions(rows, columns, width)
    assert found.shape == (6, width)
    for row in range(rows):
        for column in range(columns):
            angles = [10_000 ** (-i / (width // 4 - 1)) for i in range(width // 4)]
            expected = [f(a * n) for n in (column, row) for f in (math.sin, math.cos)
                        for a in angles]  # fmt: skip
            assert found[columns * row + column].tolist() == pytest.approx(expected, abs=1e-6)
    assert positions(7, 7, 4).isfinite().all()


def test_a_vit_is_the_transformer_of_its_description() -> None:
    torch.manual_seed(0)
    net = vit(16, in_shape=(3, 4, 6), n_classes=5, patch=2, n_layer=3, head_size=8).double()
    x = noise(2, 3, 4, 6)
    h = cut(x, 2) @ net.patches.weight.mT + positions(2, 3, 16)
    for block in net.blocks:
        h = block(h)
    torch.testing.assert_close(net(x), rms_norm(h.mean(dim=1)) @ net.head.weight.mT)
    assert sum(p.numel() for p in net.parameters()) == 12 * 16 + 3 * 12 * 16**2 + 5 * 16


def test_a_vit_tells_the_order_of_patches_by_its_positions_alone() -> None:
    torch.manual_seed(0)
    net = vit(16, in_shape=(1, 4, 4), patch=2, head_size=8).double()
    x = noise(3, 1, 4, 4)
    swapped = torch.cat([x[:, :, 2:], x[:, :, :2]], dim=2)
    assert (net(x) - net(swapped)).abs().max() > 1e-3
    net.positions.zero_()
    torch.testing.assert_close(net(x), net(swapped))
