import gzip

import pytest

from app.chem.residues import to_sequence
from app.errors import UserError
from app.sampling.sequences import is_fasta, read_fasta


def read(tmp_path, text, name="a.fasta"):
    file = tmp_path / name
    data = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return [(one.name, to_sequence(one.aatypes), one.notes) for one in read_fasta(file)]


@pytest.mark.parametrize("name", ["a.fasta", "a.FA", "a.faa.gz"])
def test_records(tmp_path, name):
    assert is_fasta(tmp_path / name)
    text = "\ufeff>one some words\nACD EF\nghik\n\n>two\r\nWY*\r\n>\nLLL\n>empty\n"
    assert read(tmp_path, text, name) == [
        ("one", "ACDEFGHIK", []),
        ("two", "WY", []),
        ("", "LLL", []),
        ("empty", "", []),
    ]


def test_letters_that_are_no_residue_type(tmp_path):
    ((_, sequence, notes),) = read(tmp_path, ">a\nAU-OB.XJZ\n")
    assert sequence == "ACKXXXX"
    assert notes == [
        "2 gaps left out",
        "2 modified residues (U, O) read as their parents",
        "3 letters that are no residue type read as X: B J Z",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no FASTA record"),
        ("ACDEF\n", "holds no FASTA record"),
        (b"\x80\x81>a\nACD", "holds no FASTA record"),
    ],
)
def test_what_is_no_fasta(tmp_path, text, message):
    with pytest.raises(UserError, match=f"a.fasta: {message}"):
        read(tmp_path, text)


def test_a_record_with_what_is_no_residue_has_a_fault_of_its_own(tmp_path):
    (tmp_path / "a.fasta").write_text(">a\nACD:EFG\n>b\nACD\n>c\nAC1D/EFG\n")
    assert [(one.name, len(one.aatypes), one.fault) for one in read_fasta(tmp_path / "a.fasta")] == [
        ("a", 0, "it holds :, which is no residue; give one record a chain"),
        ("b", 3, None),
        ("c", 0, "it holds / 1, which is no residue; give one record a chain"),
    ]


def test_headers_in_any_encoding(tmp_path):
    ((name, sequence, _),) = read(tmp_path, ">prot\xe9ine 1\nACD\n".encode("latin-1"))
    assert (name, sequence) == ("prot\ufffdine", "ACD")


def test_damaged_and_missing(tmp_path):
    whole = gzip.compress(b">a\n" + b"ACDEFGHIKL" * 100)
    (tmp_path / "cut.fasta.gz").write_bytes(whole[:-12])
    with pytest.raises(UserError, match=r"cut.fasta.gz: the gzip data is truncated"):
        read_fasta(tmp_path / "cut.fasta.gz")
    with pytest.raises(UserError, match=r"none.fasta: no such file"):
        read_fasta(tmp_path / "none.fasta")
