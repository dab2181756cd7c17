"""A folder of structure files as training data: filters, cache, parallel building, killed and damaged builds."""

import gzip
import os
import pickle
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from app.data import cache, preprocess
from app.data.structures import StructureDataset, summary, survey
from app.data.structures_settings import StructuresSettings
from app.errors import UserError
from tests.data.made_structures import write


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    write(folder / "one.pdb", 50)
    write(folder / "two.pdb", 60, 30, seed=1)
    write(folder / "sub" / "three.ent", 70, seed=2)
    write(folder / "unknown.pdb", 80, aatype=20)
    write(folder / "long.pdb", 600)
    text = (folder / "one.pdb").read_bytes()
    (folder / "cut.pdb.gz").write_bytes(gzip.compress(text)[:-30])
    (folder / "empty.cif").write_text("")
    (folder / "README.md").write_text("not a structure")
    (folder / ".hidden.pdb").write_bytes(text)
    return folder


@pytest.fixture
def settings(folder, tmp_path):
    def make(**changes):
        return StructuresSettings(**{"path": folder, "cache_dir": tmp_path / "cache", "workers": 1} | changes)

    return make


def cached(tmp_path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}


def test_chains_that_pass_the_filters_are_examples_and_the_rest_has_reasons(settings):
    dataset = StructureDataset(settings())
    assert dataset.names == ["one_A", "three_A", "two_A"] and dataset.lengths.tolist() == [50, 70, 60]
    assert len(dataset) == 3 and dataset.draw(epoch=4, seed=1).tolist() == [0, 1, 2]
    reasons = dict(dataset.dropped)
    assert "shorter than min_length, 40" in reasons["two_B"]
    assert "longer than max_length, 512" in reasons["long_A"]
    assert "unknown residues" in reasons["unknown_A"]
    assert "gzip data is truncated" in reasons["cut"] and "empty" in reasons["empty"]
    assert len(reasons) == 5


def test_items_are_features_of_their_chain(settings):
    dataset = StructureDataset(settings())
    for index, length in enumerate(dataset.lengths):
        item = dataset[index]
        assert item["name"] == dataset.names[index]
        assert item["trans_1"].shape == (length, 3) and item["rotmats_1"].shape == (length, 3, 3)
        assert item["res_idx"].tolist() == list(range(1, length + 1)) and (item["chain_idx"] == 1).all()
        assert all(torch.isfinite(value).all() for value in item.values() if isinstance(value, torch.Tensor))


def test_chains_together(settings):
    dataset = StructureDataset(settings(chains="together"))
    assert dataset.names == ["one", "three", "two"]
    item = dataset[2]
    assert item["chain_idx"].tolist() == [1] * 60 + [2] * 30 and item["res_idx"][60] == 1


def test_limits_can_be_moved_without_preparing_anew(settings, tmp_path):
    StructureDataset(settings())
    before = cached(tmp_path)
    dataset = StructureDataset(settings(min_length=10, max_length=None, max_unknown_fraction=1.0))
    assert len(dataset) == 6 and cached(tmp_path) == before


def test_cache_is_keyed_by_content_and_by_how_chains_are_taken(settings, folder, tmp_path):
    StructureDataset(settings())
    first = cached(tmp_path)
    StructureDataset(settings())
    assert cached(tmp_path) == first, "nothing is done twice"
    StructureDataset(settings(chains="together"))
    assert len(cached(tmp_path)) == 2 * len(first)
    stat = (folder / "one.pdb").stat()
    write(folder / "one.pdb", 45, seed=9)
    os.utime(folder / "one.pdb", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    dataset = StructureDataset(settings())
    assert dataset.lengths[0] == 45, "content counts, not the date"
    os.rename(folder / "one.pdb", folder / "renamed.pdb")
    number = len(cached(tmp_path))
    assert "renamed_A" in StructureDataset(settings()).names and len(cached(tmp_path)) == number


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_damaged_cache_files_are_noticed_and_made_anew(settings, tmp_path, damage):
    dataset = StructureDataset(settings())
    whole = [dataset[index] for index in range(3)]
    for path in cached(tmp_path):
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[-5] ^= 0x10
        path.write_bytes({"cut": content[:-7], "flip": content, "empty": b"", "foreign": b"PK" + content}[damage])
    in_use = dataset[0]
    again = StructureDataset(settings())
    for index, item in enumerate(whole):
        assert torch.equal(again[index]["trans_1"], item["trans_1"])
    assert torch.equal(in_use["rotmats_1"], whole[0]["rotmats_1"])
    assert all(cache.load(path) for path in cached(tmp_path))


def test_source_changed_while_in_use(settings, folder, tmp_path):
    dataset = StructureDataset(settings())
    for path in cached(tmp_path):
        path.unlink()
    write(folder / "one.pdb", 44, seed=5)
    with pytest.raises(UserError, match=r"one.pdb: changed or removed"):
        dataset[0]


def test_pickles_small_and_works_in_a_loader_worker(settings):
    dataset = StructureDataset(settings())
    dataset[0]
    content = pickle.dumps(dataset)
    assert len(content) < 10_000
    assert torch.equal(pickle.loads(content)[1]["trans_1"], dataset[1]["trans_1"])


def test_a_defect_met_in_one_file_drops_it(settings, monkeypatch):
    real = preprocess.read_content

    def stumble(content, path):
        if path.name == "two.pdb":
            raise IndexError("list index\nout of range")
        return real(content, path)

    monkeypatch.setattr(preprocess, "read_content", stumble)
    found = survey(settings())
    assert dict(found.dropped)["two"] == "unexpected IndexError: list index out of range"
    assert found.names == ["one_A", "three_A"]


def test_files_of_one_name_stay_apart(folder, settings):
    write(folder / "sub" / "one.pdb", 55, seed=8)
    names = StructureDataset(settings()).names
    assert len(set(names)) == len(names) == 4 and "sub_one.pdb_A" in names and "one.pdb_A" in names


def test_one_file_as_path(folder, settings):
    assert StructureDataset(settings(path=folder / "two.pdb")).names == ["two_A"]


def test_nothing_usable_says_why(settings, tmp_path, folder):
    with pytest.raises(UserError, match=r"nothing usable in 7 .*shorter than min_length, 5000") as caught:
        StructureDataset(settings(min_length=5000, max_length=None))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no structure files"):
        StructureDataset(settings(path=tmp_path / "none"))
    with pytest.raises(UserError, match="no such folder"):
        StructureDataset(settings(path=tmp_path / "nowhere"))
    with pytest.raises(UserError, match="not a structure file by its suffix"):
        StructureDataset(settings(path=folder / "README.md"))


def test_cache_folder_that_is_a_file(settings, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"taken.* set cache_dir"):
        StructureDataset(settings(cache_dir=tmp_path / "taken"))


def test_settings_contradict_each_other():
    with pytest.raises(ValidationError, match="max_length=20 is below min_length=40"):
        StructuresSettings(path="x", max_length=20)
    with pytest.raises(ValidationError):
        StructuresSettings(path="x", chain="A")


def test_summary_puts_the_most_frequent_reason_first():
    assert summary([("a", "x"), ("b", "y"), ("c", "y")]) == [("y", 2, ["b", "c"]), ("x", 1, ["a"])]


def test_real_entries(shared, tmp_path):
    settings = StructuresSettings(path=shared / "structures", cache_dir=tmp_path, workers=1)
    dataset = StructureDataset(settings)
    assert len(dataset) == 121 and len(dataset.dropped) == 9
    assert dataset.lengths.min() >= 40 and dataset.lengths.max() <= 512
    for index in range(len(dataset)):
        item = dataset[index]
        assert len(item["res_mask"]) == dataset.lengths[index]
        assert torch.isfinite(item["trans_1"]).all() and torch.isfinite(item["rotmats_1"]).all()
        assert (item["res_idx"].diff() > 0).all() and item["res_idx"][0] == 1
