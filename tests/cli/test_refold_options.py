"""Options of self-consistency on a command of one's own."""

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from app.cli.refold_options import with_refold_options
from app.errors import UserError
from app.evaluation.refold import RefoldSettings
from app.evaluation.refold.registry import PLUGINS, option


@pytest.fixture
def run():
    """Runs a command with such options; gives what it was called with, or raises."""
    called = []

    @with_refold_options
    def command(
        folder: Path, as_json: Annotated[bool, typer.Option("--json")] = False, *, refold: RefoldSettings
    ) -> None:
        """Say what is to be done."""
        called.append((folder, as_json, refold))

    cli = typer.Typer()
    cli.command()(command)

    def run(*arguments: str):
        result = CliRunner().invoke(cli, list(arguments))
        if isinstance(result.exception, UserError):
            raise result.exception
        return called.pop() if called else result

    return run


def test_options_become_settings(run, tmp_path):
    weights = tmp_path / "v_48_020.pt"
    weights.write_text("")
    given = ["--protein-mpnn", str(weights), "--esmfold", str(tmp_path), "--sequences", "4", "--temperature", "0.2"]
    folder, as_json, settings = run("designs", "--json", *given, "--longest", "300", "--refold-seed", "7")
    assert folder == Path("designs") and as_json
    assert settings == RefoldSettings(
        weights={"protein_mpnn": weights, "esmfold": tmp_path}, sequences=4, temperature=0.2, longest=300, seed=7
    )


def test_without_options_it_is_the_protocol_and_no_weights(run):
    assert run("designs") == (Path("designs"), False, RefoldSettings())
    assert RefoldSettings().sequences == 8 and RefoldSettings().temperature == 0.1
    assert RefoldSettings().designable == 2.0 and not RefoldSettings().weights


def test_bad_values_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"^--esmfold .*absent: there is none; give "):
        run("designs", "--esmfold", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"^--protein-mpnn .*: not a file; give "):
        run("designs", "--protein-mpnn", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--esmfold .*file: not a folder; give "):
        run("designs", "--esmfold", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"^sequences=0: wanted greater than"):
        run("designs", "--sequences", "0")
    with pytest.raises(UserError, match=r"^--device=tpu is unknown"):
        run("designs", "--device", "tpu")


def test_help_names_every_plug_in(run):
    told = run("--help").output
    assert all(option(name) in told for name in PLUGINS) and "--temperature" in told
    assert "Say what is to be done." in told
