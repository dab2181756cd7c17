"""Files whose names are no valid UTF-8, as old archives have them."""

import os
import subprocess
import sys

import pytest

from app.training.run_folder import RunFolder
from tests.training.runs import arguments, data, in_own_process, one_thread

ODD = os.fsdecode(b"caf\xe9.pdb")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_they_are_trained_on_and_told(tmp_path):
    data(tmp_path)
    folder = tmp_path / "structures"
    (folder / ODD).write_bytes((folder / "made00.pdb").read_bytes())
    (folder / f"broken-{ODD}").write_text("nothing")
    out = tmp_path / "out"
    command = arguments(tmp_path, "data.validation.fraction=0.2", "data.sample_by=cluster", "trainer.max_steps=3")
    run = in_own_process(*command, f"out={out}")
    said, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert "14 examples from 14 files are used" in said and r"dropped broken-caf\udce9" in said
    assert r"dropped broken-caf\udce9" in RunFolder(out).log.read_text()
    again = in_own_process(f"resume={out / 'checkpoints' / 'last.ckpt'}", "trainer.max_steps=5")
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
@pytest.mark.parametrize("command", [["check"], ["cluster", "--to", "clusters"]])
def test_data_commands_take_them(tmp_path, command):
    data(tmp_path)
    folder = tmp_path / "structures"
    (folder / ODD).write_bytes((folder / "made00.pdb").read_bytes())
    typed = ["data", command[0], str(folder), *command[1:], "--cache-dir", str(tmp_path / "cache")]
    typed += ["--min-length", "4"] if command[0] == "check" else []
    line = [sys.executable, "-m", "app", *typed]
    done = subprocess.run(line, capture_output=True, cwd=tmp_path, env=one_thread(), timeout=120)
    assert done.returncode == 0, done.stderr
    if command[0] == "cluster":
        assert b"caf\xe9_A" in (tmp_path / "clusters").read_bytes()
