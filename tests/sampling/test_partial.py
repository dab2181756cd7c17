"""Partial design: what is fixed comes back as it was given, whatever is designed around it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from app.chem.residues import to_sequence
from app.errors import UserError
from app.sampling import sample
from app.structure.read import read_structure
from app.structure.write import to_pdb, write_mmcif
from tests.factories import protein_batch, random_rotations, tiny_model
from tests.sampling.made_inputs import write_structure
from tests.sampling.recorder import Recorder, every_sampler

GIVES = {"both": "partial", "sequence": "inverse_folding", "structure": "forward_folding"}


def inputs(diffuse, clean=None, **changes):
    clean = clean or protein_batch(*diffuse.shape)
    return {
        "trans_1": clean.trans_1,
        "rotmats_1": clean.rotmats_1,
        "aatypes_1": clean.aatypes_1,
        "chain_idx": clean.chain_idx,
        "res_idx": clean.res_idx,
        "diffuse_mask": diffuse,
    } | changes


# The sampler


@every_sampler
def test_fixed_residues_stay_over_random_masks(sampler):
    clean = protein_batch(6, 12)
    diffuse = (torch.rand(6, 12) < torch.rand(6, 1)).float()
    fixed = diffuse == 0
    assert fixed.any() and (~fixed).any()
    for task in GIVES.values():
        path = sample(tiny_model(), task=task, steps=5, sampler=sampler, **inputs(diffuse, clean))
        for point in range(6):
            assert path.path_trans[:, point][fixed].equal(clean.trans_1[fixed])
            assert path.path_rotmats[:, point][fixed].equal(clean.rotmats_1[fixed])
            assert path.path_aatypes[:, point][fixed].equal(clean.aatypes_1[fixed])
        assert (path.path_certainty.mT[fixed] == 1).all()
        moved = ~path.final_atom37[..., 1, :].isclose(clean.trans_1).all(-1)
        assert not moved[fixed].any()
        assert moved[~fixed].all() == (task != "inverse_folding")


def test_the_model_sees_them_at_every_step():
    diffuse = torch.ones(2, 9)
    diffuse[0, 2:5] = diffuse[1, 7] = 0
    model, clean = Recorder(), protein_batch(2, 9)
    sample(model, task="partial", steps=5, **inputs(diffuse, clean))
    fixed = diffuse == 0
    for call, batch in enumerate(model.seen):
        assert batch.diffuse_mask.equal(diffuse)
        assert batch.trans_t[fixed].equal(clean.trans_1[fixed])
        assert batch.aatypes_t[fixed].equal(clean.aatypes_1[fixed])
        if call:
            assert batch.trans_sc[fixed].equal(clean.trans_1[fixed])
            assert batch.aatypes_sc[fixed].argmax(-1).equal(clean.aatypes_1[fixed])
        assert batch.r3_t.equal(batch.cat_t)  # of what is designed: not the fixed residues' own
    assert model.seen[0].r3_t[0] < 0.1


def test_a_moved_input_moves_its_design():
    """With the noise moved along: the sampler prefers no direction."""
    clean, diffuse = protein_batch(2, 12), torch.ones(2, 12)
    diffuse[:, 3:8] = 0
    noise = {"trans_0": 10 * torch.randn(2, 12, 3), "rotmats_0": random_rotations(2, 12, seed=5)}
    turn = random_rotations(2, seed=7)[:, None]
    turned = dataclasses.replace(clean, trans_1=clean.trans_1 @ turn[:, 0].mT, rotmats_1=turn @ clean.rotmats_1)
    also = {"trans_0": noise["trans_0"] @ turn[:, 0].mT, "rotmats_0": turn @ noise["rotmats_0"]}
    model, how = tiny_model(), {"task": "partial", "steps": 6}
    one = sample(model, **how, **inputs(diffuse, clean, **noise))
    other = sample(model, **how, **inputs(diffuse, turned, **also))
    assert other.final_aatypes.equal(one.final_aatypes)
    moved = one.path_trans[:, -1] @ turn[:, 0].mT
    torch.testing.assert_close(other.path_trans[:, -1], moved, atol=2e-3, rtol=0)


@pytest.mark.parametrize("lacking", ["aatypes_1", "trans_1", "rotmats_1", "diffuse_mask"])
def test_everything_has_to_be_given(lacking):
    given = inputs(torch.ones(2, 9))
    del given[lacking]
    with pytest.raises(UserError, match=f"task=partial needs {lacking}"):
        sample(Recorder(), task="partial", steps=3, **given)


# Runs


@pytest.fixture
def native(tmp_path):
    """Two chains far from the origin, with insertion codes, a gap, and backbones that are not ideal."""
    protein = read_structure(write_structure(tmp_path / "made.pdb", 10, 13, first=40, shift=60.0))
    protein.atom37[protein.atom_mask] += np.random.default_rng(0).normal(scale=0.05, size=(protein.atom_mask.sum(), 3))
    protein.atom37[12, 6], protein.atom_mask[12, 6] = protein.atom37[12, 3] + 1, True  # a CG1 of a valine
    protein.aatype[12] = 19
    ids = protein.res_idx.astype(str)
    ids[3:10] = ["42A", "42B", "43", "45", "46", "47", "48"]
    to_pdb(dataclasses.replace(protein, residue_ids=ids, chain_ids=("H", "L")), tmp_path / "native.pdb")
    return read_structure(tmp_path / "native.pdb")


FIX = ["H42-42B", "L40-45", "L52"]


@pytest.mark.parametrize("what", GIVES)
def test_fixed_residues_come_back_where_the_file_has_them(run, tmp_path, native, what):
    outcome, manifest = run(task="partial", input=tmp_path / "native.pdb", fix=FIX, what=what, samples=2)
    first, second = manifest["designs"]
    assert [first["id"], second["id"]] == ["native_0", "native_1"]
    assert (first["what"], first["fixed"]) == (what, {"H": ["42-42B"], "L": ["40-45", "52"]})
    names = np.array(native.residue_ids)
    fixed = np.isin(names, ["42", "42A", "42B"]) & (native.chain_idx == 1)
    fixed |= np.isin(names, ["40", "41", "42", "43", "44", "45", "52"]) & (native.chain_idx == 2)
    for design in manifest["designs"]:
        for file in design["files"]:
            made = read_structure(outcome.folder / file)
            assert made.chain_ids == ("H", "L")
            assert made.residue_ids.tolist() == native.residue_ids.tolist()
            assert np.array_equal(made.aatype[fixed], native.aatype[fixed])
            assert np.array_equal(made.atom_mask[fixed], native.atom_mask[fixed])  # side chains as well
            assert np.abs(made.atom37[fixed] - native.atom37[fixed]).max() < 1e-3
            assert (made.b_factors[fixed] == 100).all()
            kept = np.abs(made.atom37 - native.atom37)[~fixed][:, [0, 1, 2]].max() < 1e-3
            assert kept == (what == "sequence")
            assert np.array_equal(made.aatype, native.aatype) == (what == "structure")
            assert to_sequence(made.aatype) == design["sequence"]
    assert ("recovery" in first, "ca_rmsd" in first) == (what == "sequence", what == "structure")
    assert first["seed"] != second["seed"]
    assert [one["between"] for one in first["junctions"]] == [
        *(["H41", "H42"], ["H42B", "H43"]),
        *(["L45", "L46"], ["L51", "L52"], ["L52", "L53"]),
    ]


def test_headers_name_what_was_fixed(run, tmp_path, native):
    def headers(**how):
        outcome, _ = run(task="partial", input=tmp_path / "native.pdb", **how)
        return [line[1:] for line in (outcome.folder / "sequences.fasta").read_text().splitlines() if line[0] == ">"]

    assert headers(fix=FIX) == [
        "native_0.H task=partial sequence=partly_designed fixed=42-42B design=native_0 length=10",
        "native_0.L task=partial sequence=partly_designed fixed=40-45,52 design=native_0 length=13",
    ]
    assert headers(fix=["H"], what="sequence") == [
        "native_0.H task=partial sequence=given design=native_0 length=10",
        "native_0.L task=partial sequence=designed design=native_0 length=13",
    ]
    assert all("sequence=given" in header for header in headers(fix=FIX, what="structure"))
    headless = headers(fix=FIX, model=tiny_model(head={"kind": "none"}))
    assert headless[0] == "native_0.H task=partial sequence=none fixed=42-42B design=native_0 length=10"


def test_the_input_may_lie_anywhere(run, tmp_path, native):
    """A shifted file gives the same design, shifted."""
    shifted = dataclasses.replace(native, atom37=native.atom37 + np.float32(100) * native.atom_mask[..., None])
    to_pdb(shifted, tmp_path / "shifted" / "native.pdb")
    one, _ = run(task="partial", input=tmp_path / "native.pdb", fix=FIX)
    other, _ = run(task="partial", input=tmp_path / "shifted/native.pdb", fix=FIX)
    one, other = (read_structure(made.folder / "structures/native_0.pdb") for made in (one, other))
    assert np.array_equal(one.aatype, other.aatype)
    assert np.abs(other.atom37 - one.atom37 - 100)[one.atom_mask].max() < 5e-3


def test_a_design_does_not_depend_on_the_batch_size(run, tmp_path, native):
    made = {}
    for size in (1, 3, 8):
        outcome, manifest = run(task="partial", input=tmp_path / "native.pdb", fix=FIX, samples=8, max_batch_size=size)
        structures = {one["id"]: outcome.folder / next(iter(one["files"])) for one in manifest["designs"]}
        made[size] = [(one["sequence"], read_structure(structures[one["id"]]).atom37) for one in manifest["designs"]]
    for size in (3, 8):
        for (sequence, atoms), (same, others) in zip(made[1], made[size], strict=True):
            assert sequence == same
            assert np.abs(atoms - others).max() <= 1e-3


def test_trajectories_hold_them_still_too(run, tmp_path, native):
    outcome, manifest = run(
        task="partial", input=tmp_path / "native.pdb", fix=["L"], trajectories=True, formats=["pdb"]
    )
    (structure, *ways) = manifest["designs"][0]["files"]
    assert structure == "structures/native_0.pdb" and len(ways) == 2
    for way in ways:
        for model in (1, 4):
            made = read_structure(outcome.folder / way, model=model)
            own = made.chain_idx == 2
            assert np.abs(made.atom37 - native.atom37)[own].max() < 1e-3
            assert np.array_equal(made.aatype[own], native.aatype[own])
            assert (made.b_factors[own] == 100).all() and (made.b_factors[~own] < 100).all()


def test_bad_requests_write_nothing(run, tmp_path, native):
    (tmp_path / "s.fasta").write_text(">s\nACD\n")

    def refusal(**how):
        with pytest.raises(UserError) as caught:
            run(task="partial", out=tmp_path / "out", **how)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "has H40-43, H45-48, L40-46" in refusal(input=tmp_path / "native.pdb", fix=["X"])
    assert "is a folder; task=partial takes one structure file" in refusal(input=tmp_path, fix=["H"])
    assert "holds sequences; task=partial needs a structure" in refusal(input=tmp_path / "s.fasta", fix=["A"])
    headless = {"model": tiny_model(head={"kind": "none"}), "input": tmp_path / "native.pdb", "fix": ["H"]}
    assert "task=partial what=sequence: the model has no sequence head" in refusal(**headless, what="sequence")


def test_names_that_only_mmcif_holds_are_kept_there_and_in_the_record(run, tmp_path, native):
    odd = dataclasses.replace(native, chain_ids=("HH", "L1"), res_idx=native.res_idx + 12000, residue_ids=None)
    what = (odd.atom37, odd.aatype, odd.chain_idx, odd.res_idx)
    write_mmcif(tmp_path / "odd.cif", *what, atom_mask=odd.atom_mask, chain_ids=odd.chain_ids)
    outcome, manifest = run(task="partial", input=tmp_path / "odd.cif", fix=["HH", "L1:12040-12045"])
    (record,) = manifest["designs"]
    assert record["chains"] == {"HH": 10, "L1": 13} and record["fixed"]["L1"] == ["12040-12045"]
    assert record["junctions"][0]["between"] == ["L1:12045", "L1:12046"]
    cif, pdb = (read_structure(outcome.folder / f"structures/odd_0.{suffix}") for suffix in ("cif", "pdb"))
    assert cif.chain_ids == ("HH", "L1") and np.array_equal(cif.res_idx, odd.res_idx)
    assert pdb.chain_ids == ("A", "B") and pdb.res_idx[0] == 1


def test_what_was_changed_in_reading_is_said(run, tmp_path, native, capsys):
    text = (tmp_path / "native.pdb").read_text()
    (tmp_path / "odd.pdb").write_text(text.replace("VAL L  42", "MSE L  42"))
    _, manifest = run(task="partial", input=tmp_path / "odd.pdb", fix=["H", "L41-49"])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    notes = manifest["designs"][0]["notes"]
    assert [f"warning: {tmp_path / 'odd.pdb'}: {note}" for note in notes] == said[: len(notes)]
    assert "1 modified residues read as their parents" in notes
    assert "fix: not all as the file has it: L42 (MSE as MET, 1 heavy atom left out)" in notes


def test_what_the_run_is_to_be_warned_of_is_said_and_kept(tmp_path, native, capsys):
    from app.sampling import SAMPLERS
    from app.sampling.request import Request
    from app.sampling.run import generate

    request = Request(task="partial", input=tmp_path / "native.pdb", fix=["H"], out=tmp_path / "out", steps=2)
    generate(
        tiny_model(), request, SAMPLERS["euler"], lambda designs: [f"{len(designs)} of {designs[0].layout.chains}"]
    )
    warning = "1 of {'H': 10, 'L': 13}"
    assert json.loads((tmp_path / "out/manifest.json").read_text())["warnings"] == [warning]
    assert f"warning: {warning}" in capsys.readouterr().out.splitlines()
