"""Structural alignment: scores that are known, and those of another program."""

import numpy as np
import pytest
import torch

from app.evaluation.align import aligned_tm_score
from app.evaluation.tm_score import tm_score
from app.structure.read import read_structure, split_chains
from tests.data.made_demo import SETS
from tests.factories import random_rotations


def chain(index: int) -> np.ndarray:
    return SETS["held_out"].protein(index).atom37[:, 1]


def of(shared, name: str) -> np.ndarray:
    entry, letter = name.split("_")
    (path,) = (shared / "structures").glob(f"{entry}.*")
    return next(c for c in split_chains(read_structure(path)) if c.chain_ids == (letter,)).atom37[:, 1]


def longer(one, other):
    return aligned_tm_score(one, other, max(len(one), len(other)))


def turned(ca):
    return ca @ random_rotations(seed=3).numpy().T + 30


def test_itself_wherever_it_lies():
    for index in range(3):
        assert longer(chain(index), turned(chain(index))) == pytest.approx(1, abs=1e-3)


def test_a_part_of_it_counts_as_much_as_it_is():
    ca = chain(0)
    part = turned(ca[10:-15])
    assert aligned_tm_score(part, ca, len(part)) == pytest.approx(1, abs=1e-3)
    assert aligned_tm_score(part, ca, len(ca)) == pytest.approx(len(part) / len(ca), abs=1e-3)
    assert aligned_tm_score(ca, part, len(ca)) == pytest.approx(len(part) / len(ca), abs=1e-3)


def test_insertions_are_gaps():
    ca = chain(1)
    half = len(ca) // 2
    loop = ca[half] + np.cumsum(np.full((8, 3), 2.0), axis=0)
    assert longer(np.concatenate([ca[:half], loop, ca[half:]]), ca) == pytest.approx(len(ca) / (len(ca) + 8), abs=0.03)


def test_it_is_no_less_than_residue_by_residue():
    ca = chain(2)
    noisy = ca + np.random.default_rng(0).normal(0, 2, ca.shape).astype(np.float32)
    by_place = tm_score(torch.from_numpy(noisy), torch.from_numpy(ca), torch.ones(len(ca))).item()
    assert longer(noisy, ca) >= by_place - 0.01


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [  # by TM-align (tmtools 0.3.0), normalised by the longer
        ("1tim_A", "8tim_A", 0.980),
        ("1tim_A", "1tim_B", 0.964),
        ("1igy_A", "5tpn_H", 0.677),
        ("1o1z_A", "1tim_B", 0.555),
        ("2kl8_A", "3u8v_A", 0.383),
        ("1bc8_C", "4i6p_A", 0.363),
        ("1tim_A", "1aki_A", 0.200),
    ],
)
def test_scores_are_those_of_another_program(shared, one, other, score):
    assert longer(of(shared, one), of(shared, other)) == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize(("one", "other"), [("1tim_A", "1aki_A"), ("1aki_A", "4i39_A"), ("1bc8_C", "1brs_A")])
def test_unrelated_pairs_score_little(shared, one, other):
    assert longer(of(shared, one), of(shared, other)) < 0.35


def test_a_limit_spares_work_and_changes_no_score_above_it():
    ca, other = chain(0), chain(1)
    high = aligned_tm_score(ca + 0.3, ca, len(ca), limit=0.5)
    assert high == pytest.approx(1, abs=1e-3)
    assert aligned_tm_score(ca, other, 60, limit=0.99) <= aligned_tm_score(ca, other, 60) + 1e-6
    assert aligned_tm_score(ca[:10], ca, len(ca), limit=0.5) == 0, "too short to reach it"


def test_the_smallest_and_the_collapsed():
    assert aligned_tm_score(np.zeros((2, 3)), chain(0), 2) == 0
    assert aligned_tm_score(chain(0)[:3], chain(0), 3) == pytest.approx(1, abs=0.05)
    assert 0 <= aligned_tm_score(np.zeros((40, 3), np.float32), chain(0), 60) < 0.2
