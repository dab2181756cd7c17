"""The folder of a run: what lies where in it, and whose it is.

OUT/recipe.yaml                     the recipe, as plain data
OUT/machine.yaml                    what it is computed with: device, versions, git state, kernels that served
OUT/train.log                       what it said
OUT/metrics.csv                     see csv_log.py
OUT/curves.png, OUT/summary.json, OUT/report.html    see run_report.py
OUT/checkpoints/last.ckpt           the newest
OUT/checkpoints/step-000100.ckpt    see save_checkpoints.py
OUT/replay/step-000100.ckpt         see replay_file.py
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from app.config.diff import differences
from app.errors import UserError
from app.files.lock import Lock
from app.files.manifest import MANIFEST
from app.files.whole import refuse_unwritable, sync_folder, told_of, write_whole

_STEP = re.compile(r"step-(\d+)\.ckpt")


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def machine(self) -> Path:
        return self.path / "machine.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    def checkpoint_of(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}.ckpt"

    def kept(self) -> list[Path]:
        """The checkpoints named by their step, oldest first."""
        return _numbered(self.checkpoints)

    def replay_of(self, step: int) -> Path:
        return self.path / "replay" / f"step-{step:06d}.ckpt"

    def replays(self) -> list[Path]:
        """Steps kept for replay, oldest first."""
        return _numbered(self.path / "replay")

    @classmethod
    def of(cls, checkpoint: Path) -> RunFolder | None:
        """The folder whose run wrote a checkpoint, by where it lies; None for one that was taken elsewhere."""
        checkpoint = Path(os.path.abspath(checkpoint))
        folder, here = checkpoint.parents[1], Path.cwd()
        run = cls(folder.relative_to(here) if folder.is_relative_to(here) else folder)
        return run if checkpoint.parent.name == "checkpoints" and run.recipe.is_file() else None

    @classmethod
    def named(cls, name: str) -> RunFolder:
        """Where a run of a recipe of that name goes by itself."""
        return cls(Path("runs") / name)

    def holds_run(self) -> bool:
        own = self.recipe.exists() or self.metrics.exists() or any(self.checkpoints.glob("*.ckpt"))
        return own or (self.path / MANIFEST).exists()  # infer.py's

    def refuse_unwritable(self) -> None:
        """Raises UserError where nothing could be written here."""
        refuse_unwritable(self.path)

    def refuse_other_run(self, recipe: dict | None = None) -> None:
        """Raises UserError where a run lies here, or where nothing could be written here.

        recipe: may lie here all the same, begun and killed before its first checkpoint.
        """
        if recipe is not None and self.recipe.exists() and not any(self.checkpoints.glob("*.ckpt")):
            self._refuse_other_recipe(recipe)
        elif self.holds_run():
            Lock(self.path).refuse_held()  # rather than advise to remove it
            go_on = f"go on with it by {self.resume_hint()}, or " if self.last.is_file() else "remove it or "
            raise UserError(f"out={self.path}: holds another run: {go_on}choose another out=")
        self.refuse_unwritable()

    def _refuse_other_recipe(self, recipe: dict) -> None:
        try:
            begun = yaml.safe_load(self.recipe.read_text())
            changes = differences(begun, recipe)
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            raise UserError(f"{self.recipe}: cannot be read: remove the folder, the run has no checkpoint") from None
        if changes:
            key, old, new = changes[0]
            raise UserError(
                f"out={self.path}: holds a run that has no checkpoint yet, begun with {key}={old}, not {new}: type what"
                " it was begun with, or remove the folder"
            )

    def refuse_newer(self, checkpoint: Path, step: int) -> None:
        """Raises UserError where this folder's own run went on beyond `checkpoint`, which resuming here would undo."""
        self.refuse_unwritable()
        newest = max(map(step_of, self.kept()), default=-1)
        if newest > step:
            raise UserError(
                f"resume={checkpoint}: its run went on to step {newest}: go on there by {self.resume_hint()}, or give"
                f" another out= for a run that branches off at step {step}"
            )

    def resume_hint(self) -> str:
        return f"resume={shlex.quote(str(self.last))}"

    def begin(self, recipe: dict, step: int) -> None:
        """Make the folder and write down the recipe; remove what a killed run left half-written.

        step: where the run begins. Checkpoints of later steps were passed over as damaged (see meanwhile.py for those
        that were not there then): they are renamed, so that they do not count among the newest. Steps kept for replay
        that are yet to come are of what is now done again.
        """
        _write(self.recipe, recipe)
        with told_of(self.checkpoints):
            self.checkpoints.mkdir(exist_ok=True)
            sync_folder(self.path)
            sync_folder(self.path.parent)
            for path in self.kept():
                if step_of(path) > step:
                    path.rename(path.with_suffix(".ckpt.damaged"))
            for path in self.replays():
                if step_of(path) > step:
                    path.unlink(missing_ok=True)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """What a killed run left half-written."""
        with told_of(self.path):
            for folder in (self.path, self.checkpoints, self.path / "replay"):
                for leftover in folder.glob(".*.tmp"):
                    leftover.unlink(missing_ok=True)

    def tell(self, machine: dict) -> None:
        """Write down what the run is computed with, in place of what was written of it before."""
        _write(self.machine, machine)


def _write(path: Path, plain: dict) -> None:
    write_whole(path, lambda file: file.write(yaml.safe_dump(plain, sort_keys=False).encode()))


def _numbered(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*.ckpt") if step_of(path) >= 0), key=step_of)


def step_of(path: Path) -> int:
    """Of a checkpoint, by its name; -1 where that does not tell."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else -1
