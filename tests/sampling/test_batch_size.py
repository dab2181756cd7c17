import pytest

from app.sampling.batch_size import DEFAULT, SMALL, sizes
from app.sampling.designs import Design, batches, share

DESIGNS = [Design(f"len{length}_{index}", length, 0) for length in (300, 100) for index in range(20)]


def test_a_number_is_a_bound_on_residues_squared():
    fit = sizes(DESIGNS, 8, 3 * 100**2, None)
    assert (fit(100), fit(300), fit(10)) == (3, 1, 8)


def test_auto_asks_for_the_room_that_there_is_at_all_lengths():
    asked = []

    def room(lengths, most):
        asked.append((lengths, most))
        return lambda length: 1500 // length

    fit = sizes(DESIGNS, 64, "auto", room)
    assert (fit(100), fit(300)) == (15, 5)
    assert asked == [([100, 300], 64)]
    assert sizes(DESIGNS, 64, "auto", lambda lengths, most: lambda length: 0)(100) == 1  # alone it is let through


@pytest.mark.parametrize("designs", [DESIGNS[:1] + DESIGNS[20:21], [], [Design(f"{k}", 10, 0) for k in range(9)]])
def test_there_is_no_need_to_ask_where_no_batch_is_large(designs):
    fit = sizes(designs, 64, "auto", lambda lengths, most: pytest.fail("asked"))
    assert fit(10) == 64 and fit(1000) == 1 and fit(200) == DEFAULT // 200**2
    assert SMALL < DEFAULT


def test_designs_are_shared_out_so_that_each_is_made_once_and_each_process_has_as_many_of_a_length():
    for ranks in (1, 2, 3):
        shares = [share(DESIGNS, rank, ranks) for rank in range(ranks)]
        assert sorted(design.id for own in shares for design in own) == sorted(design.id for design in DESIGNS)
        for length in (100, 300):
            counts = [sum(design.length == length for design in own) for own in shares]
            assert max(counts) - min(counts) <= 1
    assert [len(batch) for batch in batches(share(DESIGNS, 0, 2), lambda length: 8)] == [8, 2, 8, 2]
