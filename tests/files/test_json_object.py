"""Files that are read though somebody else may have written them."""

import pytest

from app.files.json_object import json_object


def test_an_object_is_read(tmp_path):
    (file := tmp_path / "some.json").write_text('{"best": {"loss": 1.5}}')
    assert json_object(file) == {"best": {"loss": 1.5}}


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"cut": ', b"\xff\xfe", b"3", b"[" * 100_000])
def test_what_is_none_is_told_from_it(tmp_path, content):
    (file := tmp_path / "some.json").write_bytes(content)
    assert json_object(file) is None


def test_neither_are_a_folder_and_nothing(tmp_path):
    assert json_object(tmp_path) is None
    assert json_object(tmp_path / "none.json") is None
