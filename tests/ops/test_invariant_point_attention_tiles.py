"""How the fused point attention is cut: what fits on chip at published widths has to at every width that it takes."""

import dataclasses

import pytest

from app.ops.invariant_point_attention import tiles
from app.ops.invariant_point_attention.tiles import LEAST, PUBLISHED, Tiles, fitted, of_forward

KERNELS = {
    "attend": (tiles.ATTEND, "queries"), "attend_many": (tiles.ATTEND_MANY, "queries"),
    "by_queries": (tiles.BY_QUERIES, "queries"), "by_keys": (tiles.BY_KEYS, "keys"),
}  # fmt: skip
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_size = pytest.mark.parametrize("bytes_of_a_number", [2, 4])

WIDER = {2: [(8, 128), (8, 256), (16, 128), (16, 256)], 4: [(8, 128), (8, 256)]}
"""Padded heads and channels that are taken, by bytes of a number."""


def held(tile: Tiles, resident: str, heads: int, channels: int) -> int:
    """Numbers of the largest tile that stays on chip."""
    return getattr(tile, resident) * heads * channels


@every_kernel
@every_size
def test_what_stays_on_chip_is_no_more_than_at_published_widths(kernel, bytes_of_a_number):
    """Save that two residues stay at least: of one, Triton 3.6 makes wrong products on a GPU."""
    table, resident = KERNELS[kernel]
    whole = table[bytes_of_a_number]
    for heads, channels in WIDER[bytes_of_a_number]:
        tile = fitted(whole, resident, heads, channels)
        most = max(getattr(whole, resident) * PUBLISHED, LEAST * heads * channels)
        assert held(tile, resident, heads, channels) <= most
        assert all(side & (side - 1) == 0 and side >= LEAST for side in (tile.queries, tile.keys))


@every_kernel
@every_size
def test_tiles_shrink_with_the_widths_on_their_resident_side_alone(kernel, bytes_of_a_number):
    table, resident = KERNELS[kernel]
    whole = table[bytes_of_a_number]
    sides = [fitted(whole, resident, *widths) for widths in WIDER[bytes_of_a_number]]
    before = getattr(whole, resident)
    assert [getattr(side, resident) for side in sides] == [max(before // n, LEAST) for n in (1, 2, 2, 4)][: len(sides)]
    assert all((side.stages, side.warps) == (1, 8) for side in sides[1:])
    for side in sides:
        same = {resident: before, "stages": whole.stages, "warps": whole.warps}
        assert dataclasses.replace(side, **same) == whole


@every_kernel
@every_size
def test_up_to_published_widths_nothing_shrinks(kernel, bytes_of_a_number):
    table, resident = KERNELS[kernel]
    for widths in [(8, 16), (16, 64), (8, 128)]:
        assert fitted(table[bytes_of_a_number], resident, *widths) == table[bytes_of_a_number]


def test_a_side_never_vanishes():
    assert fitted(Tiles(2, 16, 8, 3), "queries", 32, 256).queries == LEAST


def test_many_residues_have_larger_tiles():
    assert of_forward(tiles.MANY)[2].queries > of_forward(tiles.MANY - 1)[2].queries
