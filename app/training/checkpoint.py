"""Checkpoints, ours and Multiflow's: told by their content, checked, and turned into modules.

Nothing in a file is run: see `safe_load`. A checkpoint's recipe is plain data that the recipe's own checks must accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from app.config.keys import refuse_too_deep
from app.config.validate import parse
from app.devices import choose
from app.errors import UserError
from app.model.codesign import CodesignModel
from app.ops.settings import KernelSettings
from app.training import safe_load
from app.training.ema import KEY as EMA
from app.training.module import FORMAT, CodesignModule
from app.training.optimizer import OptimizerSettings, parameter_order
from app.training.recipe import OF_THE_MACHINE

RESTORED = {"loops", "callbacks", "optimizer_states", "lr_schedulers", "pytorch-lightning_version"}
"""What Lightning needs to go on with a run, besides the weights."""

MOST_LISTED = 12
"""Parameters named in one error; the rest is counted."""


@dataclass
class Opened:
    """A checkpoint that was read and found whole."""

    path: Path
    module: CodesignModule  # with the weights, in eval mode, on the CPU
    recipe: dict  # plain data, defaults filled in, `OF_THE_MACHINE` unchecked; Multiflow's has no place of the data
    state: dict[str, Any]  # what Lightning's Trainer restores a run from
    ours: bool

    @property
    def ema(self) -> dict[str, Tensor] | None:
        """The moving average of the weights, by the names of the state dict."""
        return self.state.get(EMA)

    def take_ema(self, wanted: bool | Literal["auto"] = "auto") -> bool:
        """Fill the module with the moving average of its weights; "auto": where there is one. Whether that was done.

        Raises UserError where it is wanted and there is none.
        """
        if wanted is True and not self.ema:
            raise UserError(f"use_ema=true: {self.path} has no moving average of its weights: leave it out")
        if wanted and self.ema:
            self.module.load_state_dict(self.ema, strict=False)  # of the parameters; checked when it was opened
        return bool(wanted and self.ema)

    @property
    def epoch(self) -> int:
        return self.module.restored_epoch

    @property
    def step(self) -> int:
        return self.module.restored_step

    @property
    def epochs_done(self) -> int:
        """Whole epochs; a checkpoint is written before Lightning counts the epoch that ends with it."""
        batches = ((self.state.get("loops") or {}).get("fit_loop") or {}).get("epoch_loop.batch_progress") or {}
        return self.epoch + bool(batches.get("is_last_batch"))

    @property
    def is_finite(self) -> bool:
        tensors = (*self.module.state_dict().values(), *(self.ema or {}).values())
        return all(tensor.isfinite().all() for tensor in tensors)

    def take_state(self) -> dict[str, Any]:
        """`state`, for the one who needs it; it is not kept here, since it is several times the weights."""
        state, self.state = self.state, {}
        return state

    def refuse_weights_only(self) -> None:
        """Raises UserError where a run cannot go on from this."""
        if not self.state.get("optimizer_states") or not self.state.keys() >= RESTORED:
            raise UserError(
                f"resume={self.path}: holds weights, but no optimizer state: start a new run by weights={self.path}"
            )
        if wrong := self._faults_of_state():
            raise UserError(f"resume={self.path}: damaged, {wrong}; go on from another checkpoint, or copy it again")

    def _faults_of_state(self) -> str | None:
        """What would stop or corrupt a run that went on from here, in a few words."""
        if not (self.state["loops"] is None or isinstance(self.state["loops"].get("fit_loop"), dict)):
            return "it does not say how far the run had come"
        if not self.is_finite:
            return "its weights are not all finite"
        moments = self.state["optimizer_states"][0].get("state", {})
        parameters = dict(self.module.model.named_parameters())
        for index, name in enumerate(parameter_order(self.module.model, self.module.recipe.optimizer)):
            kept, parameter = moments.get(index, {}), parameters[name]
            if moments and not {"step", "exp_avg", "exp_avg_sq"} <= kept.keys():
                return f"the optimizer's state of {name} is missing"
            for moment in ("exp_avg", "exp_avg_sq"):
                if moments and kept[moment].shape != parameter.shape:
                    return f"the optimizer's {moment} of {name} has shape {list(kept[moment].shape)}"
        return None


def load_module(
    path: str | Path,
    device: str | torch.device = "cpu",
    language: Mapping[str, Any] | None = None,
    use_ema: bool | Literal["auto"] = "auto",
) -> CodesignModule:
    """The module of a checkpoint, ours or Multiflow's, in eval mode; `.recipe` is how it was trained, save for kernels
    and compiler, which are as they are by default: they belong to a machine.

    language: see `open_checkpoint`. use_ema: with the moving average of its weights; "auto": where there is one.
    device: as `app.devices.choose` takes it, "cuda:1", or a torch.device.
    `.restored_epoch` and `.restored_step` tell how far it had been trained. Raises UserError as `open_checkpoint` does,
    and for a device that is not there.
    """
    by_name = isinstance(device, str) and ":" not in device
    opened = open_checkpoint(path, language)
    opened.take_ema(use_ema)
    return opened.module.to(choose(device) if by_name else torch.device(device))


def open_checkpoint(path: str | Path, language: Mapping[str, Any] | None = None) -> Opened:
    """Read a checkpoint, ours or Multiflow's.

    language: settings of the language model that hold here in place of the checkpoint's: name, backend, precision.

    Raises UserError for a file that is missing, does not verify, is no checkpoint, or is of a newer Trunkline; for one
    that names a class that does not belong there (nothing in it is run); for a recipe that is not valid; and for
    parameters that are missing, unexpected or of another shape, all of them listed.
    """
    path = Path(path)
    checkpoint = _read(path)
    if "trunkline" in checkpoint:
        return _ours(checkpoint, path, language or {})
    from app.legacy import multiflow

    if not multiflow.is_multiflow(checkpoint):
        keys = ", ".join(map(str, list(checkpoint)[:8])) or "nothing"
        raise UserError(f"{path}: neither a Trunkline nor a Multiflow checkpoint, it holds {keys}")
    loaded = multiflow.convert(checkpoint, path)
    recipe = loaded.recipe
    if loaded.optimizer_state:
        group = loaded.optimizer_state["param_groups"][0]
        settings = {name: group[name] for name in recipe["optimizer"] if name in group}
        recipe["optimizer"] = parse(OptimizerSettings, settings, "optimizer").model_dump(mode="json")
    state = {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": loaded.epoch,
        "global_step": loaded.global_step,
        "state_dict": loaded.module.state_dict(),
        "optimizer_states": [loaded.optimizer_state] if loaded.optimizer_state else [],
        "lr_schedulers": [],
        "callbacks": {},
        "loops": None,  # the module has Lightning begin at the start of the epoch
    }
    return Opened(path, loaded.module, recipe, state, ours=False)


def start_from_boltz(model: CodesignModel, path: Path) -> list[str]:
    """Fill the pair track of the trunk's pairformer stages from a Boltz-2 checkpoint; a report, line by line.

    Raises UserError for a file that cannot be read or of which nothing fits.
    """
    from app.legacy import boltz

    return [f"  {line}" for line in str(boltz.start_from(model, path)).splitlines()]


def faults(wanted: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    """What keeps `given` from being loaded as `wanted`: parameters missing, unexpected, or of another shape."""
    found = [f"missing {name}" for name in wanted if not isinstance(given.get(name), Tensor)]
    found += [f"unexpected {name}" for name in given if name not in wanted]
    found += [
        f"{name} has shape {list(given[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if isinstance(given.get(name), Tensor) and given[name].shape != tensor.shape
    ]
    return found


def refuse_misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Any], path: Path, what: str = "parameters") -> None:
    """Raises UserError where not all that is wanted is given, listing what does not fit."""
    if wrong := faults(wanted, given):
        listed = "; ".join(wrong[:MOST_LISTED]) + f"; and {len(wrong) - MOST_LISTED} more" * (len(wrong) > MOST_LISTED)
        raise UserError(f"{path}: damaged, its {what} do not fit the model that it says it holds: {listed}")


def _read(path: Path) -> dict:
    try:
        return safe_load.load(path)
    except safe_load.Refused:  # Multiflow's hold OmegaConf's containers, which have stand-ins there
        from app.legacy.unpickle import load_checkpoint

        return load_checkpoint(path)


def _ours(checkpoint: dict, path: Path, language: Mapping[str, Any]) -> Opened:
    about, weights = checkpoint["trunkline"], checkpoint.get("state_dict")
    if not isinstance(about, dict) or not isinstance(about.get("format"), int) or not isinstance(weights, dict):
        raise UserError(f"{path}: damaged, what it says of itself cannot be read")
    if about["format"] > FORMAT:
        raise UserError(
            f"{path}: written by a newer Trunkline ({about.get('version')}; format {about['format']}, this one reads up"
            f" to {FORMAT}): upgrade Trunkline"
        )
    try:
        refuse_too_deep(about.get("recipe"), "the recipe")
        recipe, of_machine = _apart(_with_language(about.get("recipe"), language))
        with torch.device("meta"):  # before memory is taken: a recipe alone can ask for any amount of it
            sketch = CodesignModule(recipe)
    except UserError as error:
        raise UserError(f"{path}: its recipe is not valid: {error}") from None
    refuse_misfit(sketch.state_dict(), weights, path)
    if ema := checkpoint.get(EMA):
        what = "averaged parameters"
        refuse_misfit(dict(sketch.named_parameters()), ema if isinstance(ema, dict) else {}, path, what)
    module = CodesignModule(sketch.recipe)
    module.load_state_dict(weights)
    if module.model.esm is not None:
        module.model.esm.expect(about.get("esm"), path)
    module.eval()
    try:
        module.restored_epoch, module.restored_step = int(checkpoint["epoch"]), int(checkpoint["global_step"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged, it does not tell its epoch and global_step") from None
    return Opened(path, module, module.recipe.model_dump(mode="json") | of_machine, checkpoint, ours=True)


def _apart(recipe: Any) -> tuple[Any, dict[str, Any]]:
    """A stored recipe without what belongs to the machine, and that as it was stored, for whoever resumes to check.

    An environment is every process's own: where a recipe holds one, it is left out.
    """
    if not isinstance(recipe, dict):
        return recipe, {}  # for the recipe's own checks to tell
    of_machine = {name: recipe[name] for name in OF_THE_MACHINE if name in recipe}
    if isinstance(kernels := of_machine.get("kernels"), dict):  # an older one knows fewer operations
        of_machine["kernels"] = KernelSettings().model_dump() | kernels
    return {name: value for name, value in recipe.items() if name not in (*OF_THE_MACHINE, "environment")}, of_machine


def _with_language(recipe: Any, language: Mapping[str, Any]) -> Any:
    """The recipe with the language model where this machine has it; one without a language model as it is."""
    try:
        esm = recipe["model"]["esm"]
        if not language or esm["kind"] == "none":
            return recipe
        return recipe | {"model": recipe["model"] | {"esm": esm | language}}
    except (KeyError, TypeError):  # for the recipe's own checks to tell
        return recipe
