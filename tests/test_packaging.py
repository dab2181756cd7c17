"""The three lists of dependencies (pyproject.toml, environment.yml, constraints.txt) tell the same."""

import os
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import app

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # conda-forge's name -> PyPI's, where they differ
PYPI_ALONE = {"faesm"}  # not on conda-forge: pip brings them along with the package itself

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def make(*arguments, cwd):
    """make as typed in a fresh shell, whatever make these tests run under."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "VENV")}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def requirements(lines):
    found = map(Requirement, lines)
    return {canonicalize_name(one.name): one for one in found}


def pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return requirements(line for line in lines if line and not line.startswith("#"))


def test_conda_installs_what_pip_does():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = requirements(line for line in listed if isinstance(line, str))
    assert str(conda.pop("python").specifier) == PYPROJECT["project"]["requires-python"]
    conda.pop("pip")
    assert [entry for entry in listed if isinstance(entry, dict)] == [{"pip": ["-e ."]}]
    conda = {CONDA_NAMES.get(name, name): one.specifier for name, one in conda.items()}
    pip = {name: one.specifier for name, one in requirements(PYPROJECT["project"]["dependencies"]).items()}
    assert conda == {name: specifier for name, specifier in pip.items() if name not in PYPI_ALONE}
    assert pip.keys() >= PYPI_ALONE


def test_constraints_pin_one_version_of_everything_needed():
    pins = pinned()
    for name, wanted in (requirements(PYPROJECT["project"]["dependencies"]) | requirements(EXTRAS["dev"])).items():
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert "+" not in pin.version, "a local build of one platform"
        assert wanted.specifier.contains(pin.version), name
    assert str(pins["torch"].specifier) == "==2.13.0"


def test_the_base_install_needs_no_gpu_and_kernels_are_for_linux():
    base = requirements(PYPROJECT["project"]["dependencies"])
    for extra in ("cuda12", "cuda13"):
        kernels = requirements(EXTRAS[extra])
        assert f"cuequivariance-ops-torch-{extra.replace('cuda', 'cu')}" in kernels
        assert all("linux" in str(one.marker) for one in kernels.values())
        assert not base.keys() & kernels.keys()


def test_the_version_is_told_once():
    try:
        installed = metadata.version("trunkline")
    except metadata.PackageNotFoundError:
        pytest.skip("Trunkline itself is not installed in this environment")
    assert installed == app.__version__


def test_make_help_lists_every_target():
    lines = make("help", cwd=ROOT).stdout.splitlines()
    listed = {line.split()[1] for line in lines if line.startswith("  make")}
    assert listed == {"help", "env", "demo", "test", "test-all", "lint", "clean"}


@pytest.mark.parametrize(("python", "says"), [("no-such-python", "no no-such-python"), ("./old", "is Python 3.9")])
def test_make_env_says_what_python_it_needs(tmp_path, python, says):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "old").write_text('#!/bin/sh\nshift\nexec python3 -c "import sys; sys.version_info = (3, 9, 2); $1"\n')
    (tmp_path / "old").chmod(0o755)
    done = make("env", f"PYTHON={python}", cwd=tmp_path)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "3.11" in errors[0]
    assert not (tmp_path / ".venv").exists()
