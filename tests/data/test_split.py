"""Training and validation: whole clusters on either side, whatever the data set; and what an epoch draws of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from app.data.datamodule import ProteinDataModule, build_dataset
from app.data.part import Part, some_of
from app.data.seen import Seen
from app.data.split import ValidationSettings, held_out, split
from app.data.strings import Strings
from app.errors import UserError
from tests.data import families, made_multiflow
from tests.data.made_structures import write_sequences


def drawn_set(seed):
    """(names, clusters) of a data set at random: one cluster to many, of equal sizes or one that holds nearly all."""
    random = np.random.default_rng(seed)
    examples = int(random.integers(2, 400))
    number = int(random.integers(2, max(3, examples)))
    clusters = (random.power(random.choice([0.3, 1, 3]), examples) * number).astype(np.int64)
    clusters[:2] = [0, number]  # two at least
    return [f"p{index:03d}_{'AB'[index % 2]}" for index in random.permutation(examples)], clusters


def whole_of(names):
    return SimpleNamespace(names=Strings.pack(names), lengths=np.arange(len(names)) + 40)


@pytest.mark.parametrize("seed", range(40))
def test_no_cluster_is_on_both_sides(seed):
    names, clusters = drawn_set(seed)
    random = np.random.default_rng(seed)
    fraction, one_of_each = random.choice([0.02, 0.1, 0.5]), seed % 2
    settings = ValidationSettings(fraction=fraction, seed=seed)
    training, validation = split(whole_of(names), clusters, settings, clusters if one_of_each else None)
    cluster_of = dict(zip(names, clusters.tolist(), strict=True))
    sides = [{cluster_of[name] for name in side.names} for side in (training, validation)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert sorted([*training.names, *validation.names]) == sorted(names)
    smallest = min(np.unique(clusters, return_counts=True)[1])
    assert len(validation) <= max(fraction * len(names), smallest)
    for side, own in zip((training, validation), sides, strict=True):
        drawn = [cluster_of[side.names[index]] for index in side.draw(3, 1)]
        assert sorted(drawn) == sorted(own) if one_of_each else len(drawn) == len(side)
        assert side.lengths.tolist() == [40 + names.index(name) for name in side.names]


def test_the_choice_depends_on_names_and_seed_and_survives_growth():
    random = np.random.default_rng(0)
    names, clusters = [f"p{index}" for index in range(1000)], random.integers(0, 200, 1000)

    def chosen(names, clusters, seed=0):
        return {names[index] for index in np.flatnonzero(held_out(names, clusters, settings(seed)))}

    def settings(seed):
        return ValidationSettings(fraction=0.1, seed=seed)

    first = chosen(names, clusters)
    assert 80 <= len(first) <= 100
    order = random.permutation(1000)
    assert chosen([names[index] for index in order], clusters[order] + 7) == first
    assert chosen(names, clusters, seed=1) != first
    more = [*names, *(f"q{index}" for index in range(100))]
    grown = chosen(more, np.concatenate([clusters, 200 + np.arange(100)]))
    assert len(first & grown) > 0.8 * len(first)


def test_some_of_a_set_that_grows_are_much_the_same():
    names = [f"p{index:03d}" for index in range(200)]
    few, more = some_of(names, 20), some_of(names[:100], 20)
    assert len(set(few.tolist())) == 20 and sorted(some_of(names, None).tolist()) == list(range(200))
    assert {index for index in few.tolist() if index < 100} <= set(more.tolist())
    again = some_of(names[::-1], 20)
    assert [names[::-1][index] for index in again] == [names[index] for index in few]
    assert len(some_of(names, 500)) == 200 and some_of([], 3).dtype == int


def test_clusters_of_given_names_are_held_out():
    names, clusters = ["1abc_A", "1abc_B", "2xyz_A", "3klm_A", "4nop_A"], np.array([0, 1, 0, 2, 3])
    settings = ValidationSettings(hold_out=("1ABC",))
    assert held_out(names, clusters, settings).tolist() == [True, True, True, False, False]
    settings = ValidationSettings(hold_out=("1abc_b",), fraction=0.4)
    assert held_out(names, clusters, settings).sum() == 2
    with pytest.raises(UserError, match=r"data.validation.hold_out: 9xyz is none of the examples"):
        held_out(names, clusters, ValidationSettings(hold_out=("9xyz",)))
    with pytest.raises(UserError, match="nothing is left to train on"):
        held_out(names, clusters, ValidationSettings(hold_out=("1abc", "3klm", "4nop")))


def test_a_single_cluster_cannot_be_parted():
    with pytest.raises(UserError, match=r"fraction=0.1: the 3 examples are all of one cluster.*fraction=0$"):
        held_out(["a", "b", "c"], np.zeros(3, dtype=np.int64), ValidationSettings(fraction=0.1))
    assert not held_out(["a", "b", "c"], np.zeros(3, dtype=np.int64), ValidationSettings(fraction="auto")).any()


def test_auto_holds_out_where_there_is_enough():
    auto = ValidationSettings(fraction="auto")
    assert not held_out([f"p{n}" for n in range(49)], np.arange(49), auto).any()
    assert held_out([f"p{n}" for n in range(300)], np.arange(300), auto).sum() == 6
    assert not auto.is_on(49) and auto.is_on(50) and not ValidationSettings().is_on(10_000)
    for wrong in ("half", 1.0, -0.1):
        with pytest.raises(UserError, match=r"data.validation.fraction=.*: wanted 'auto' or"):
            build_dataset({"kind": "structures", "path": "x", "validation": {"fraction": wrong}})


class Whole:
    names, lengths = ("a", "b", "c"), (5, 6, 7)

    def __getitem__(self, index):
        return {"name": self.names[index]}

    def augment(self, features, random):
        return features


def test_a_part_reads_its_own_examples():
    part = Part(Whole(), np.array([2, 0]))
    assert part.names == ["c", "a"] and part[0] == {"name": "c"} and part[1] == {"name": "a"}
    assert part.lengths.tolist() == [7, 5] and part.augment({}, None) == {} and part.draw(0, 0).tolist() == [0, 1]


@pytest.fixture
def folder(tmp_path):
    """Ten families of three; one entry holds a chain of the first and one of the second."""
    random = np.random.default_rng(0)
    for family in range(10):
        first = families.ancestor(random, 70)
        for member in range(3):
            write_sequences(tmp_path / "files" / f"f{family}m{member}.pdb", families.descendant(random, first, 0.8))
        if family < 2:
            tmp_path.joinpath(f"{family}").write_text(families.descendant(random, first, 0.8))
    write_sequences(tmp_path / "files" / "both.pdb", *((tmp_path / str(n)).read_text() for n in range(2)))
    return tmp_path


def prepared(folder, **settings):
    data = {"kind": "structures", "path": str(folder / "files"), "cache_dir": str(folder / "cache"), "workers": 1}
    module = ProteinDataModule({**data, **settings})
    module.setup()
    return module


def family_of(name):
    return 0 if name.startswith("both") else int(name[1])


def test_a_folder_by_its_sequences(folder):
    data = prepared(folder, validation={"fraction": 0.25}, sample_by="cluster")
    sides = [{family_of(name) for name in side.names if "both" not in name} for side in (data.dataset, data.held_out)]
    assert sorted([*sides[0], *sides[1]]) == list(range(10)) and len(sides[1]) == 2
    assert len(data.dataset.draw(0, 0)) == 8 == len({family_of(data.dataset.names[i]) for i in data.dataset.draw(5, 0)})
    again = prepared(folder, validation={"fraction": 0.25}, sample_by="cluster")
    assert again.held_out.names == data.held_out.names
    assert prepared(folder).held_out is None, "unless it is asked for"
    assert prepared(folder, validation={"fraction": "auto"}).held_out is None, "31 examples are few"


def test_an_entry_of_several_chains_joins_their_families(folder):
    for seed in range(8):
        data = prepared(folder, chains="together", validation={"fraction": 0.3, "seed": seed})
        held, trained = ({family_of(name) for name in side.names} for side in (data.held_out, data.dataset))
        assert not held & trained and len({0, 1} & held) != 1
    apart = prepared(folder, validation={"hold_out": ["both_A"]})
    assert {"f0m0_A", "f0m1_A", "f0m2_A"} < set(apart.held_out.names) and "both_B" in apart.dataset.names


def test_a_folder_by_a_cluster_file(folder):
    (folder / "given").write_text("F0M0_A F5M0_A\nf1m0_A\nf2m0_A f2m1_A\n")
    data = prepared(folder, clusters=str(folder / "given"), validation={"hold_out": ["f5m0"]})
    assert set(data.held_out.names) == {"f0m0_A", "f5m0_A"}
    assert set(data.dataset.names) == {"f1m0_A", "f2m0_A", "f2m1_A"}, "those in no cluster are left out"
    assert len(prepared(folder, clusters=str(folder / "given")).dataset) == 5


def test_multiflow_by_its_cluster_file(tmp_path):
    rows = [made_multiflow.row(f"1aa{letter}", num_chains=2) for letter in "abcdef"]
    clusters = "1AAA_A 1AAB_A\n1AAA_B 1AAC_A\n1AAD_A 1AAE_A\n1AAF_A\n"
    folder = made_multiflow.write(tmp_path, rows, **{"pdb.clusters": clusters})
    data = {"kind": "multiflow", "path": str(folder), "filter": {"num_chains": [2]}}
    for seed in range(6):
        module = ProteinDataModule({**data, "validation": {"fraction": 0.4, "seed": seed}})
        module.setup()
        held = set(module.held_out.names)
        assert {"1aaa", "1aab", "1aac"} & held in (set(), {"1aaa", "1aab", "1aac"}), "chains of a complex"
        assert {"1aad", "1aae"} & held in (set(), {"1aad", "1aae"})
    module = ProteinDataModule({**data, "validation": {"hold_out": ["1aaf"]}})
    module.setup()
    assert len(module.dataset.draw(0, 0)) == 3, "one of each cluster of the file, as Multiflow draws"
    module = ProteinDataModule({**data, "sample_by": "chain"})
    module.setup()
    assert len(module.dataset.draw(0, 0)) == 6


def test_multiflow_without_clusters_says_how_to_make_them(tmp_path):
    rows = [made_multiflow.row(f"1{a}{b}{c}") for a in "abcd" for b in "abcd" for c in "abcd"]
    folder = made_multiflow.write(tmp_path, rows)
    module = ProteinDataModule({"kind": "multiflow", "path": str(folder), "validation": {"fraction": "auto"}})
    module.setup()
    assert module.held_out is None
    module = ProteinDataModule({"kind": "multiflow", "path": str(folder), "validation": {"fraction": 0.1}})
    with pytest.raises(UserError, match=r"no cluster file.*python -m app data cluster .* --to .*pdb.clusters"):
        module.setup()


def test_where_the_filters_leave_nothing_that_is_what_is_said(tmp_path):
    folder = made_multiflow.write(tmp_path, [made_multiflow.row("1aaa")], **{"pdb.clusters": "1AAB_A"})
    module = ProteinDataModule({"kind": "multiflow", "path": str(folder), "validation": {"fraction": "auto"}})
    with pytest.raises(UserError, match="no usable example"):
        module.batches_per_epoch()


def test_the_demo_set_has_its_held_out_chains():
    module = ProteinDataModule({"kind": "demo"})
    module.setup()
    assert len(module.dataset) == 320 and len(module.held_out) == 32
    assert not set(module.dataset.names) & set(module.held_out.names)


class Folder:
    """Examples of given clusters."""

    def __init__(self, **cluster_of):
        self.names, self.lengths = list(cluster_of), [50] * len(cluster_of)
        self.clusters = np.array(list(cluster_of.values()))

    def split(self, seen=None, **settings):
        """(names trained on, names held out)"""
        sides = split(self, self.clusters, ValidationSettings(**settings), None, seen)
        return tuple(set() if side is None else set(side.names) for side in sides)


SEEN = Seen({"a", "b", "c"}, {"d", "e"})


@pytest.mark.parametrize("settings", [{}, {"fraction": 0.2, "seed": 7}, {"fraction": 0.5}, {"hold_out": ("d",)}])
def test_whoever_goes_on_keeps_to_the_sides(settings):
    same = Folder(a=0, b=0, c=1, d=2, e=3)
    assert same.split(SEEN, **settings) == ({"a", "b", "c"}, {"d", "e"})
    grown = Folder(A=3, B=1, a=0, b=0, c=1, d=2, e=3)
    assert grown.split(SEEN, **settings) == ({"a", "b", "c", "B"}, {"d", "e", "A"})


def test_what_is_like_both_sides_is_left_out():
    assert Folder(a=0, b=1, c=2, d=0, e=3, new=0).split(SEEN) == ({"a", "b", "c"}, {"d", "e"})


def test_new_clusters_are_split_by_the_settings():
    grown = Folder(a=0, b=0, c=1, d=2, e=3, v=4, w=5, x=6, y=7, z=8)
    trained, held = grown.split(SEEN, fraction=0.4)
    assert len(held) == 4 and held > {"d", "e"} and trained >= {"a", "b", "c"} and trained | held == set(grown.names)
    assert grown.split(SEEN, fraction=0.2) == (set("abcvwxyz"), {"d", "e"})
    assert grown.split(SEEN, hold_out=("z",)) == (set("abcvwxy"), {"d", "e", "z"})
    with pytest.raises(UserError, match="hold_out: a is like what this run has trained on"):
        grown.split(SEEN, hold_out=("a",))


def test_other_data_are_split_anew():
    other = Folder(**dict(zip("pqrstuvwxy", range(10), strict=True)))
    assert other.split(SEEN, fraction=0.3) == other.split(fraction=0.3)


def test_a_checkpoint_keeps_the_sides():
    names = Seen({"a", "b\udcff"}, {"ü", ""})
    assert Seen.of_state(names.state()) == names
    assert Seen.of_state({"batches": 3}) is None
    assert names.and_then(["b"], ["ü"]) == Seen({"a", "b", "b\udcff"}, {"ü"})
