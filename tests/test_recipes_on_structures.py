"""The commands themselves on real structures: train.py with a recipe, and infer.py from what it wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model.esm.made_esm import write_esm
from tests.training import runs

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["model.c_s=32", "model.c_z=16", "model.node_embed.c_position=16", "model.node_embed.c_time=16"]
RECIPES = {
    "pairformer_heavy": [*SMALL, "model.trunk.stages.0.depth=2", "model.trunk.stages.1.depth=1"],
    "flash_esm_nodeonly": [*(text for text in SMALL if "c_z" not in text), "model.trunk.stages.0.depth=2"],
    "esm_pairs": [*SMALL, "model.trunk.stages.0.depth=2"],
}


def command(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_train_and_infer(recipe, shared, tmp_path):
    structures, out = shared / "structures", tmp_path / "run"
    language = [f"model.esm.name={write_esm(tmp_path / 'esm')}"] if "esm" in recipe else []
    data = [f"data.path={structures}", f"data.cache_dir={tmp_path / 'cache'}", "data.max_length=120"]
    limits = ["data.loader.max_residues_squared=30000", "trainer.max_steps=3", "trainer.log_every=1"]
    said = command(
        "train.py", f"recipe={recipe}", "data=structures", *data, *limits, *RECIPES[recipe], *language, "trainer=cpu",
        f"out={out}",
    )  # fmt: skip
    assert "done at step 3" in said
    last = out / "checkpoints" / "last.ckpt"
    assert all(tensor.isfinite().all() for tensor in torch.load(last, weights_only=True)["state_dict"].values())
    assert len(runs.rows(out)) == 3

    for task, given in (
        ("unconditional", ["lengths=[40,55]"]),
        ("forward_folding", [f"input={structures / '1k1a.cif.gz'}"]),
        ("inverse_folding", [f"input={structures / '1bc8.pdb.gz'}"]),
    ):
        designs = tmp_path / task
        command("infer.py", f"ckpt={last}", f"task={task}", *given, "steps=3", "device=cpu", f"out={designs}")
        manifest = json.loads((designs / "manifest.json").read_text())
        assert manifest["done"] == manifest["requested"] > 0
        assert all((designs / file).is_file() for design in manifest["designs"] for file in design["files"])
