"""The whole run but for the command line, on a small model of the project's own."""

import functools
import hashlib
from importlib import metadata

import numpy as np
import pytest
import torch
from biotite.sequence.io.fasta import FastaFile
from biotite.structure.io.pdb import PDBFile

from app.chem.residues import to_sequence
from app.ops import select
from app.ops.settings import KernelSettings
from app.sampling import SAMPLERS, sample
from app.structure.read import read_structure
from tests.factories import tiny_model, tiny_recipe
from tests.model.esm.made_esm import write_esm
from tests.sampling.made_inputs import STEPS, UNCONDITIONAL, write_structure


def fasta(outcome):
    return dict(FastaFile.read(outcome.folder / "sequences.fasta").items())


def structure(outcome, design_id):
    return read_structure(outcome.folder / "structures" / f"{design_id}.pdb")


def test_unconditional(run):
    outcome, manifest = run(**UNCONDITIONAL)
    ids = ["len9_0", "len9_1", "len14_0", "len14_1"]
    assert (outcome.requested, outcome.done, outcome.failed) == (4, 4, 0)
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (4, 4, 0)
    assert [design["id"] for design in manifest["designs"]] == ids
    sequences = fasta(outcome)
    for design in manifest["designs"]:
        assert (design["status"], design["error"], design["task"]) == ("done", None, "unconditional")
        assert list(design["files"]) == [f"structures/{design['id']}.pdb", f"structures/{design['id']}.cif"]
        assert design["chains"] == {"A": design["length"]}
        assert len(design["sequence"]) == design["length"]
        header = f"{design['id']} task=unconditional sequence=designed length={design['length']}"
        assert sequences[header] == design["sequence"]
        protein = structure(outcome, design["id"])
        assert to_sequence(protein.aatype) == design["sequence"]
        assert protein.res_idx.tolist() == list(range(1, design["length"] + 1))
        assert protein.chain_ids == ("A",)
    assert len({design["sequence"] for design in manifest["designs"]}) == 4
    assert [file.name for file in outcome.folder.rglob(".*")] == [".manifest.json"]


def test_the_manifest_says_how_it_was_made(run, tmp_path):
    checkpoint = tmp_path / "some.ckpt"
    checkpoint.write_bytes(b"weights")
    _, manifest = run(**UNCONDITIONAL, ckpt=checkpoint)
    assert manifest["checkpoint"] == {"path": str(checkpoint), "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert (manifest["versions"]["torch"], manifest["language_model"]) == (torch.__version__, None)
    assert manifest["seed"] == manifest["settings"]["seed"] == 3
    assert manifest["settings"]["lengths"] == [9, 14]
    assert manifest["settings"]["sampler"] == SAMPLERS["euler"].model_dump(mode="json")
    assert manifest["device"] == "cpu"


@pytest.mark.slow
def test_it_is_told_that_compiling_begins_and_the_manifest_whether_it_served(run, monkeypatch, capsys):
    traced = functools.partial(torch.compile, backend=lambda graph, inputs: graph.forward)
    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    _, manifest = run(**UNCONDITIONAL, compile=True)
    torch._dynamo.reset()
    assert capsys.readouterr().out.count("compile=true: compiling the network") == 1
    assert manifest["compiled"] is True
    _, manifest = run(**UNCONDITIONAL)
    assert manifest["compiled"] is False


def test_the_manifest_names_kernels_that_served_and_the_packages_they_rest_on(run, monkeypatch):
    there = {"triton": "3.9", "trifast": "0.1.13", "flash-attn": "2.8.3", "faesm": "0.1.1"}

    def version(package):
        if package not in there:
            raise metadata.PackageNotFoundError(package)
        return there[package]

    monkeypatch.setattr(metadata, "version", version)
    with select.using(KernelSettings(self_attention="reference")):
        _, manifest = run(**UNCONDITIONAL)
    assert manifest["versions"].keys() == {"trunkline", "python", "torch", *there}
    assert there.items() <= manifest["versions"].items()
    kernels = manifest["kernels"]
    assert (kernels["asked_for"]["self_attention"], kernels["took"]["self_attention"]) == ("reference", ["reference"])
    assert kernels["took"]["invariant_point_attention"] == ["torch"] and "triangle_attention" not in kernels["took"]
    assert manifest["environment"]["matmul_precision"] == torch.get_float32_matmul_precision()


@pytest.mark.parametrize(("backend", "mode"), [("faplm", "node"), ("transformers", "node_and_edge")])
def test_the_manifest_names_the_language_model(run, tmp_path, backend, mode):
    esm = {"kind": "esm2", "name": str(write_esm(tmp_path / "esm")), "backend": backend, "mode": mode}
    model = tiny_model(esm=esm)
    _, manifest = run(model, task="unconditional", lengths=[9])
    assert manifest["language_model"] == model.esm.identity() | {"backend": backend, "precision": "float32"}
    assert manifest["kernels"]["took"].get("esm_attention") == (["torch"] if backend == "faplm" else None)


def test_atoms_written_are_the_samplers(run, tmp_path):
    """All backbone atoms and CB, none for glycine, to the digits of the format."""
    (tmp_path / "s.fasta").write_text(">s\nACGDEFGGHIKLMNPQRSTVWYG\n")
    outcome, manifest = run(task="forward_folding", input=tmp_path / "s.fasta")
    design = manifest["designs"][0]
    aatypes = torch.tensor([["ARNDCQEGHILKMFPSTWYV".index(letter) for letter in design["sequence"]]])
    made = sample(
        tiny_model(), task="forward_folding", steps=STEPS, sampler="euler", aatypes_1=aatypes, seed=[design["seed"]]
    )
    protein = structure(outcome, design["id"])
    glycine = np.array([letter == "G" for letter in design["sequence"]])
    assert protein.atom_mask[:, [0, 1, 2, 4]].all()
    assert np.array_equal(protein.atom_mask[:, 3], ~glycine)
    assert not protein.atom_mask[:, 5:].any()
    expected = np.where(protein.atom_mask[..., None], made.final_atom37[0].numpy(), 0)
    assert np.abs(protein.atom37 - expected).max() <= 1e-3


def inputs_of(task, tmp_path):
    if task == "unconditional":
        return {"lengths": [13], "samples_per_length": 8}
    for index in range(4):
        write_structure(tmp_path / f"in/p{index}.pdb", 13, seed=index)
    return {"input": tmp_path / "in", "samples": 2}


@pytest.mark.parametrize("sampler", ["euler", "multiflow_legacy"])
@pytest.mark.parametrize("task", ["unconditional", "forward_folding", "inverse_folding"])
def test_a_design_does_not_depend_on_the_batch_size(run, tmp_path, task, sampler):
    inputs = inputs_of(task, tmp_path)
    alone, manifest = run(task=task, sampler=sampler, max_batch_size=1, **inputs)
    for size in (3, 8):
        together, other = run(task=task, sampler=sampler, max_batch_size=size, **inputs)
        for design, same in zip(manifest["designs"], other["designs"], strict=True):
            assert same["seed"] == design["seed"]
            assert same["sequence"] == design["sequence"]
            difference = structure(alone, design["id"]).atom37 - structure(together, design["id"]).atom37
            assert np.abs(difference).max() <= 1e-3


def test_a_design_does_not_depend_on_what_else_is_asked_for(run):
    _, few = run(task="unconditional", lengths=[14])
    _, many = run(**UNCONDITIONAL)
    assert few["designs"][0] == many["designs"][2]
    _, other_seed = run(task="unconditional", lengths=[14], seed=4)
    assert other_seed["designs"][0]["sequence"] != few["designs"][0]["sequence"]


def test_inverse_folding_keeps_backbone_chains_and_numbers(run, tmp_path):
    path = write_structure(tmp_path / "two.pdb", 12, 17, first=-3, shift=50.0)
    outcome, manifest = run(task="inverse_folding", input=path, samples=2)
    assert [design["id"] for design in manifest["designs"]] == ["two_A_0", "two_A_1", "two_B_0", "two_B_1"]
    native = read_structure(path)
    for design in manifest["designs"]:
        own = native.chain_idx == " AB".index(design["id"][4])
        protein = structure(outcome, design["id"])
        assert protein.chain_ids == (design["id"][4],)
        assert protein.res_idx.tolist() == native.res_idx[own].tolist()
        backbone = [0, 1, 2]
        assert (
            np.abs(protein.atom37[:, backbone] - native.atom37[own][:, backbone]).max() < 0.01
        )  # where the file has it
        equal = np.array(list(design["sequence"])) == np.array(list(to_sequence(native.aatype[own])))
        assert design["recovery"] == pytest.approx(equal.mean(), abs=1e-4)
        assert str(path) in design["input"]


def test_chains_together_are_one_design_and_a_sequence_each(run, tmp_path):
    path = write_structure(tmp_path / "two.pdb", 12, 17)
    outcome, manifest = run(task="inverse_folding", input=path, chains="together")
    (design,) = manifest["designs"]
    assert (design["id"], design["length"], design["chains"]) == ("two_0", 29, {"A": 12, "B": 17})
    assert structure(outcome, "two_0").chain_ids == ("A", "B")
    sequences = {header.split()[0]: sequence for header, sequence in fasta(outcome).items()}
    assert sequences == {"two_0.A": design["sequence"][:12], "two_0.B": design["sequence"][12:]}


def test_designs_of_several_chains(run):
    """Chains as in training, each counted from 1; a single chain beside them is as it would be alone."""
    outcome, manifest = run(task="unconditional", lengths=["6+8", 14])
    both, single = manifest["designs"]
    assert (both["id"], both["length"], both["chains"]) == ("len6-8_0", 14, {"A": 6, "B": 8})
    for suffix in ("pdb", "cif"):
        protein = read_structure(outcome.folder / f"structures/len6-8_0.{suffix}")
        assert protein.chain_ids == ("A", "B")
        assert protein.res_idx.tolist() == [*range(1, 7), *range(1, 9)]
    sequences = {header.split()[0]: sequence for header, sequence in fasta(outcome).items()}
    assert sequences["len6-8_0.A"] + sequences["len6-8_0.B"] == both["sequence"]
    _, alone = run(task="unconditional", lengths=[14])
    assert alone["designs"][0] == single

    seen = []

    def watched(batch):
        seen.append(batch)
        return tiny_model()(batch)

    run(watched, task="unconditional", lengths=["6+8"])
    assert seen[0].chain_idx.tolist() == [[1] * 6 + [2] * 8]
    assert seen[0].res_idx.tolist() == [[*range(1, 7), *range(1, 9)]]


def test_forward_folding_keeps_the_sequence(run, tmp_path):
    path = write_structure(tmp_path / "in/two.pdb", 12, 17, first=5)
    (tmp_path / "in/s.fasta").write_text(">mine\nACDEFGHIKLMNPQRSTVWYX\n")
    outcome, manifest = run(task="forward_folding", input=tmp_path / "in")
    assert [design["id"] for design in manifest["designs"]] == ["mine_0", "two_A_0", "two_B_0"]
    mine, first, _ = manifest["designs"]
    assert mine["sequence"] == "ACDEFGHIKLMNPQRSTVWYX"
    assert "ca_rmsd" not in mine
    assert first["sequence"] == to_sequence(read_structure(path).aatype[:12])
    assert first["ca_rmsd"] > 0.5
    assert structure(outcome, "two_A_0").res_idx[0] == 5
    assert all("sequence=given" in header for header in fasta(outcome))
    assert to_sequence(structure(outcome, "mine_0").aatype) == mine["sequence"]


def test_trajectories(run):
    outcome, manifest = run(task="unconditional", lengths=[9], trajectories=True)
    assert list(manifest["designs"][0]["files"]) == [
        "structures/len9_0.pdb",
        "structures/len9_0.cif",
        "trajectories/len9_0_path.pdb",
        "trajectories/len9_0_clean.pdb",
    ]
    path, clean = (outcome.folder / name for name in list(manifest["designs"][0]["files"])[2:])
    assert PDBFile.read(path).get_model_count() == STEPS + 1
    assert PDBFile.read(clean).get_model_count() == STEPS
    last, final = read_structure(path, model=STEPS + 1), structure(outcome, "len9_0")
    assert np.array_equal(last.atom37, final.atom37)
    assert to_sequence(read_structure(path).aatype) == "X" * 9  # all masked


def test_dropout_in_inference_follows_the_designs_own_seed(run):
    """Whatever else is made, and however often: designs are made one at a time then."""
    stage = tiny_recipe()["model"]["trunk"]["stages"][0] | {"transformer_dropout": {"train": 0.1, "infer": 0.5}}
    model = tiny_model(trunk={"stages": [stage]})
    assert model.draws_in_inference and not tiny_model().draws_in_inference
    few, _ = run(model, task="unconditional", lengths=[9], samples_per_length=1)
    many, _ = run(model, task="unconditional", lengths=[9], samples_per_length=3)
    again, _ = run(model, task="unconditional", lengths=[9], samples_per_length=3)
    texts = [(one.folder / "structures" / "len9_0.pdb").read_text() for one in (few, many, again)]
    assert texts[0] == texts[1] == texts[2]
    still, _ = run(tiny_model(), task="unconditional", lengths=[9], samples_per_length=1)
    assert (still.folder / "structures" / "len9_0.pdb").read_text() != texts[0]


def test_a_model_without_sequence_head_is_said_to_have_designed_none(run):
    outcome, manifest = run(tiny_model(head={"kind": "none"}), task="unconditional", lengths=[9], samples_per_length=1)
    assert list(fasta(outcome)) == ["len9_0 task=unconditional sequence=none length=9"]
    assert "X left: no residue has a type, there is no sequence" in manifest["designs"][0]["flags"]
