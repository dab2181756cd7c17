"""`resume=auto`: one command that begins a run, and goes on with it however often it is killed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config.compose import compose
from app.errors import UserError
from app.training.checkpoint import Opened, open_checkpoint
from app.training.console import say
from app.training.run_folder import RunFolder, step_of
from app.training.safe_load import Refused
from app.training.seal import Damaged

AUTO = "auto"


def folder_of(arguments: Sequence[str], typed: Mapping[str, Any]) -> RunFolder:
    """The folder of the run that a command line describes: where `out` says, or where the checkpoint lies that it
    resumes."""
    resume = typed.get("resume")
    if "out" not in typed and resume not in (None, AUTO) and (own := RunFolder.of(Path(resume))):
        return own
    out = compose("train", arguments)["out"]
    if out is None:
        raise UserError("out=null: name the run's folder, or leave it out")
    return RunFolder(Path(out))


def newest(folder: RunFolder, language: Mapping[str, Any]) -> Opened | None:
    """The newest checkpoint of a run that verifies; None for one that was killed before its first. Says which were
    passed over, and why.

    language: as `open_checkpoint` takes it. Raises UserError where there are checkpoints and none verifies, and where
    one that verifies cannot be used all the same, as one of a newer Trunkline.
    """
    faults: list[str] = []
    found: Opened | None = None
    for path in _candidates(folder):
        if found is not None and step_of(path) <= found.step:
            break
        try:
            opened = open_checkpoint(path, language)
        except (Damaged, Refused) as error:
            faults.append(str(error))
            continue
        if found is None or opened.step > found.step:
            found = opened
    if found is not None:
        for fault in faults:
            say(f"passed over {fault}")
        return found
    if faults:
        listed = "; ".join(faults)
        raise UserError(f"out={folder.path}: none of its checkpoints can be used, to begin anew remove it: {listed}")
    return None


def _candidates(folder: RunFolder) -> list[Path]:
    """last.ckpt and the others, newest first; names of one file once."""
    found: list[Path] = []
    for path in (folder.last, *reversed(folder.kept())):
        if path.is_file() and not any(path.samefile(other) for other in found):
            found.append(path)
    return found
