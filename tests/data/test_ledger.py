"""Batches in halves, and what is remembered of those that failed."""

import threading

import pytest

from app.data.ledger import Ledger, in_halves


def test_a_shape_is_refused_where_it_is_no_smaller_in_both_than_one_that_failed():
    ledger = Ledger()
    ledger.note([(4, 100), (2, 200), (8, 150)])
    assert ledger.shapes == {(4, 100), (2, 200)}  # the third follows from the first
    assert [ledger.refuses(*shape) for shape in ((4, 100), (5, 120), (3, 199), (2, 200), (9, 99))] == [
        True, True, False, True, False,
    ]  # fmt: skip


def attempts(most: int, ledger: Ledger, length: int = 100):
    """An attempt for which at most so many examples fit, and what it was asked for."""
    asked = []

    def attempt(first, last):
        asked.append((first, last))
        if last - first <= most:
            return (first, last)
        ledger.note([(last - first, length)])
        return None

    return attempt, asked


@pytest.mark.parametrize(("size", "most"), [(1, 1), (7, 8), (8, 4), (7, 2), (5, 1), (9, 4)])
def test_every_example_is_in_one_part_that_fits_in_order(size, most):
    ledger = Ledger()
    attempt, first_time = attempts(most, ledger)
    parts = in_halves(attempt, size, 100, ledger)
    assert [index for first, last in parts for index in range(first, last)] == list(range(size))
    assert max(last - first for first, last in parts) <= most
    attempt, second_time = attempts(most, ledger)
    assert in_halves(attempt, size, 100, ledger) == parts == second_time  # without an attempt in vain
    assert (first_time == second_time) == (size <= most)


def test_one_that_does_not_fit_alone_is_given_up_and_tried_again_the_next_time():
    ledger = Ledger()
    for _ in range(2):
        attempt, asked = attempts(0, ledger)
        assert in_halves(attempt, 4, 100, ledger) is None
        assert asked[-1] == (0, 1)
    assert ledger.shapes == {(1, 100)}


def test_ranks_that_go_together_make_equally_many_attempts():
    """One of three has room for two examples at once; they end together whatever each of them has."""
    sizes, rooms, asked = (5, 1, 2), (2, 9, 9), {}
    barrier, flags = threading.Barrier(3), [False] * 3

    def rank(number):
        def anyones(flag):
            flags[number] = flag
            barrier.wait(10)
            found = any(flags)
            barrier.wait(10)
            return found

        def attempt(first, last):
            asked.setdefault(number, []).append((first, last))
            return None if anyones(last - first > rooms[number]) else (first, last)

        made = in_halves(attempt, sizes[number], 100, Ledger(), anyones)
        assert [index for first, last in made for index in range(first, last)] == list(range(sizes[number]))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(asked[0]) == len(asked[1]) == len(asked[2]) == 5  # of 5, 3, 2, 1 and 2 examples
