"""The command line of infer.py: what users type, what they get, and what they are told."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import infer
from app.chem.residues import to_sequence
from app.config import entry
from app.errors import UserError
from app.legacy import multiflow
from app.ops import select
from app.structure.read import read_structure
from tests.factories import saved, tiny_module
from tests.sampling.made_inputs import write_structure

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Our own format, with settings of the sampler that are not the defaults."""
    return saved(tiny_module(sampler={"token_noise": 7.0}), tmp_path_factory.mktemp("run") / "last.ckpt")


@pytest.fixture
def run(tmp_path, checkpoint):
    """infer.py in this process, into `tmp_path/out` -> (exit status, manifest)."""

    def go(*arguments, ckpt=checkpoint, out="out"):
        status = infer.main([f"ckpt={ckpt}", f"out={tmp_path / out}", "device=cpu", "steps=4", *arguments])
        return status, json.loads((tmp_path / out / "manifest.json").read_text())

    return go


def refusal(run, *arguments, **more):
    with pytest.raises(UserError) as caught:
        run(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unconditional(run, checkpoint, tmp_path, capsys):
    status, manifest = run("task=unconditional", "lengths=[9,14]", "samples_per_length=2", "seed=1")
    assert status == 0
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (4, 4, 0)
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["seed"] == 1
    assert manifest["settings"]["sampler"]["token_noise"] == 7.0
    for design in manifest["designs"]:
        protein = read_structure(tmp_path / "out" / next(iter(design["files"])))
        assert to_sequence(protein.aatype) == design["sequence"]
    said = capsys.readouterr().out
    assert "sampler euler on cpu" in said
    assert "->" not in said  # nothing differs from the checkpoint


def test_the_default_sampler_is_the_checkpoints(run, checkpoint, tmp_path, capsys):
    legacy = multiflow.export(tiny_module(), tmp_path / "legacy")
    _, manifest = run("lengths=9", ckpt=legacy)
    assert manifest["settings"]["sampler"]["name"] == "multiflow_legacy"
    assert manifest["settings"]["sampler"]["stale_final_call"] is True
    capsys.readouterr()

    _, manifest = run("lengths=9", "sampler=multiflow_legacy", "sampler.min_t=0.02", out="switched")
    sampler = manifest["settings"]["sampler"]
    assert (sampler["name"], sampler["rotation_schedule"]) == ("multiflow_legacy", "exponential")
    assert (sampler["token_noise"], sampler["min_t"]) == (7.0, 0.02)
    said = capsys.readouterr().out.splitlines()
    assert "  sampler.name: euler -> multiflow_legacy" in said
    assert "  sampler.min_t: 0.01 -> 0.02" in said
    assert not any("token_noise" in line for line in said)

    _, manifest = run("lengths=9", "sampler.token_noise=5", out="typed")
    assert manifest["settings"]["sampler"]["token_noise"] == 5.0
    assert "  sampler.token_noise: 7.0 -> 5.0" in capsys.readouterr().out.splitlines()


def test_it_says_once_what_it_runs_with(run, capsys, restored_precision):
    """Device, precision, variables, versions and kernels, as train.py does."""
    _, manifest = run("lengths=[9,14]", "environment=tf32", "kernels.self_attention=reference")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "unconditional with sampler euler on cpu in float32"
    assert said[1].startswith("with PYTORCH_ENABLE_MPS_FALLBACK=") and "matmul_precision=high; trunkline " in said[1]
    assert f"torch {torch.__version__}" in said[1]
    (kernels,) = [line for line in said if line.startswith("kernels (")]
    assert "self_attention=reference" in kernels and "invariant_point_attention=torch" in kernels
    for word in ("matmul_precision", "self_attention", "on cpu"):
        assert sum(word in line for line in said) == 1
    assert manifest["kernels"]["matmul_precision"] == manifest["environment"]["matmul_precision"] == "high"
    assert torch.backends.cudnn.allow_tf32


def test_a_kernel_that_cannot_serve_a_design_is_one_line(run, monkeypatch, tmp_path):
    attention = select.operations()["invariant_point_attention"]
    short = dataclasses.replace(attention.backends["torch"], longest=10)
    monkeypatch.setitem(attention.backends, "torch", short)
    told = refusal(run, "lengths=[9,14]", "samples_per_length=3", "kernels.invariant_point_attention=torch")
    assert told.startswith("kernels.invariant_point_attention=torch: takes 1 to 10 residues, and is asked for cpu")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["done"], manifest["failed"]) == (3, 3)
    assert manifest["designs"][5]["error"] == f"not run: {told}"


def test_a_failed_design_is_exit_status_1(run, monkeypatch):
    from app.sampling import outputs

    written = outputs.write_pdb

    def write(path, *arguments, **more):
        if path.name == "len9_1.pdb":
            raise OSError(28, "No space left on device")
        written(path, *arguments, **more)

    monkeypatch.setattr(outputs, "write_pdb", write)
    status, manifest = run("lengths=[9]", "samples_per_length=3")
    assert status == 1
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (3, 2, 1)
    assert [design["status"] for design in manifest["designs"]] == ["done", "failed", "done"]


def test_paths_may_hold_anything(run, checkpoint, tmp_path):
    odd = tmp_path / "a, b=[c] d"
    odd.mkdir()
    write_structure(odd / "x y=1,[2].pdb", 9)
    shutil.copy(checkpoint, odd / "epoch=1, step=2.ckpt")
    status, manifest = run(
        "task=inverse_folding", f"input={odd / 'x y=1,[2].pdb'}", ckpt=odd / "epoch=1, step=2.ckpt", out="o, =[ut]"
    )
    assert status == 0
    assert next(iter(manifest["designs"][0]["files"])) == "structures/x_y_1_2__A_0.pdb"


def test_the_temperature_of_the_tokens(run, tmp_path, capsys):
    _, manifest = run("lengths=[9]", "temperature=0.7")
    assert manifest["settings"]["sampler"]["token_temperature"] == 0.7
    assert "  sampler.token_temperature: 0.1 -> 0.7" in capsys.readouterr().out.splitlines()
    path = write_structure(tmp_path / "x.pdb", 30)
    _, hot = run(
        "task=inverse_folding", f"input={path}", "temperature=50", "samples=3", "sampler.token_noise=0", out="hot"
    )
    assert len({design["sequence"] for design in hot["designs"]}) == 3
    assert max(len(set(design["sequence"])) for design in hot["designs"]) > 8  # nearly uniform over twenty


def test_partial_design_of_a_checkpoint_that_was_not_trained_for_it(run, tmp_path, capsys):
    path = write_structure(tmp_path / "x.pdb", 9, 7)
    status, manifest = run("task=partial", f"input={path}", "fix=[A2-4,B]", "what=both", "samples=2")
    assert status == 0
    warnings = manifest["warnings"]
    assert [warning.partition(" was not trained for ")[2].partition(":")[0] for warning in warnings] == [
        "task=partial what=both",
        "several chains",
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "partial what=both with sampler euler on cpu in float32"
    assert all(f"warning: {warning}" in said for warning in warnings)
    assert [design["fixed"] for design in manifest["designs"]] == [{"A": ["2-4"], "B": ["1-4", "6-8"]}] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lengths=[60+0]"], "lengths: 60+0 is outside the model's limits"),
        (["lengths=[9]", "temperature=0"], "temperature=0: wanted greater than or equal to 0.001"),
        (["task=forward_folding", "input=x", "temperature=1"], "temperature has no effect with task=forward_folding"),
        (["lengths=[9]", "temperature=1", "sampler.token_temperature=1"], "are the same setting: give one of them"),
        (["task=partial", "input=x"], "fix is missing"),
        (["task=partial", "input=none.pdb", "fix=[A]"], "input=none.pdb: no such file or folder"),
        (
            ["task=partial", "input=x", "fix=[A]", "what=sequence", "sampler.half_turn=exact"],
            "partial what=sequence, where",
        ),
        (["lengths=[0]"], "lengths: 0 is outside the model's limits"),
        (["lengths=[9999]"], "lengths: 9999 is outside the model's limits: give lengths of 1 to 2056"),
        ([], "lengths is missing"),
        (["lengths=[9]", "task=docking"], "task=docking: no such option; task is one of: forward_folding, "),
        (["lengths=[9]", "task=inverse_folding", "input=x.pdb"], "lengths has no effect with task=inverse_folding"),
        (["lengths=[9]", "input=x.pdb"], "input has no effect with task=unconditional"),
        (["task=forward_folding"], "input is missing"),
        (["task=forward_folding", "input=none.fasta"], "input=none.fasta: no such file or folder"),
        (["lengths=[9]", "sampler=eular"], "sampler=eular: no such option; did you mean euler?"),
        (["lengths=[9]", "sampler.nois=5"], "unknown key sampler.nois"),
        (["task=forward_folding", "input=x", "sampler.token_noise=5"], "sampler.token_noise has no effect with task"),
        (["lengths=[9]", "sampler.name=euler"], "chosen with sampler=NAME"),
        (["lengths=[9]", "stepz=5"], "unknown key stepz"),
        (["lengths=[9]", "+new=5"], "keys are not added"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, arguments, message):
    assert message in refusal(run, *arguments)
    assert not (tmp_path / "out").exists()


def test_bad_checkpoints_and_devices(run, checkpoint, tmp_path, monkeypatch):
    assert "none.ckpt" in refusal(run, "lengths=[9]", ckpt=tmp_path / "none.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:-4000])
    assert "cut.ckpt" in refusal(run, "lengths=[9]", ckpt=tmp_path / "cut.ckpt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device=cuda is not available here: use device=auto"):
        infer.main([f"ckpt={checkpoint}", f"out={tmp_path / 'out'}", "lengths=[9]", "device=cuda"])
    with pytest.raises(UserError, match="device='tpu'"):
        infer.main([f"ckpt={checkpoint}", f"out={tmp_path / 'out'}", "lengths=[9]", "device=tpu"])
    assert not (tmp_path / "out").exists()


def test_another_run_is_not_written_over(run):
    run("lengths=[9]")
    assert "something else: seed: 0 -> 1: type" in refusal(run, "lengths=[9]", "seed=1")


def test_from_the_shell(checkpoint, tmp_path):
    """Exit status 2 and one line on standard error for bad input; nothing else is written anywhere."""
    command = [sys.executable, "-B", str(ROOT / "infer.py"), f"ckpt={checkpoint}", "out=out", "device=cpu", "steps=2"]
    (tmp_path / "here").mkdir()

    def shell(*arguments):
        return subprocess.run([*command, *arguments], cwd=tmp_path / "here", capture_output=True, text=True)

    done = shell("lengths=[0]")
    assert done.returncode == entry.USER_ERROR == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: lengths: 0 is outside")
    assert list((tmp_path / "here").iterdir()) == []
    done = shell("lengths=[9]")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["out"]


# Multiflow's checkpoint on real structures

ENTRIES = {"2kl8.pdb.gz": ["2kl8_A"], "1lcd.cif.gz": ["1lcd_A"], "1qbs.pdb.gz": ["1qbs_A", "1qbs_B"]}


def designs_by_id(manifest):
    return {design["id"]: design for design in manifest["designs"]}


@pytest.mark.parametrize("task", ["forward_folding", "inverse_folding"])
def test_real_structures(run, shared, tmp_path, task):
    folder = tmp_path / "in"
    folder.mkdir()
    names = list(ENTRIES)[:2]
    for name in names:
        (folder / name).symlink_to(shared / "structures" / name)
    status, manifest = run(
        f"task={task}", f"input={folder}", "seed=5", ckpt=shared / "legacy_multiflow/last.ckpt", out="folder"
    )
    assert status == 0
    found = designs_by_id(manifest)
    assert set(found) == {f"{chain}_0" for name in names for chain in ENTRIES[name]}
    for name in names:
        native = read_structure(shared / "structures" / name)
        for chain in ENTRIES[name]:
            design = found[f"{chain}_0"]
            own = native.chain_idx == 1 + native.chain_ids.index(chain[-1])
            protein = read_structure(tmp_path / "folder" / next(iter(design["files"])))
            assert to_sequence(protein.aatype) == design["sequence"]
            assert protein.res_idx.tolist() == native.res_idx[own].tolist()
            if task == "forward_folding":
                assert design["sequence"] == to_sequence(native.aatype[own])
                assert design["ca_rmsd"] > 0
            else:
                assert np.abs(protein.atom37[:, 1] - native.atom37[own, 1]).max() < 2e-3
                assert 0 <= design["recovery"] <= 1


def test_real_complexes_and_batches(run, shared, tmp_path):
    """A complex as one design; its chains, of like lengths, in batches that leave no trace."""
    arguments = ["input=" + str(shared / "structures/1qbs.pdb.gz"), "task=inverse_folding"]
    golden = shared / "legacy_multiflow/last.ckpt"
    _, together = run(*arguments, "chains=together", ckpt=golden, out="together")
    assert list(designs_by_id(together)) == ["1qbs_0"]
    assert set(together["designs"][0]["chains"]) == {"A", "B"}
    manifests = [run(*arguments, f"max_batch_size={n}", ckpt=golden, out=f"by{n}")[1] for n in (1, 3, 8)]
    assert set(designs_by_id(manifests[0])) == {f"{chain}_0" for chain in ENTRIES["1qbs.pdb.gz"]}
    assert manifests[0]["designs"] == manifests[1]["designs"] == manifests[2]["designs"]


def test_multiflows_checkpoint_does_not_mind_the_batch_size(run, shared, tmp_path):
    made = {}
    for size in (1, 3, 8):
        arguments = "lengths=[21]", "samples_per_length=8", f"max_batch_size={size}"
        status, manifest = run(*arguments, ckpt=shared / "legacy_multiflow/last.ckpt", out=f"by{size}")
        assert status == 0
        made[size] = [
            (design["sequence"], read_structure(tmp_path / f"by{size}" / next(iter(design["files"]))).atom37)
            for design in manifest["designs"]
        ]
    for size in (3, 8):
        for (sequence, atoms), (same, moved) in zip(made[1], made[size], strict=True):
            assert sequence == same
            assert np.abs(atoms - moved).max() <= 1e-3


def test_its_three_tasks_as_documented(shared, tmp_path):
    ckpt = f"ckpt={shared / 'legacy_multiflow/last.ckpt'}"
    structures = shared / "structures"
    for name, arguments in {
        "unconditional": ["lengths=[20,30]", "samples_per_length=2", "steps=3", "seed=1"],
        "forward_folding": [f"input={structures / '2kl8.pdb.gz'}", "steps=3"],
        "inverse_folding": [f"input={structures / '2kl8.pdb.gz'}", "steps=3"],
    }.items():
        assert infer.main([ckpt, f"task={name}", *arguments, f"out={tmp_path / name}", "device=cpu"]) == 0
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert manifest["requested"] == manifest["done"] + manifest["failed"] == (4 if name == "unconditional" else 1)


def test_precision_compiler_and_graphs(run, monkeypatch, caplog):
    """Told in the manifest, refused by their keys."""
    _, manifest = run("lengths=9")
    assert (manifest["precision"], manifest["settings"]["precision"]) == ("float32", "float32")
    assert (manifest["settings"]["compile"], manifest["settings"]["cuda_graph"]) == (False, "auto")
    assert (manifest["compiled"], manifest["cuda_graph"]) == (False, False)
    _, half = run("lengths=9", "precision=bfloat16", out="half")
    assert (half["precision"], half["settings"]["precision"]) == ("bfloat16", "bfloat16")
    assert half["designs"][0]["sequence"]
    _, found = run("lengths=9", "precision=auto", out="auto")
    assert (found["precision"], found["settings"]["precision"]) == ("float32", "auto")
    assert found["designs"] == manifest["designs"]

    def no_compiler(*arguments, **more):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    _, compiled = run("lengths=[9,12]", "compile=true", out="compiled")
    assert compiled["designs"][0] == manifest["designs"][0]
    assert (compiled["settings"]["compile"], compiled["compiled"]) == (True, False)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "(RuntimeError: no C++ compiler): going on without it" in warning
    assert refusal(run, "lengths=9", "cuda_graph=true", out="graph").startswith(
        "cuda_graph=true: there are CUDA graphs"
    )
    assert refusal(run, "lengths=9", "precision=float16", out="sixteen").startswith("precision=float16: the cpu device")
    assert "precision" in refusal(run, "lengths=9", "precision=fast", out="fast")
