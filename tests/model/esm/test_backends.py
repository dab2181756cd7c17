"""Who runs the language model: what is installed, what is said, what comes out."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import UserError
from app.model.esm import backends
from app.model.esm.folder import find
from tests.model.esm.made_esm import write_esm

CPU = torch.device("cpu")


@pytest.mark.parametrize("version", ["4.30.1", "4.54.0", "5.17.0"])
def test_versions_that_faplm_does_not_run_with_are_refused(monkeypatch, version):
    monkeypatch.setattr(backends.metadata, "version", lambda name: version if name == "transformers" else "0.1.1")
    with pytest.raises(UserError, match=f"model.esm.backend=faplm: .*{version}: pip install.*backend=transformers"):
        backends.refuse_absent("faplm")
    backends.refuse_absent("transformers")


@pytest.mark.parametrize(("backend", "package"), [("faplm", "faesm"), ("transformers", "transformers")])
def test_packages_that_are_not_there_are_named(monkeypatch, backend, package):
    version = backends.metadata.version

    def without(name):
        if name == package:
            raise backends.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(backends.metadata, "version", without)
    with pytest.raises(UserError, match=rf"model\.esm\.backend={backend}: {package} not installed: pip install"):
        backends.refuse_absent(backend)


def test_a_package_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "faesm.esm", None)
    with pytest.raises(UserError, match=r"backend=faplm: cannot be imported.*or set model\.esm\.backend=transformers"):
        backends.refuse_absent("faplm")


def test_weights_that_are_missing_or_misshapen_are_named(tmp_path):
    folder = write_esm(tmp_path / "esm")
    key = "esm.encoder.layer.1.output.dense.bias"
    tensors = load_file(folder / "model.safetensors")
    for change in (lambda bias: None, lambda bias: bias[1:].clone()):
        spoilt = {name: change(value) if name == key else value for name, value in tensors.items()}
        save_file({name: value for name, value in spoilt.items() if value is not None}, folder / "model.safetensors")
        found = find(str(folder))
        with pytest.raises(UserError, match=r"its weights lack encoder\.layer\.1\.output\.dense\.bias \[16\]"):
            backends.build("transformers", found, found.weights(), CPU, torch.float32)


def test_nothing_is_imported_before_it_is_wanted_and_nothing_is_printed(esm, tmp_path):
    """In a process of its own, where flash-attn is installed and breaks without a GPU, as it does."""
    (tmp_path / "flash_attn.py").write_text("raise RuntimeError('no GPU here')")
    code = f"""
import sys, torch
sys.path.insert(0, {str(tmp_path)!r})
from app.model.codesign import CodesignModel, ModelSettings
esm = {{"kind": "esm2", "name": {str(esm)!r}}}
trunk = {{"stages": [{{"block": "ipa", "depth": 1}}]}}
with torch.device("meta"):
    plain, model = (CodesignModel(ModelSettings(trunk=trunk, **more)) for more in ({{}}, {{"esm": esm}}))
assert not {{"transformers", "faesm", "huggingface_hub"}} & sys.modules.keys()
assert sum(p.numel() for p in model.parameters()) > sum(p.numel() for p in plain.parameters())
model.esm.check(torch.device("cpu"))
assert "faesm.esm" in sys.modules and "flash_attn" not in sys.modules
from tests.factories import noisy_batch
assert CodesignModel(ModelSettings(trunk=trunk, esm=esm))(noisy_batch()).pred_trans.isfinite().all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
