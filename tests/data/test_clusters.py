"""Clusters by sequence: families stay together, strangers apart; held against exhaustive alignment on real chains."""

import itertools

import numpy as np
import pytest
from biotite.sequence import ProteinSequence
from biotite.sequence.align import align_optimal

from app.data import cluster_cache
from app.data.cluster_cache import clusters_of_sequences
from app.data.cluster_file import clusters_of_file, joined, write_clusters
from app.data.clusters import cluster, twilight
from app.data.likeness import Likeness
from app.data.similar import MATRIX
from app.data.structures import StructureDataset, survey
from app.data.structures_settings import StructuresSettings
from app.errors import UserError
from tests.data.families import ancestor, descendant


def families(random, number, members, identity, shortest=60, longest=300):
    """(sequences, family of each), shuffled."""
    made = []
    for family in range(number):
        first = ancestor(random, int(random.integers(shortest, longest)))
        made += [(descendant(random, first, identity), family) for _ in range(members)]
    made = [made[place] for place in random.permutation(len(made))]
    return [one for one, _ in made], np.array([family for _, family in made])


def pairs(labels):
    """Who is with whom, whatever the labels are called."""
    return labels[:, None] == labels[None]


def test_families_are_found_and_strangers_are_not_joined():
    sequences, family = families(np.random.default_rng(0), number=40, members=4, identity=0.7)  # some 50 % in pairs
    assert np.array_equal(pairs(cluster(sequences, Likeness())), pairs(family))


def test_remote_families_are_mostly_found():
    sequences, family = families(np.random.default_rng(1), 40, 4, identity=0.6, shortest=120)  # some 38 % in pairs
    clusters = cluster(sequences, Likeness())
    assert not (pairs(clusters) & ~pairs(family)).any()
    assert pairs(clusters)[pairs(family)].mean() > 0.95


def test_depends_on_the_sequences_alone():
    random = np.random.default_rng(2)
    sequences, _ = families(random, 20, 3, 0.65)
    clusters = cluster(sequences, Likeness())
    order = random.permutation(len(sequences))
    again = cluster([sequences[place] for place in order], Likeness())
    assert np.array_equal(pairs(again), pairs(clusters[order]))
    first = [clusters.tolist().index(number) for number in range(clusters.max() + 1)]
    assert first == sorted(first), "numbered as they appear"


def test_the_measure_can_be_set():
    random = np.random.default_rng(3)
    first = ancestor(random, 200)
    near, far, part = descendant(random, first, 0.97, indels=0), descendant(random, first, 0.6, indels=0), first[50:130]
    assert cluster([first, near, far, part], Likeness()).tolist() == [0, 0, 0, 0]
    assert cluster([first, near, far, part], Likeness(min_identity=0.9)).tolist() == [0, 0, 1, 0]
    # coverage is of the shorter chain: a chain that holds half of another and more of its own is another protein
    half = first[:100] + ancestor(random, 110)
    assert cluster([first, half], Likeness()).tolist() == [0, 1]
    assert cluster([first, half], Likeness(min_coverage=0.3)).tolist() == [0, 0]


def test_a_sequence_like_two_joins_them():
    random = np.random.default_rng(4)
    one, other = ancestor(random, 200), ancestor(random, 200)
    bridge = one[:95] + other[:95]
    likeness = Likeness(min_coverage=0.4)
    assert cluster([one, other], likeness).tolist() == [0, 1]
    assert cluster([one, other, bridge], likeness).tolist() == [0, 0, 0]


def test_chains_of_an_example_join_their_clusters():
    random = np.random.default_rng(5)
    a, b, c = (ancestor(random, 120) for _ in range(3))
    like_a, like_b = descendant(random, a, 0.8), descendant(random, b, 0.8)
    assert cluster([like_a, c, f"{a}/{b}", like_b], Likeness()).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([], []),
        (["A"], [0]),
        (["ACDEF", "ACDEF", "X", "X", "XXXXXXXX"], [0, 0, 1, 1, 2]),
        (["X" * 80, "X" * 90, "A" * 80], [0, 1, 2]),
        (["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"] * 3, [0, 0, 0]),
    ],
)
def test_what_hardly_is_a_sequence(sequences, expected):
    assert cluster(sequences, Likeness()).tolist() == expected


@pytest.mark.parametrize("repeat", ["G", "A", "GS", "GGS"])
def test_backbones_of_one_repeat_are_of_one_cluster(repeat):
    sequences = [(repeat * 150)[:length] for length in (60, 61, 100, 150)]
    assert cluster(sequences, Likeness()).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("length", "identity", "least"), [(40, 0.6, 30), (60, 0.5, 29), (100, 0.4, 26)])
def test_short_chains_are_held_together_too(length, identity, least):
    """Thirty pairs of one length, of random residues, substituted at random: the hardest kind."""
    random, letters = np.random.default_rng(8), np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    found = 0
    for _ in range(30):
        one = random.integers(0, 20, length)
        other = one.copy()
        changed = random.choice(length, round((1 - identity) * length), replace=False)
        other[changed] = (one[changed] + random.integers(1, 20, len(changed))) % 20
        found += cluster(["".join(letters[one]), "".join(letters[other])], Likeness()).tolist() == [0, 0]
    assert found >= least


def test_strangers_are_not_joined_by_their_number():
    random = np.random.default_rng(9)
    sequences = [ancestor(random, int(length)) for length in random.integers(40, 200, 300)]
    assert cluster(sequences, Likeness()).max() + 1 >= 299


def test_twilight_zone():
    """5 % above the curve of identity of Rost (1999), equation 2."""
    assert [round(100 * twilight(pairs), 1) for pairs in (5, 40, 100, 450, 1000)] == [100, 52.4, 34.0, 24.5, 24.5]


def test_repeats_are_no_burden():
    random = np.random.default_rng(6)
    repeat = ancestor(random, 10)
    sequences = ["A" * 400, "G" * 380, repeat * 40, repeat * 30, "AG" * 200]
    clusters = cluster(sequences, Likeness())
    assert clusters[2] == clusters[3]


def test_made_once_and_kept(tmp_path, monkeypatch):
    sequences, _ = families(np.random.default_rng(7), 5, 2, 0.9)
    first = clusters_of_sequences(sequences, Likeness(), tmp_path)
    made = []
    monkeypatch.setattr(cluster_cache, "cluster", lambda *_: made.append(1) or np.zeros(10, dtype=np.int64))
    assert np.array_equal(clusters_of_sequences(sequences, Likeness(), tmp_path), first) and not made
    (file,) = tmp_path.rglob("*.clusters")
    file.write_bytes(file.read_bytes()[:-3])
    clusters_of_sequences(sequences, Likeness(), tmp_path)
    clusters_of_sequences(sequences, Likeness(min_identity=0.5), tmp_path)
    clusters_of_sequences(sequences[1:], Likeness(), tmp_path)
    assert len(made) == 3


def test_cluster_files(tmp_path):
    file = tmp_path / "some.clusters"
    write_clusters(file, ["1ubq_A", "2kl8_A", "2kl8_B", "3u8v_A"], [0, 1, 0, 2])
    assert file.read_text() == "1ubq_A 2kl8_B\n2kl8_A\n3u8v_A\n"
    assert clusters_of_file(file, ["3U8V_A", "1ubq_a", "9xyz_A", "2kl8_B", "2kl8_A"]).tolist() == [0, 1, -1, 1, 2]
    assert clusters_of_file(file, ["2kl8", "3u8v", "1ubq"]).tolist() == [0, 1, 0], "an entry joins its chains' clusters"
    with pytest.raises(UserError, match=r"some.clusters: knows none of the examples; .* as in 1ubq_A"):
        clusters_of_file(file, ["nothing"])
    with pytest.raises(UserError, match=r"nowhere: not a readable cluster file"):
        clusters_of_file(tmp_path / "nowhere", ["1ubq_A"])
    with pytest.raises(UserError, match="cannot be written"):
        write_clusters(tmp_path / "some.clusters" / "below", [], [])


def test_joining():
    assert joined([]).tolist() == [] and joined([[], []]).tolist() == [-1, -1]
    assert joined([[7], [3, 5], [], [5, 9], [9], [4]]).tolist() == [0, 1, -1, 1, 1, 2]


@pytest.mark.slow
def test_no_two_real_chains_in_different_clusters_are_alike(shared, tmp_path):
    """Held against an exhaustive alignment of each chain to each."""
    settings = StructuresSettings(path=shared / "structures", cache_dir=tmp_path, workers=2, sample_by="cluster")
    dataset = StructureDataset(settings)
    sequences = dict(zip(dataset.names, survey(settings, show_progress=False).sequences(), strict=True))
    cluster_of = dict(zip(dataset.names, dataset.clusters.tolist(), strict=True))
    for together in (["1k6p_A", "1qbs_B"], ["1tim_A", "8tim_B"], ["1igy_A", "2gfb_O", "7cth_M"], ["1igy_B", "5tpn_H"]):
        assert len({cluster_of[name] for name in together}) == 1
    assert len({cluster_of[name] for name in ("1k6p_A", "1tim_A", "1igy_A", "3zee_A")}) == 4

    one_each = {sequence: name for name, sequence in sequences.items()}.items()
    missed = [
        (one, other)
        for (a, one), (b, other) in itertools.combinations(one_each, 2)
        if cluster_of[one] != cluster_of[other] and are_alike(a, b)
    ]
    assert not missed


def are_alike(a, b):
    one, other = ProteinSequence(a), ProteinSequence(b)
    best = align_optimal(one, other, MATRIX, gap_penalty=(-11, -1), local=True, max_number=1)[0]
    both = best.trace[(best.trace >= 0).all(1)]
    identical = (one.code[both[:, 0]] == other.code[both[:, 1]]).sum()
    covered = len(both) >= 0.8 * min(len(one), len(other))
    return covered and identical >= 0.3 * len(both) and best.score > 95
