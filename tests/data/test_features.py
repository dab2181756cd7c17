"""A protein as tensors."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.data.features import features
from app.structure.read import read_structure, split_chains
from app.types import Protein


def protein(length=7, offset=0.0) -> Protein:
    random = np.random.default_rng(0)
    atom37 = np.zeros((length, 37, 3), dtype=np.float32)
    atom37[:, :3] = random.normal(size=(length, 3, 3)) + np.arange(length)[:, None, None] + offset
    return Protein(
        name="test",
        atom37=atom37,
        atom_mask=(atom37 != 0).any(-1),
        aatype=random.integers(0, 21, length),
        res_idx=np.array([5, 6, 9, 10, -3, -1, 0])[:length],
        chain_idx=np.array([1, 1, 1, 1, 2, 2, 2])[:length],
        chain_ids=("A", "B"),
        b_factors=np.zeros(length, dtype=np.float32),
    )


def test_shapes_masks_and_numbers():
    made = features(protein())
    assert made["res_idx"].tolist() == [1, 2, 5, 6, 1, 3, 4] and made["chain_idx"].tolist() == [1, 1, 1, 1, 2, 2, 2]
    for mask in ("res_mask", "diffuse_mask", "plddt_mask"):
        assert made[mask].dtype == torch.float32 and made[mask].tolist() == [1.0] * 7
    for name in ("res_idx", "chain_idx", "aatypes_1"):
        assert made[name].dtype == torch.int64 and made[name].shape == (7,)
    assert made["trans_1"].dtype == made["rotmats_1"].dtype == torch.float32


def test_frames_are_centred_and_put_the_backbone_back():
    source = protein()
    made = features(source)
    assert made["trans_1"].mean(0).abs().max() < 1e-5
    rotmats = made["rotmats_1"]
    torch.testing.assert_close(rotmats.mT @ rotmats, torch.eye(3).expand_as(rotmats), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotmats) > 0).all()
    n, ca, c = (torch.from_numpy(source.atom37[:, i]) for i in range(3))
    local_c = torch.einsum("nji,nj->ni", rotmats, c - ca)
    local_n = torch.einsum("nji,nj->ni", rotmats, n - ca)
    assert local_c[:, 1:].abs().max() < 1e-5 and (local_c[:, 0] > 0).all(), "C lies on the x axis"
    assert local_n[:, 2].abs().max() < 1e-5 and (local_n[:, 1] > 0).all(), "N lies in the xy plane"


def test_far_from_the_origin_nothing_is_lost():
    near, far = features(protein()), features(protein(offset=1024.0))
    torch.testing.assert_close(near["trans_1"], far["trans_1"], atol=1e-3, rtol=0)
    torch.testing.assert_close(near["rotmats_1"], far["rotmats_1"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["1AKI", "3U8V", "2OFG", "1TIM", "1K1A"])
def test_agrees_with_multiflow_from_structure_file_to_tensors(shared, name):
    expected = load_file(shared / "legacy_multiflow" / "dataset" / "expected.safetensors")
    (path,) = (shared / "structures").glob(f"{name.lower()}.*")
    made = features(split_chains(read_structure(path))[0])
    for ours, theirs, tolerance in (
        ("aatypes_1", "aatypes_1", 0),
        ("res_idx", "res_idx", 0),
        ("res_mask", "res_mask", 0),
        ("trans_1", "trans_1", 1e-3),
        ("rotmats_1", "rotmats_1", 1e-4),
    ):
        reference = expected[f"{name}.{theirs}"]
        torch.testing.assert_close(made[ours].to(reference.dtype), reference, atol=tolerance, rtol=0)
