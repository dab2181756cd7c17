"""Damage done to files: bits turned over and ends cut off, in every region."""

from collections.abc import Iterator, Mapping
from random import Random


def damaged(content: bytes, regions: Mapping[str, tuple[int, int]], random: Random, each: int) -> Iterator[tuple]:
    """(what was done, the file's content then) for `each` flips of a bit in each region, both its ends among them, and
    as many cuts within it, its beginning among them.

    regions: name -> (start, end).
    """
    for name, (start, end) in regions.items():
        places = [start, end - 1, *(random.randrange(start, end) for _ in range(each - 2))]
        for place in places:
            bit = random.randrange(8)
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            yield f"{name}: bit {bit} of byte {place}", bytes(changed)
            yield f"{name}: cut at {place}", content[:place]
    yield "a byte more", content + b"\0"
    yield "an archive more", content + content
    yield "zeros from the middle on", content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
    for length in (0, 1, 4, 22):
        yield f"{length} bytes", content[:length]
