import hashlib

import pytest

from app.evaluation.cache import FILE, Cache, key_of
from tests.evaluation.made_designs import largest_file


def fill(folder, **values):
    with Cache(folder) as cache:
        for key, value in values.items():
            cache.put(key, value)


def test_what_was_put_is_there_again(tmp_path):
    fill(tmp_path, a={"x": [1, "é"]}, b=0.5)
    fill(tmp_path, c=None, a=2)
    with Cache(tmp_path) as cache:
        assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.get("d")) == (2, 0.5, None, None)


def test_lines_that_are_cut_short_or_altered_are_passed_over(tmp_path):
    fill(tmp_path, a=1, b=2, c=3)
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('["b", 2]', '["b", 5]')[:-4])
    with Cache(tmp_path) as cache:
        assert [cache.get(key) for key in "abc"] == [1, None, None]
        cache.put("d", 4)
    with Cache(tmp_path) as cache:
        assert [cache.get(key) for key in "abcd"] == [1, None, None, 4]
    path.write_bytes(b"\xff\x00" * 100)
    with Cache(tmp_path) as cache:
        assert cache.get("a") is None


@pytest.mark.parametrize("text", ["not json", "3", '["a"]', '[["a"], 1]', "[{}, 1]", '["a", 1, 2]', "[" * 100_000])
def test_lines_that_are_whole_and_something_else_are_passed_over(tmp_path, text):
    (tmp_path / FILE).write_text(f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n")
    fill(tmp_path, b=2)
    with Cache(tmp_path) as cache:
        assert (cache.get("a"), cache.get("b")) == (None, 2)


def test_a_folder_that_cannot_be_written_to_keeps_none_and_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with Cache(tmp_path / "file") as cache:
        cache.put("a", 1)
        assert cache.get("a") == 1 and "not written" in cache.problem


def test_a_full_disk_keeps_what_had_room_and_says_so(tmp_path):
    fill(tmp_path, a=1)
    with largest_file(200), Cache(tmp_path) as cache:
        for number in range(3):
            cache.put(f"b{number}", number)
        assert "not written: " in cache.problem and cache.get("b2") == 2
    assert (tmp_path / FILE).stat().st_size == 200
    with Cache(tmp_path) as cache:
        assert [cache.get(key) for key in ("a", "b0", "b2")] == [1, 0, None]


@pytest.mark.parametrize("other", [("x", 1, b"b"), ("x", 2, b"a"), ("y", 1, b"a"), ("x", 1, b"a", b"a")])
def test_keys_tell_measure_version_and_content_apart(other):
    assert key_of("x", 1, b"a") != key_of(*other)
    assert key_of("x", 1, b"a") == key_of("x", 1, key_of("", 0, b"a").rpartition("/")[2])
