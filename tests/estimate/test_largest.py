"""The search for what fits."""

import pytest

from app.estimate.largest import MOST, NEAR, largest


def search(need, room: float, first: int, power: float, fixed: float = 0.0) -> tuple[int, int]:
    """What is found, and in how many calls."""
    calls = []

    def counted(size: int) -> float:
        calls.append(size)
        return need(size)

    return largest(counted, room, fixed, {first: need(first)}, power), len(calls)


@pytest.mark.parametrize("room", [2e5, 1e6, 3e7, 1e9])
@pytest.mark.parametrize("first", [1, 100, 3000])
def test_it_fills_the_room_in_a_few_calls(room, first):
    def need(length: int) -> float:
        return 1e5 + 30 * length + 7 * length**2

    found, calls = search(need, room, first, power=2, fixed=1e5)
    assert need(found) <= room
    assert need(found) >= NEAR * room or need(found + 1) > room
    assert calls <= 7


def test_a_growth_that_changes_on_the_way_is_followed():
    def need(size: int) -> float:
        return 5e6 * size if size < 4 else 2e7 + 1e6 * (size - 4)

    found, _ = search(need, 1e9, 1, power=1)
    assert NEAR * 1e9 <= need(found) <= 1e9


def test_a_flat_beginning_leads_nobody_astray():
    def need(length: int) -> float:
        return 8e7 + (1e3 * length if length < 20 else 2e4 + 2.5e4 * (length - 20) ** 2)

    found, _ = search(need, 2e10, 16, power=2, fixed=8e7)
    assert NEAR * 2e10 <= need(found) <= 2e10


def test_small_numbers_are_found_exactly():
    assert [search(lambda size: 10 * size, room, 1, power=1)[0] for room in (9, 10, 25, 39, 40)] == [0, 1, 2, 3, 4]


def test_where_not_even_what_is_fixed_fits_it_is_none():
    assert search(lambda size: 100 + size, 50, 8, power=1, fixed=100)[0] == 0


def test_there_is_an_end():
    assert search(lambda size: 1e-6 * size, 1e9, 1, power=1)[0] == MOST
