"""`fix=...` against what a file has: by its own names, and nothing else."""

import dataclasses

import numpy as np
import pytest

from app.errors import UserError
from app.sampling.fix import fixed_residues
from app.structure.read import read_structure, read_structure_with_report
from app.structure.write import to_pdb
from tests.sampling.made_inputs import write_structure


@pytest.fixture
def protein(tmp_path):
    """Chain A: 5-9, 11-14. Chain H: -3 to 1, 3, 3A, 3B, 4."""
    read = read_structure(write_structure(tmp_path / "x.pdb", 9, 9, first=5))
    numbers = read.res_idx.copy()
    numbers[9:] -= 8
    ids = numbers.astype(str)
    ids[14:] = ["3", "3A", "3B", "4"]
    read = dataclasses.replace(read, chain_ids=("A", "H"), res_idx=numbers, residue_ids=ids)
    to_pdb(read, tmp_path / "y.pdb")
    return read_structure(tmp_path / "y.pdb")


def named(protein, *fix):
    mask, notes = fixed_residues(fix, protein, "y.pdb")
    letters = np.array(protein.chain_ids)[protein.chain_idx - 1]
    return [f"{chain}{name}" for chain, name in zip(letters[mask], protein.residue_ids[mask], strict=True)], notes


def refusal(protein, *fix):
    with pytest.raises(UserError) as caught:
        fixed_residues(fix, protein, "y.pdb")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_file_is_as_described(protein):
    assert " ".join(protein.residue_ids) == "5 6 7 8 9 11 12 13 14 -3 -2 -1 0 1 3 3A 3B 4"


def test_residues_ranges_and_chains(protein):
    assert named(protein, "A7-9") == (["A7", "A8", "A9"], [])
    assert named(protein, "A7", "A9", "A7") == (["A7", "A9"], [])
    assert len(named(protein, "H")[0]) == 9
    assert named(protein, "H:") == named(protein, "H")
    assert named(protein, "A:7-8") == named(protein, "A7-8")


def test_numbers_below_zero(protein):
    assert named(protein, "H-3") == (["H-3"], [])
    assert named(protein, "H-3--1") == (["H-3", "H-2", "H-1"], [])
    assert named(protein, "H-1-0") == (["H-1", "H0"], [])


def test_insertion_codes(protein):
    assert named(protein, "H3A") == (["H3A"], [])
    assert named(protein, "H3") == (["H3"], [])  # the residue of that name, not those inserted after it
    assert named(protein, "H3-3B") == (["H3", "H3A", "H3B"], [])
    assert named(protein, "H3A-3B") == (["H3A", "H3B"], [])


def test_a_range_may_hold_residues_that_the_file_lacks_and_its_ends_are_noted(protein):
    assert named(protein, "A9-11") == (["A9", "A11"], [])
    assert named(protein, "A1-6") == (["A5", "A6"], ["fix=A1-6: the file has no 1; fixed are A5-6"])
    inside, (note,) = named(protein, "A10-99")
    assert inside == ["A11", "A12", "A13", "A14"] and "no 10 and no 99" in note


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "B1-5",
        "A50",
        "A50-60",
        "A3A",
        "a7",
        "",
        "A-",
        "A7-",
        "A7:9",
        "*",
        "A7..9",
        "7",
        "A" + "9" * 400,
        "A7-" + "9" * 20,
    ],
)
def test_what_names_nothing_is_refused_with_what_there_is(protein, text):
    told = refusal(protein, "A7", text)
    assert told.startswith(f"fix={text}: names nothing in y.pdb, which has A5-9, ") and told.endswith(
        "A11-14, H-3-1, H3-4"
    )


def test_other_refusals(protein):
    assert refusal(protein, "A9-7").startswith("fix=A9-7: the range ends before it begins")
    assert refusal(protein, "H3B-3A").startswith("fix=H3B-3A: the range ends before it begins")
    assert refusal(protein, "A", "H").startswith("fix: names every residue of y.pdb, so that nothing is left to design")


def test_numbers_in_the_order_of_the_file(protein):
    """As in thrombin, whose light chain counts its insertion codes backwards."""
    ids = protein.residue_ids.copy()
    ids[:5] = ["1B", "1A", "1", "2", "3"]
    odd = dataclasses.replace(protein, residue_ids=ids)
    assert named(odd, "A1B-2")[0] == ["A1B", "A1A", "A1", "A2"]
    assert refusal(odd, "A1-1B").startswith("fix=A1-1B: the range ends before it begins")


def test_chain_names_that_can_be_read_in_two_ways(protein):
    odd = dataclasses.replace(protein, chain_ids=("A", "A1"))
    assert refusal(odd, "A13") == "fix=A13: may name A:13 or A1:3 of y.pdb: give one so"
    assert named(odd, "A:13")[0] == ["A13"]
    assert named(odd, "A1:3")[0] == ["A13"]
    assert len(named(odd, "A1")[0]) == 9  # no residue A1 there
    digits = dataclasses.replace(protein, chain_ids=("1", "2"))
    assert named(digits, "17-9")[0] == named(digits, "1:7-9")[0] == ["17", "18", "19"]
    assert "which has 1:5-9, 1:11-14, 2:-3-1, 2:3-4" in refusal(digits, "3")
    assert refusal(odd, "A110-5").startswith("fix=A110-5: the range ends before it begins")


def test_a_range_that_is_backwards_in_one_reading_alone_is_read_in_the_other(protein):
    odd = dataclasses.replace(protein, chain_ids=("A1", "A"))
    assert named(odd, "A111-14")[0] == named(odd, "A1:11-14")[0] != []


def file_with(folder, *changes):
    """A chain A of 1-9 and 11-18 with lines of its file changed; each change is of a line, None leaves it out."""
    path = write_structure(folder / "z.pdb", 17)
    lines = path.read_text().splitlines()
    for change in changes:
        lines = [new for line in lines if (new := change(line)) is not None]
    path.write_text("\n".join(lines))
    protein, report = read_structure_with_report(path)
    return protein, path, report.losses


def without_backbone(*numbers):
    return lambda line: None if line[22:26].strip() in numbers and line[12:16].strip() in ("N", "C") else line


def test_a_residue_that_was_not_read_cannot_be_fixed(tmp_path):
    protein, path, losses = file_with(tmp_path, without_backbone("15", "3"))
    for text, cure in {"A13-17": "A13-14,A16-17", "A15-17": "A16-17", "A": "A1-2,A4-9,A11-14,A16-18"}.items():
        with pytest.raises(UserError, match=rf"fix={text}: .*A15 of {path} cannot stay.* as in fix=\[{cure}\]"):
            fixed_residues([text], protein, path, losses)
    with pytest.raises(UserError, match=r"fix=A15: A15 of .* cannot stay, having no N, CA and C .* others alone$"):
        fixed_residues(["A15"], protein, path, losses)
    mask, notes = fixed_residues(["A4-14"], protein, path, losses)
    assert mask.sum() == 10 and notes == ["left out, having no N, CA and C that can be used: A3, A15"]


def test_a_chain_of_which_nothing_was_read_cannot_be_fixed(tmp_path):
    def second_chain(line):
        return line[:21] + "B" + line[22:] if line[22:26].strip() in ("16", "17", "18") else line

    protein, path, losses = file_with(tmp_path, without_backbone("16", "17", "18"), second_chain)
    for text, names in {"B": "B16, B17, B18", "B17": "B17"}.items():
        with pytest.raises(UserError, match=f"fix={text}: {names} of {path} cannot stay"):
            fixed_residues([text], protein, path, losses)


def test_what_fixed_residues_lose_is_noted(tmp_path):
    def renamed(line, number="4", name="SEP"):
        return line[:17] + name + line[20:] if line[22:26].strip() == number else line

    def more(line):
        """Phosphorus instead of a CB, and hydrogens, which are never read."""
        if line[22:26].strip() == "4" and line[12:16].strip() == "CB":
            return f"{line[:12]} P  {line[16:76]} P{line[78:]}"
        if line[22:26].strip() == "6" and line[12:16].strip() == "O":
            return f"{line[:12]}1HB {line[16:76]}  {line[78:]}"
        return line

    protein, path, losses = file_with(
        tmp_path, renamed, more, lambda line: renamed(line, "7", "MSE"), lambda line: renamed(line, "8", "HIE")
    )
    _, notes = fixed_residues(["A2-8"], protein, path, losses)
    assert notes == ["fix: not all as the file has it: A4 (SEP as SER, 1 heavy atom left out), A7 (MSE as MET)"]
    assert fixed_residues(["A1-3"], protein, path, losses)[1] == []


def test_an_antibody(shared):
    protein, _ = read_structure_with_report(shared / "structures/1igy.cif.gz")
    mask, notes = fixed_residues(["B82-83", "D52A"], protein, "1igy")
    assert protein.residue_ids[mask].tolist() == ["82", "82A", "82B", "82C", "83", "52A"] and notes == []
