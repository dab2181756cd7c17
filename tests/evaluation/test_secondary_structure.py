"""DSSP against what is known of real structures and of the demo's chains."""

import time
from itertools import groupby

import numpy as np
import pytest
import torch

from app.evaluation.secondary_structure import contents, dssp, elements, secondary_structure
from app.geometry import internal
from app.geometry.backbone import to_atom37
from app.structure.read import read_structure, split_chains
from app.types import Frames
from tests.data.made_demo import SETS
from tests.factories import generator, random_rotations


def helix(length: int = 16) -> torch.Tensor:
    """N, CA, C of an ideal alpha helix, [N, 3, 3] angstrom."""
    torsions = (np.full(length, np.radians(angle)) for angle in (-57.8, -47.0, 180.0))
    return torch.from_numpy(internal.backbone(*torsions)[:, :3].copy()).float()


def one_chain(length: int) -> torch.Tensor:
    return torch.ones(length, dtype=torch.int64)


def chain_of(path, number: int = 0):
    protein = split_chains(read_structure(path))[number]
    return (
        torch.from_numpy(protein.atom37[:, :3]),
        torch.from_numpy(protein.chain_idx),
        torch.from_numpy(protein.aatype),
    )


def alternation(order: str) -> str:
    return "".join(kind for kind, _ in groupby(order))


@pytest.mark.parametrize("entry", ["1tim", "8tim"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_barrel_has_eight_strands_and_helices_between_them(shared, entry, number):
    order = elements(secondary_structure(*chain_of(shared / f"structures/{entry}.pdb.gz", number)))
    assert alternation(order) == "EH" * 8
    assert order.count("E") == 8


@pytest.mark.parametrize("number", [0, 1])
def test_helices_of_two_pieces_count_twice_and_alternate_as_one(shared, number):
    """docs/metrics.md: 12 helices of 1tim are eight runs, one after each strand."""
    order = elements(secondary_structure(*chain_of(shared / "structures/1tim.pdb.gz", number)))
    assert (order.count("E"), order.count("H")) == (8, 12) and alternation(order) == "EH" * 8


def test_lysozyme_is_mainly_helical(shared):
    states = secondary_structure(*chain_of(shared / "structures/1aki.cif.gz"))
    found = contents(states)
    assert 0.35 < found["helix"] < 0.45 and found["strand"] < 0.12
    # helices of the entry by its depositors: residues 5-14, 25-36, 80-84, 89-101, 104-107, 109-114, 120-124
    for first, last in ((5, 14), (25, 36), (89, 99)):
        assert states[first:last].count("H") >= last - first - 2, (first, last)


def test_a_designed_fold(shared):
    """2kl8, a ferredoxin."""
    assert elements(secondary_structure(*chain_of(shared / "structures/2kl8.pdb.gz"))) == "EHEEHE"


def test_states_are_those_of_another_program(shared):
    """1tim, chain A, residues 1 to 60, by mdtraj 1.11."""
    theirs = "-----EEEEE------HHHHHHHHHHHHH-------EEEEE----HHHHHHHH----EEEEEE"
    ours = dssp(*chain_of(shared / "structures/1tim.pdb.gz"))
    assert sum(one == other for one, other in zip(ours, theirs, strict=False)) >= 60


def test_helices_of_the_demo_chains_are_found():
    data = SETS["held_out"]
    right = total = 0
    for index in range(len(data)):
        protein = data.protein(index)
        found = secondary_structure(torch.from_numpy(protein.atom37[:, :3]), one_chain(len(protein)))
        both = list(zip(found, data.secondary_structure[index], strict=True))
        right += sum((one == "H") == (other == "H") for one, other in both)
        total += len(both)
    assert right / total > 0.85


def test_an_ideal_helix_wherever_it_lies():
    states = dssp(helix(), one_chain(16))
    assert set(states[1:-1]) == {"H"}
    moved = helix() @ random_rotations(seed=1).T + 40
    assert dssp(moved, one_chain(16)) == states
    mirrored = helix() * torch.tensor([1.0, 1.0, -1.0])
    assert dssp(mirrored, one_chain(16)) == states, "hydrogen bonds do not tell left from right"


def test_prolines_have_no_hydrogen():
    prolines = torch.full((16,), 14)
    assert set(dssp(helix(), one_chain(16), prolines)) == {"-"}


def test_a_helix_that_is_cut_in_two_by_chains_or_distance_is_two():
    last = torch.arange(16) >= 12  # four residues are too few for a helix of their own
    apart = helix()
    apart[12:] += 10
    for backbone, chain in ((helix(), one_chain(16) + last), (apart, one_chain(16))):
        assert secondary_structure(backbone, chain)[12:] == "LLLL"


def test_random_points_and_what_fell_apart_have_none():
    for size in (5.0, 1e6, torch.nan):
        points = size * torch.randn(30, 3, 3, generator=generator())
        assert contents(secondary_structure(points, one_chain(30)))["helix"] == 0
    assert secondary_structure(torch.zeros(2, 3, 3), one_chain(2)) == "LL"
    assert secondary_structure(torch.zeros(0, 3, 3), one_chain(0)) == ""


def test_a_long_chain_that_is_one_clump_takes_no_time():
    """As of a design that collapsed: whatever lies within reach is bridged, in thousands of ladders."""
    frames = Frames(random_rotations(1000, seed=1), 0.3 * torch.randn(1000, 3, generator=generator()))
    began = time.process_time()
    assert "E" in dssp(to_atom37(frames)[:, :3], one_chain(1000))
    assert (
        time.process_time() - began < 10
    )  # 0.2 on an idle core, and minutes where each ladder was held against every other


def test_contents_and_elements():
    assert contents("HHEL") == pytest.approx({"helix": 0.5, "strand": 0.25})
    assert contents("") == {"helix": 0, "strand": 0}
    assert elements("LHHHHLLEEHHHLEEEHHHHH") == "HEEH", "three residues are no helix"
    assert elements("LELELEE") == "E", "a single bridge is no strand"
