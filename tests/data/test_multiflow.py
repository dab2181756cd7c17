"""Multiflow's data set layout: its own sample to the digit, and a small set of our own for filters and bad files."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from app.chem.residues import AATYPES
from app.data.cluster_file import write_clusters
from app.data.cluster_folder import cluster_folder
from app.data.likeness import Likeness
from app.data.multiflow import MultiflowDataset
from app.data.multiflow_entry import read_entry
from app.data.multiflow_settings import MultiflowFilter, MultiflowSettings
from app.data.multiflow_table import rog_cutoff
from app.errors import UserError
from tests.data.made_multiflow import chain, row, write


def dataset(folder, **settings):
    return MultiflowDataset(MultiflowSettings(path=folder, **settings))


def test_sample_of_multiflow_to_the_digit(shared):
    folder = shared / "legacy_multiflow" / "dataset"
    expected = load_file(folder / "expected.safetensors")
    data = dataset(folder)
    assert sorted(data.names) == sorted({key.split(".")[0] for key in expected})
    assert data.dropped == []
    metadata = pd.read_csv(folder / "metadata.csv").set_index("pdb_name")
    seen = set()
    for index, name in enumerate(data.names):
        features = data[index] | {"res_plddt": read_entry(folder / metadata.processed_path[name])["plddt"]}
        for key in ("trans_1", "rotmats_1", "aatypes_1", "res_idx", "res_mask", "res_plddt"):
            wanted = expected[f"{name}.{key}"]
            assert features[key].shape == wanted.shape
            np.testing.assert_allclose(features[key].numpy(), wanted, atol=1e-4, rtol=0)
            seen.add(f"{name}.{key}")
        assert data.lengths[index] == len(features["res_mask"])
        assert features["name"] == name and set(features["chain_idx"].tolist()) == {1}
    assert seen == set(expected)


def test_features_are_centred_frames_over_the_modelled_span(tmp_path):
    arrays = chain(20, chain_index=np.repeat([7, 3], 10), residue_index=np.r_[5:13, 20, 22, 1:11])
    arrays["modeled_idx"] = np.r_[2:9, 11:19]
    arrays["atom_mask"][4, 2] = 0  # no C
    path = write(tmp_path, [row("1abc")], {"1abc": arrays}) / "processed/ab/1abc.pkl"
    features = read_entry(path)
    assert all(len(value) == 17 for value in features.values())
    assert features["chain_idx"].tolist() == [1] * 8 + [2] * 9
    assert features["res_idx"].tolist() == [1, 2, 3, 4, 5, 6, 14, 16, *range(1, 10)]
    mask = features["res_mask"]
    assert mask.tolist() == [1, 1, 0] + [1] * 14 and torch.equal(features["diffuse_mask"], mask)
    present = mask > 0
    assert features["trans_1"][present].mean(0).abs().max() < 1e-4
    assert not features["trans_1"][~present].any()
    rotmats = features["rotmats_1"]
    assert torch.allclose(rotmats @ rotmats.mT, torch.eye(3).expand(17, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotmats), torch.ones(17), atol=1e-5)
    assert torch.equal(rotmats[2], torch.eye(3))


def test_residues_that_span_no_frame_are_masked(tmp_path):
    arrays = chain(70)
    arrays["atom_positions"][3] = 1.0  # three atoms in one place
    arrays["atom_positions"][8, 2] = 2 * arrays["atom_positions"][8, 1] - arrays["atom_positions"][8, 0]  # on one line
    features = dataset(write(tmp_path, [row("1abc")], {"1abc": arrays}))[0]
    assert np.flatnonzero(features["res_mask"] == 0).tolist() == [3, 8]
    assert all(value.isfinite().all() for value in features.values() if isinstance(value, torch.Tensor))


def test_metadata_filters_say_why(tmp_path):
    rows = [
        row("1aaa"),
        row("1aab", oligomeric_detail="dimeric"),
        row("1aac", num_chains=2),
        row("1aad", modeled_seq_len=59),
        row("1aae", modeled_seq_len=385),
        row("1aaf", coil_percent=0.6),
        row("1aag", modeled_seq_len=60),
        row("1aah", modeled_seq_len=384, radius_gyration=3.0),
        row("1E10", radius_gyration=float("nan")),
    ]
    folder = write(tmp_path, rows)
    data = dataset(folder)
    assert data.names == ["1aaa", "1aag", "1aah"] and data.lengths.tolist() == [70, 60, 384]
    reasons = dict(data.dropped)
    assert set(reasons) == {"1aab", "1aac", "1aad", "1aae", "1aaf", "1E10"}
    for name, word in (("1aab", "oligomeric"), ("1aac", "num_chains"), ("1aad", "shorter"), ("1aae", "longer")):
        assert word in reasons[name]
    off = MultiflowFilter(oligomeric=None, num_chains=None, min_num_res=1, max_num_res=999, max_coil_percent=None,
                          rog_quantile=None)  # fmt: skip
    assert len(dataset(folder, filter=off)) == len(rows)


def test_radius_of_gyration_is_judged_for_its_length():
    random = np.random.default_rng(0)
    length = pd.Series(random.integers(60, 385, 4000))
    rog = pd.Series(0.22 * length**0.4 + np.abs(random.normal(0, 0.05, 4000)))
    rog[:20] += 1.0
    kept = rog < rog_cutoff(length, rog, 0.96)
    assert not kept[:20].any() and kept[20:].mean() > 0.95
    assert rog_cutoff(pd.Series([80]), pd.Series([1.3]), 0.96) == pytest.approx([1.4])


def test_clusters_give_one_entry_each_by_epoch_and_seed(tmp_path):
    rows = [row(f"1aa{letter}") for letter in "abcdefgh"]
    clusters = "1AAA_A 1AAB_A 1AAC_B\n9XYZ_A\n1aad_A 1AAE_A\n1AAF_A\n1AAG_A 1AAG_B"
    folder = write(tmp_path, rows, **{"pdb.clusters": clusters})
    data = dataset(folder)
    assert data.dropped == [("1aah", "in no cluster of pdb.clusters")]
    groups = [{0, 1, 2}, {3, 4}, {5}, {6}]
    drawn = [tuple(data.draw(epoch, 1)) for epoch in range(60)]
    for one in drawn:
        assert len(one) == 4 and all(index in group for index, group in zip(one, groups, strict=True))
    assert {one[0] for one in drawn} == {0, 1, 2} and {one[1] for one in drawn} == {3, 4}
    assert drawn == [tuple(dataset(folder).draw(epoch, 1)) for epoch in range(60)]
    assert drawn != [tuple(data.draw(epoch, 2)) for epoch in range(60)]
    assert sorted(dataset(folder, clusters=None).draw(0, 0)) == list(range(8))


def test_redesigned_sequences_replace_the_chains_own(tmp_path):
    rows = [row(f"1aa{letter}", modeled_seq_len=60) for letter in "abcdef"]
    sequence = (AATYPES * 3)[:60]
    redesigned = (
        "example,best_seq,best_rmsd\n"
        f"1AAA,{sequence},1.9\n1aaa,{sequence[::-1]},1.0\n1aab,{sequence},2.0\n1aac,{sequence[:50]},0.5\n"
        f"1aad,{sequence[:-1]}X,0.5\n1aaf,,0.5\n"
    )
    folder = write(tmp_path, rows, **{"pdb_redesigned.csv": redesigned})
    data = dataset(folder)
    assert data.names == ["1aaa"]
    assert "".join(AATYPES[index] for index in data[0]["aatypes_1"]) == sequence[::-1]
    reasons = dict(data.dropped)
    assert "no redesigned" in reasons["1aab"] and "length" in reasons["1aac"] and "letters" in reasons["1aad"]
    assert "no redesigned" in reasons["1aae"] and "no redesigned" in reasons["1aaf"]
    kept = dataset(folder, redesigned_only=False)
    assert kept.names == ["1aaa", "1aab", "1aae", "1aaf"]
    own = torch.from_numpy(chain(60, seed=1)["aatype"])
    assert torch.equal(kept[1]["aatypes_1"], own)
    assert dataset(folder, redesigned=None).names == [one["pdb_name"] for one in rows]


def test_synthetic_chains_with_their_own_metadata_clusters_and_plddt(tmp_path):
    write(tmp_path, [row("1aaa"), row("1aab")], **{"pdb.clusters": "1AAA_A 1AAB_A\n"})
    confident = chain(70, b_factors=np.repeat(np.r_[np.full(30, 69.9), np.full(40, 90.0)][:, None], 37, axis=1))
    rows = [
        {"pdb_name": name, "processed_path": f"made/{name}.pkl", "modeled_seq_len": length}
        for name, length in (("AF_1", 70), ("AF_2", 70), ("AF_3", 59), ("AF_4", 70))
    ]
    (tmp_path / "synthetic").mkdir()
    write(tmp_path / "synthetic", rows, {"AF_1": confident}, **{"af.clusters": "AF_1 AF_2\nAF_3\n"})
    settings = {
        "synthetic_metadata": "synthetic/metadata.csv",  # its paths are relative to the folder it lies in
        "synthetic_clusters": "synthetic/af.clusters",
    }
    data = dataset(tmp_path, **settings)
    assert data.names == ["1aaa", "1aab", "AF_1", "AF_2"]
    assert {name for name, _ in data.dropped} == {"AF_3", "AF_4"}
    assert len(data.draw(0, 0)) == 2
    assert data[2]["plddt_mask"].tolist() == [0] * 30 + [1] * 40
    assert data[0]["plddt_mask"].all()  # an experiment's B-factors are not pLDDT
    assert dataset(tmp_path, add_plddt_mask=False, **settings)[2]["plddt_mask"].all()


def test_layout_of_the_release(tmp_path):
    write(tmp_path, [row("1aaa"), row("1aab")], metadata="metadata/pdb_metadata.csv",
          **{"metadata/pdb.clusters": "1AAA_A\n"})  # fmt: skip
    data = dataset(tmp_path)
    assert data.names == ["1aaa"] and len(data[0]["res_mask"]) == 70


def test_bad_files_are_told_by_name_and_reason(tmp_path):
    not_finite = chain(70)
    not_finite["atom_positions"][5, 1, 0] = np.nan
    unusable = chain(70)
    unusable["atom_mask"][:] = 0
    absent_nan = chain(70)
    absent_nan["atom_positions"][:, 20] = np.nan
    chains = {
        "1aaa": not_finite,
        "1aab": unusable,
        "1aac": chain(69),
        "1aad": pickle.dumps(chain(70))[:2000],
        "1aae": {"aatype": np.zeros(70)},
        "1aaf": chain(70, atom_mask=np.ones((70, 3))),
        "1aag": chain(70, aatype=np.full(70, 21)),
        "1aah": chain(70, modeled_idx=np.array([90])),
        "1aai": absent_nan,
    }
    data = dataset(write(tmp_path, [row(name) for name in chains], chains))
    words = [
        "not all finite",
        "no residue has",
        "69 residues",
        "pickle",
        "lacks",
        "atom_mask has",
        "aatype",
        "modeled_idx",
    ]
    for index, word in enumerate(words):
        with pytest.raises(UserError, match=word) as error:
            data[index]
        assert data.names[index] in str(error.value) and "\n" not in str(error.value)
    assert data[8]["trans_1"].isfinite().all()


def test_cache_is_bounded_and_hands_out_copies(tmp_path):
    folder = write(tmp_path, [row("1aaa"), row("1aab"), row("1aac")])
    data = dataset(folder, max_cache_size=2)
    first = [data[index] for index in range(3)]
    data[0]["name"] = "changed"
    for path in (folder / "processed").rglob("*.pkl"):
        path.unlink()
    assert [data[index]["name"] for index in range(2)] == ["1aaa", "1aab"]
    assert torch.equal(data[1]["trans_1"], first[1]["trans_1"])
    with pytest.raises(UserError, match="1aac"):
        data[2]


def test_chains_are_renumbered_by_the_generator(tmp_path):
    arrays = chain(90, chain_index=np.repeat([0, 1, 2], 30))
    only = MultiflowFilter(num_chains=(3,), oligomeric=None)
    folder = write(tmp_path, [row("1aaa", num_chains=3, modeled_seq_len=90)], {"1aaa": arrays})
    data = dataset(folder, filter=only)
    seen = set()
    for seed in range(30):
        shuffled = data.augment(data[0], np.random.default_rng(seed))["chain_idx"]
        assert torch.equal(shuffled, data.augment(data[0], np.random.default_rng(seed))["chain_idx"])
        assert [len(set(shuffled[first : first + 30].tolist())) for first in (0, 30, 60)] == [1, 1, 1]
        seen.add(tuple(shuffled[::30].tolist()))
    assert len(seen) == 6
    fixed = dataset(folder, filter=only, shuffle_chains=False)
    assert fixed.augment(fixed[0], np.random.default_rng(1))["chain_idx"][::30].tolist() == [1, 2, 3]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no metadata\.csv"):
        dataset(tmp_path)
    folder = write(tmp_path, [row("1aaa")])
    with pytest.raises(UserError, match=r"nothing\.clusters: no such file"):
        dataset(folder, clusters="nothing.clusters")
    pd.DataFrame([row("1aaa")]).drop(columns="coil_percent").to_csv(folder / "metadata.csv")
    with pytest.raises(UserError, match="coil_percent"):
        dataset(folder)
    pd.DataFrame([row("1aaa")]).drop(columns="processed_path").to_csv(folder / "metadata.csv")
    with pytest.raises(UserError, match=r"metadata\.csv: lacks the column processed_path"):
        dataset(folder)
    for content in ("", "pdb_name,processed_path,modeled_seq_len\n"):
        (folder / "metadata.csv").write_text(content)
        with pytest.raises(UserError, match=r"metadata\.csv"):
            dataset(folder)


def test_nothing_left_is_an_empty_set(tmp_path):
    data = dataset(write(tmp_path, [row("1aaa", num_chains=2)], **{"pdb.clusters": "1AAA_A"}))
    assert len(data) == 0 and len(data.draw(0, 0)) == 0


def synthetic_set(folder, **files):
    """Eight real entries and eight synthetic ones of the same sequences."""
    chains = {f"{kind}{number:03d}": chain(70, seed=number) for kind in "rs" for number in range(8)}
    for kind, metadata in (("r", "metadata.csv"), ("s", "distillation_metadata.csv")):
        rows = [row(f"{kind}{number:03d}") for number in range(8)]
        write(folder, rows, chains, metadata, **(files if kind == "s" else {}))
    return folder


def each(kind):
    return "\n".join(f"{kind}{number:03d}" for number in range(8))


def held_out_of(folder, **validation):
    trained, held = dataset(folder, redesigned_only=False, validation=validation).split()
    return set(trained.names), set(held.names) if held is not None else set()


def test_nothing_is_held_out_where_synthetic_entries_are_in_no_cluster(tmp_path):
    synthetic_set(tmp_path, **{"pdb.clusters": each("r")})
    with pytest.raises(UserError, match=r"no cluster file of real and synthetic entries, .* make one: python"):
        held_out_of(tmp_path, fraction=0.3)
    assert held_out_of(tmp_path, fraction="auto")[1] == set()


def test_real_and_synthetic_entries_clustered_together_stay_together(tmp_path, caplog):
    synthetic_set(tmp_path)
    names, clusters, _ = cluster_folder(tmp_path, Likeness(), tmp_path / "cache")
    write_clusters(tmp_path / "pdb.clusters", names, clusters)
    for files in ({}, {"distillation.clusters": each("s")}):  # a file of the synthetic ones alone does not part them
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        trained, held = held_out_of(tmp_path, fraction=0.3)
        assert held and {name[1:] for name in trained}.isdisjoint(name[1:] for name in held)
        assert len(trained | held) == 16 and "no cluster file knows both" not in caplog.text


def test_cluster_files_that_know_nothing_of_each_other_are_told(tmp_path, caplog):
    synthetic_set(tmp_path, **{"pdb.clusters": each("r"), "distillation.clusters": each("s")})
    assert held_out_of(tmp_path, fraction=0.3)[1]
    assert "cluster them together: python -m app data cluster" in caplog.text


def test_entries_given_the_same_sequence_are_on_one_side(tmp_path):
    rows = [row(f"r{number:03d}") for number in range(8)]
    redesigned = [f"r{number:03d},{'ACDEFGHIKL'[number // 2] * 70},0.5" for number in range(8)]
    folder = write(tmp_path, rows, **{
        "pdb.clusters": each("r"), "pdb_redesigned.csv": "\n".join(["example,best_seq,best_rmsd", *redesigned]),
    })  # fmt: skip
    trained, held = held_out_of(folder, fraction=0.3)
    assert len(held) == 2 and {int(name[1:]) // 2 for name in held}.isdisjoint(int(name[1:]) // 2 for name in trained)
