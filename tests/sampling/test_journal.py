"""Lines are whole or do not count, whatever ends the one who writes them."""

import os

import pytest

from app.sampling.journal import Journal, Journals

A, B, C = ({"id": name, "status": "done"} for name in "abc")


def test_records_of_all_processes_are_read_once_as_they_come(tmp_path):
    journals = Journals(tmp_path)
    with Journal(tmp_path, 0) as first, Journal(tmp_path, 1) as second:
        assert journals.new() == [] and not list(tmp_path.iterdir())
        first.add(A)
        second.add(B)
        assert journals.new() == [A, B]
        first.add(C)
        assert (journals.new(), journals.new()) == ([C], [])
        assert journals.ended == {}
        second.end("interrupted")
        first.end("done")
        assert (journals.new(), journals.ended) == ([], {0: "done", 1: "interrupted"})
    Journal(tmp_path, 2).add(A)
    assert journals.new() == [A]
    journals.remove_ended()
    assert [path.name for path in tmp_path.iterdir()] == [".journal-2.jsonl"]
    journals.remove()
    assert not list(tmp_path.iterdir()) and not journals.ended


def test_half_a_line_waits_for_its_other_half(tmp_path):
    path = tmp_path / ".journal-0.jsonl"
    path.write_bytes(b'{"id": "a", "status": "done"}\n{"id": "b", "st')
    journals = Journals(tmp_path)
    assert journals.new() == [A]
    with path.open("ab") as file:
        file.write(b'atus": "done"}\n')
    assert journals.new() == [B]


@pytest.mark.parametrize(
    "line", [b"\0" * 20, b"[]", b"7", b'{"id": ["x"]}', b'{"status": "done"}', b'{"ended": "done"}']
)
def test_what_is_no_record_is_passed_over(tmp_path, line):
    (tmp_path / ".journal-0.jsonl").write_bytes(line + b'\n{"id": "a", "status": "done"}\n')
    assert Journals(tmp_path).new() == [A]


def test_a_line_for_which_there_is_no_room_leaves_no_trace(tmp_path, monkeypatch):
    write = os.write
    with Journal(tmp_path, 0) as journal:
        journal.add(A)
        before = journal.path.read_bytes()

        def full(file, line):
            if len(line) < 20:
                raise OSError(28, "No space left on device")
            return write(file, line[:15])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.add(B)
        assert journal.path.read_bytes() == before
        monkeypatch.setattr(os, "write", write)
        journal.add(C)
    assert Journals(tmp_path).new() == [A, C]
