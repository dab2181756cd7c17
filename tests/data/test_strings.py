"""Packed strings: a list of strings to those who read them, shared memory to processes."""

import io
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

from app.data.strings import Strings

WORDS = ["1ubq_A", "", "Å", "a longer one", "x" * 300, "1ubq_A"]


def test_reads_like_a_list():
    packed = Strings.pack(WORDS)
    assert packed == WORDS and list(packed) == WORDS and len(packed) == 6
    assert [packed[index] for index in range(-6, 6)] == WORDS + WORDS
    assert packed.index("Å") == 2 and "" in packed and packed != WORDS[1:] and packed != "1ubq_A"
    with pytest.raises(IndexError):
        packed[6]
    assert Strings.pack([]) == []


def test_selection():
    packed = Strings.pack(WORDS)
    for indices in ([], [0], [5, 2, 2, 4], [1, 1]):
        assert packed.select(np.array(indices, dtype=np.int64)) == [WORDS[index] for index in indices]


def test_names_of_files_that_are_no_text():
    name = b"caf\xe9.pdb".decode("utf-8", "surrogateescape")
    assert Strings.pack([name])[0] == name


def test_spawned_workers_share_the_memory():
    """What torch's multiprocessing sends is a handle; a plain pickle holds the text."""
    packed = Strings.pack(str(number) for number in range(20_000))
    sent = io.BytesIO()
    ForkingPickler(sent).dump(packed)
    assert len(sent.getvalue()) < 5_000 < len(pickle.dumps(packed))
    assert pickle.loads(pickle.dumps(packed)) == packed
