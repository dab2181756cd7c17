"""Demo sequences tell of demo structures, and held-out chains are new."""

import numpy as np
import pytest

from app.chem import atoms as slot
from app.chem.residues import AATYPES, to_sequence
from app.data.demo_fold import FOLDS
from app.data.demo_refinement import superposition
from app.data.demo_sequence import PROPENSITIES, draw_sequence, neighbours, probabilities
from app.geometry import internal
from tests.data.made_demo import BACKBONES, CHAINS, REMADE, SETS, made_chain, pooled, stretches, with_all_cb


def test_every_fold_and_every_kind_of_structure_is_there():
    states = "".join(states for _, states in CHAINS)
    for state, low, high in (("H", 0.3, 0.5), ("E", 0.25, 0.45), ("L", 0.15, 0.35)):
        assert low < states.count(state) / len(states) < high
    for data in SETS.values():
        for k, fold in enumerate(FOLDS):
            assert data.names[k].endswith(fold.replace(", ", "_").replace(" ", "_"))


def test_no_two_chains_are_alike_across_the_splits():
    """Neither in sequence nor in the lengths of their elements nor, where lengths are equal, in shape."""
    train, held_out = SETS["train"], SETS["held_out"]

    def element_lengths(data):
        return [tuple(end - first for s, first, end in stretches(x) if s != "L") for x in data.secondary_structure]

    trained = {
        (name.split("_", 3)[3], lengths) for name, lengths in zip(train.names, element_lengths(train), strict=True)
    }
    for name, lengths in zip(held_out.names, element_lengths(held_out), strict=True):
        assert (name.split("_", 4)[4], lengths) not in trained
    sequences = [to_sequence(protein.aatype) for protein, _ in CHAINS]
    assert len(set(sequences)) == len(sequences)
    for k in range(len(held_out)):
        mine = held_out.protein(k)
        for j in np.flatnonzero(train.lengths == len(mine)):
            other = train.protein(j)
            assert (mine.aatype == other.aatype).mean() < 0.6
            here, there = mine.atom37[:, slot.CA], other.atom37[:, slot.CA]
            rotation, shift = superposition(here, there)
            assert np.sqrt(((here @ rotation.T + shift - there) ** 2).sum(-1).mean()) > 1.0


def test_sequence_tells_of_structure():
    aatypes = pooled(protein.aatype for protein, _ in CHAINS)
    states = np.array(list("".join(states for _, states in CHAINS)))
    joint = np.zeros((20, 3))
    np.add.at(joint, (aatypes, np.array(["LHE".index(state) for state in states])), 1 / len(states))
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    information = np.nansum(joint * np.log2(np.divide(joint, independent, where=joint > 0, out=np.ones_like(joint))))
    assert information > 0.4  # bits a residue; some 0.08 in nature
    share = joint / joint.sum(0)
    helix, strand = share[:, 1], share[:, 2]
    for letter in "EKAL":
        assert helix[AATYPES.index(letter)] > 2 * strand[AATYPES.index(letter)]
    for letter in "VTYI":
        assert strand[AATYPES.index(letter)] > 2 * helix[AATYPES.index(letter)]


def test_hydrophobic_residues_are_buried():
    buried = pooled(neighbours(with_all_cb(backbone)) for backbone in BACKBONES)
    hydrophobic = np.isin(pooled(protein.aatype for protein, _ in CHAINS), [AATYPES.index(c) for c in "AVILMFWYC"])
    assert np.corrcoef(buried, hydrophobic)[0, 1] > 0.5


def test_positive_phi_is_for_glycine_and_the_few_that_bear_it():
    at_positive_phi = []
    for (protein, _), backbone in zip(CHAINS, BACKBONES, strict=True):
        phi = internal.torsions(backbone)[0]
        at_positive_phi.append(protein.aatype[1:][phi[1:] > 0])
    letters = to_sequence(pooled(at_positive_phi))
    assert letters.count("G") / len(letters) > 0.6
    assert set(letters) <= set("GNDKH")


def test_all_twenty_types_occur_in_tolerable_shares():
    counts = np.bincount(pooled(protein.aatype for protein, _ in CHAINS), minlength=20)
    assert len(counts) == 20
    assert counts.min() / counts.sum() > 0.004
    assert counts.max() / counts.sum() < 0.125


def test_the_tables_are_distributions_and_draws_follow_them():
    for environment, text in PROPENSITIES.items():
        percentages = [float(field) for field in text.split()[1::2]]
        assert sum(percentages) == pytest.approx(100), environment
    chain = made_chain("train", 4)
    backbone = with_all_cb(chain.atoms.astype(float))
    expected = probabilities(chain.letters, backbone)
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_sequence(rng, chain.letters, backbone) for _ in range(4000)])
    observed = np.stack([(drawn == k).mean(0) for k in range(20)], axis=1)
    np.testing.assert_allclose(observed, expected, atol=0.05)


def test_the_best_guess_from_structure_is_right_for_about_half_of_the_residues():
    """The header's ceiling is kept by the sequences: the commonest type of each environment, counted."""
    chains = [made_chain(*which) for which in REMADE]
    hits = [
        probabilities(chain.letters, with_all_cb(chain.atoms.astype(float))).argmax(1) == chain.aatype
        for chain in chains
    ]
    assert pooled(hits).mean() == pytest.approx(np.mean([chain.ceiling for chain in chains]), abs=0.1)
    assert 0.45 < np.mean([chain.ceiling for chain in chains]) < 0.6
