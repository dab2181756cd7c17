"""The embedded demo set: what the code makes, what the file holds, what the data set gives."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from app.chem import atoms as slot
from app.chem.residues import AATYPES
from app.data import demo
from app.data.datamodule import build_dataset
from app.data.demo_dataset import DemoDataset
from app.errors import UserError
from app.geometry import internal
from tests.data.made_demo import CHAINS, REMADE, SETS, made_chain, pooled


@pytest.mark.parametrize(("split", "index"), REMADE)
def test_the_file_is_what_the_code_makes(split, index):
    made, stored = made_chain(split, index), SETS[split].protein(index)
    assert made.name == stored.name
    np.testing.assert_array_equal(made.aatype, stored.aatype)
    assert made.secondary_structure == SETS[split].secondary_structure[index]
    np.testing.assert_allclose(made.atoms, stored.atom37[:, :5], atol=1e-3)


def test_chains_are_made_the_same_each_time():
    first, second = made_chain("train", 4), demo.make_chain("train", 4)
    np.testing.assert_array_equal(first.atoms, second.atoms)
    np.testing.assert_array_equal(first.aatype, second.aatype)


def test_the_written_file_is_read_back_and_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 1, "held_out": 1})
    for name in "ab":
        demo.write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    read = DemoDataset("held_out", tmp_path / "a")
    assert len(read) == 1
    np.testing.assert_array_equal(read.protein(0).atom37, SETS["held_out"].protein(0).atom37)


def test_the_file_is_small_and_says_that_it_is_synthetic():
    assert demo.FILE.stat().st_size < 3e6
    header = demo.FILE.read_bytes()[:2000].decode(errors="replace")
    assert "synthetic" in header
    assert all(name.startswith("synthetic_") for data in SETS.values() for name in data.names)
    assert set(load_file(demo.FILE)) == {"coordinates", "aatype", "secondary_structure", "lengths", "held_out"}


def test_splits_have_their_sizes_and_lengths():
    assert {split: len(data) for split, data in SETS.items()} == demo.SIZES
    lengths = pooled(data.lengths for data in SETS.values())
    assert lengths.min() >= 40
    assert lengths.max() <= 120
    assert lengths.max() > 100
    for data in SETS.values():
        assert data.lengths.tolist() == [len(data.protein(k)) for k in range(len(data))]
        assert len(set(data.names)) == len(data)


def test_features_are_one_chain_without_batch_dimension():
    data = SETS["held_out"]
    item, protein = data[7], data.protein(7)
    length = int(data.lengths[7])
    assert item["name"] == data.names[7]
    for name in ("res_mask", "diffuse_mask", "plddt_mask", "chain_idx"):
        assert (item[name] == 1).all()
        assert item[name].shape == (length,)
    assert item["res_idx"].tolist() == list(range(1, length + 1))
    assert item["aatypes_1"].tolist() == protein.aatype.tolist()
    ca = protein.atom37[:, slot.CA]
    np.testing.assert_allclose(item["trans_1"], ca - ca.mean(0), atol=1e-4)
    torch.testing.assert_close(torch.linalg.det(item["rotmats_1"]), torch.ones(length))
    np.testing.assert_allclose(
        item["rotmats_1"], internal.residue_frames(*np.moveaxis(protein.atom37[:, :3].astype(float), 1, 0)), atol=1e-4
    )


def test_proteins_have_backbone_and_cb_and_nothing_else():
    for protein, _ in CHAINS[::20]:
        is_glycine = protein.aatype == AATYPES.index("G")
        assert protein.atom_mask[:, [slot.N, slot.CA, slot.C, slot.O]].all()
        np.testing.assert_array_equal(protein.atom_mask[:, slot.CB], ~is_glycine)
        assert not protein.atom_mask[:, 5:].any()
        assert (protein.atom37[~protein.atom_mask] == 0).all()
        assert protein.atom37.dtype == np.float32


def test_an_epoch_is_every_chain():
    assert sorted(SETS["train"].draw(epoch=3, seed=1)) == list(range(demo.SIZES["train"]))


def test_recipe_and_split():
    assert build_dataset({"kind": "demo"}).names == SETS["train"].names
    assert build_dataset({"kind": "demo", "split": "held_out"}).names == SETS["held_out"].names
    with pytest.raises(UserError, match=r"data\.split: 'test' is unknown; choose one of train, held_out"):
        DemoDataset("test")


def test_found_from_anywhere(tmp_path):
    code = "from app.data.demo_dataset import DemoDataset; print(len(DemoDataset('held_out')))"
    root = demo.FILE.parents[1]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "32", run.stderr


@pytest.mark.parametrize("content", [None, b"", demo.FILE.read_bytes()[:5000]])
def test_a_missing_or_broken_file_names_the_cure(tmp_path, content):
    path = tmp_path / "demo.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"demo\.safetensors: .*`python -m app\.data\.demo`") as raised:
        DemoDataset(file=path)
    assert "\n" not in str(raised.value)
