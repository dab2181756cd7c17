"""Clusters and novelty of sets whose folds are known, and how much of a large set is compared."""

import numpy as np
import pytest

from app.errors import UserError
from app.evaluation.cache import Cache
from app.evaluation.diversity import clusters, digest_of
from app.evaluation.novelty import novelty, read_known
from app.evaluation.pool import Pool
from app.evaluation.subset import within
from tests.evaluation.made_designs import demo, helix, strand, write_demo
from tests.factories import random_rotations


def trace(ca: np.ndarray):
    return digest_of(ca), ca.astype(np.float32)


def turned(ca, seed):
    noise = np.random.default_rng(seed).normal(0, 0.5, ca.shape)
    return (ca + noise) @ random_rotations(seed=seed).numpy().T


@pytest.fixture
def pool():
    with Pool(1) as pool:
        yield pool


@pytest.fixture
def cache(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        yield cache


def test_designs_of_a_fold_are_a_cluster(pool, cache):
    folds = {"b": demo(1).atom37[:, 1], "c": helix(50)[:, 1], "d": strand(52)[:, 1]}
    traces = {name: trace(ca) for name, ca in folds.items()}
    traces |= {f"b{k}": trace(turned(folds["b"], k)) for k in range(3)}
    traces |= {"c1": trace(turned(folds["c"], 9))}
    found = clusters(traces, pool, cache)
    assert found.keys() == traces.keys()
    assert {name for name, number in found.items() if number == 0} == {"b", "b0", "b1", "b2"}
    assert found["c"] == found["c1"] == 1
    assert len(set(found.values())) == 3


def test_a_chain_of_pairs_links(pool, cache):
    """Single linkage: of three helices the shortest is too short for the longest, and both are like the middle one."""
    traces = {str(length): trace(helix(length)[:, 1]) for length in (30, 50, 80)}
    assert set(clusters(traces, pool, cache).values()) == {0}
    del traces["50"]
    assert len(set(clusters(traces, pool, cache).values())) == 2


def test_pairs_that_were_compared_are_remembered(pool, cache, monkeypatch):
    traces = {name: trace(demo(index).atom37[:, 1]) for index, name in enumerate("abc")}
    before = clusters(traces, pool, cache)
    monkeypatch.setattr("app.evaluation.align.aligned_tm_score", None)
    assert clusters(traces, pool, cache) == before
    with pytest.raises(TypeError):
        clusters(traces | {"d": trace(demo(0).atom37[:, 1] * 1.01)}, pool, cache)


def test_novelty_is_the_nearest_of_what_is_known(tmp_path, pool, cache):
    for index in range(3):
        write_demo(tmp_path / f"known/k{index}.pdb", index)
    (tmp_path / "known/bad.pdb").write_text("nothing")
    said = []
    known = read_known(tmp_path / "known", said.append)
    assert list(known) == ["k0_A", "k1_A", "k2_A"]
    assert len(said) == 1 and "bad.pdb: the file holds no atoms" in said[0]
    designs = {
        "same": [turned(demo(1).atom37[:, 1], 4)],
        "new": [strand(60)[:, 1]],
        "half": [strand(60)[:, 1], demo(2).atom37[:, 1]],
    }
    found = novelty(designs, known, pool, cache)
    assert found["same"][0] > 0.9 and found["same"][1] == "k1_A"
    assert found["new"][0] < 0.5
    assert found["half"] == (pytest.approx(1, abs=1e-3), "k2_A"), "the nearest of its chains counts"
    assert novelty(designs, known, pool, cache) == found


def test_a_folder_without_structures_is_refused(tmp_path):
    with pytest.raises(UserError, match="no structure that can be used"):
        read_known(tmp_path, print)


def test_a_budget_chooses_by_chance_and_keeps_the_order():
    lengths = {f"d{k}": 100 for k in range(100)}
    some = within(lengths, 0.5, seed=0)
    assert len(some) == 10, "45 pairs of 100 by 100 residues"
    assert (
        some == sorted(some, key=lambda name: int(name[1:])) == within(lengths, 0.5, seed=0) != within(lengths, 0.5, 1)
    )
    assert within(lengths, 100, seed=0) == list(lengths)
    assert within(lengths, 0, 0) == [] and within(lengths, 1e-9, 0) == []
    assert within({"only": 50}, 1, 0) == ["only"]
    assert len(within(lengths, 1.0, 0, others=1000)) == 10


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path, cache):
    tasks = list(range(-5, 5))
    with Pool(2) as pool:
        assert list(pool.map(abs, tasks, enough=True)) == list(map(abs, tasks))
        assert list(pool.map(abs, tasks, enough=False)) == list(map(abs, tasks))
