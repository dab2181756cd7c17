"""Multiflow's checkpoints: told by their content, loaded, and written (Campbell et al. 2024).

Names in, names out; optimizer state by parameter; quirks as switches of the recipe.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor

from app.errors import UserError
from app.legacy import multiflow_names as names
from app.legacy.multiflow_config import resolve, to_config, to_recipe
from app.legacy.unpickle import load_checkpoint
from app.structure.atomic import replacing
from app.training.module import CodesignModule
from app.training.recipe import parse_recipe

_PREFIX = "model."


@dataclass
class LegacyCheckpoint:
    """A Multiflow checkpoint in our terms."""

    module: CodesignModule  # in eval mode, on the CPU
    recipe: dict  # plain data; `data.path` is for the user to give
    optimizer_state: dict | None  # for torch.optim.AdamW(module.model.parameters())
    epoch: int
    global_step: int
    ignored_keys: list[str]  # of the state dict: leftovers of the torsion head


def is_multiflow(checkpoint: dict) -> bool:
    """Whether a loaded checkpoint is Multiflow's, by the keys of its state dict."""
    state = checkpoint.get("state_dict")
    return isinstance(state, dict) and any(str(key).startswith(_PREFIX + "node_feature_net.") for key in state)


def load(path: str | Path) -> LegacyCheckpoint:
    """A Multiflow checkpoint of any dimensions, with config.yaml beside it where it holds no config itself.

    Raises UserError for a file that cannot be read or names classes outside the allow-list, for missing, unexpected or
    misshapen parameters (listed), and for settings that Trunkline does not reproduce.
    """
    return convert(load_checkpoint(path), Path(path))


def convert(checkpoint: dict, path: Path) -> LegacyCheckpoint:
    """The same for a checkpoint already read. path: where it came from, for messages and for the config beside it."""
    if not is_multiflow(checkpoint):
        raise UserError(f"{path}: not a Multiflow checkpoint, its state dict has no model.node_feature_net")
    try:
        state = {key.removeprefix(_PREFIX): value for key, value in _parameters(checkpoint).items()}
        tensors = {name: value for name, value in state.items() if not _is_leftover(name)}
        recipe = to_recipe(resolve(_config(checkpoint, path)), tensors)
        module = CodesignModule(parse_recipe(recipe))
        _fill(module, tensors)
        epoch, step = (_counter(checkpoint, key) for key in ("epoch", "global_step"))
        saved = checkpoint.get("optimizer_states")
        optimizer_state = _optimizer_in(saved, module, list(state)) if saved else None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    module.eval()
    module.restored_epoch, module.restored_step = epoch, step
    return LegacyCheckpoint(
        module=module,
        recipe=module.recipe.model_dump(mode="json"),
        optimizer_state=optimizer_state,
        epoch=epoch,
        global_step=step,
        ignored_keys=[_PREFIX + name for name in state if name not in tensors],
    )


def _is_leftover(name: str) -> bool:
    return bool(names.TORSION.search(name)) and names.ours(name) is None


def _parameters(checkpoint: dict) -> dict[str, Tensor]:
    state = checkpoint["state_dict"]
    odd = [key for key, value in state.items() if not (str(key).startswith(_PREFIX) and isinstance(value, Tensor))]
    if odd:
        raise UserError(f"unexpected in its state dict, not tensors under {_PREFIX}: {', '.join(map(str, odd))}")
    return state


def _counter(checkpoint: dict, key: str) -> int:
    value = checkpoint.get(key, 0)
    if not isinstance(value, int):
        raise UserError(f"its {key} is no number but {value!r:.80}")
    return value


def _config(checkpoint: dict, path: Path) -> dict:
    """The config inside the checkpoint, else the one beside it."""
    parameters = checkpoint.get("hyper_parameters")
    config = parameters.get("cfg") if isinstance(parameters, dict) else None
    beside = path.with_name("config.yaml")
    if config is None and beside.is_file():
        try:
            config = yaml.safe_load(beside.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise UserError(f"{beside} beside it is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserError(
            "holds no config, and there is no config.yaml beside it: put the one it was published with there"
        )
    return config


def _fill(module: CodesignModule, tensors: dict[str, Tensor]) -> None:
    """The parameters by name. Raises UserError listing all that are missing, unexpected or of another shape."""
    wanted = module.model.state_dict()
    state = {name: tensor for old, tensor in tensors.items() if (name := names.ours(old)) is not None}
    faults = [f"unexpected {_PREFIX}{old}" for old in tensors if names.ours(old) not in wanted]
    faults += [f"missing {_PREFIX}{names.theirs(name)}" for name in wanted if name not in state]
    faults += [
        f"{_PREFIX}{names.theirs(name)} has shape {list(state[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise UserError("its parameters do not fit the model: " + "; ".join(faults))
    module.model.load_state_dict(state)


def _optimizer_in(states: list[dict], module: CodesignModule, order: list[str]) -> dict:
    """AdamW's state, numbered by Multiflow's parameters, renumbered by ours.

    order: Multiflow's names in the order of the state dict, which is that of its `parameters()`: it has no buffers.
    Leftovers among them may have been trained or not.
    """
    parameters = dict(module.model.named_parameters())
    try:
        (group,) = states[0]["param_groups"]
        numbers, saved = list(group["params"]), states[0]["state"]
        if len(numbers) != len(order):
            order = [name for name in order if not _is_leftover(name)]
        number = {names.ours(old): number for old, number in zip(order, numbers, strict=True)}
        state = {index: saved[number[name]] for index, name in enumerate(parameters) if number[name] in saved}
        for index, (name, parameter) in enumerate(parameters.items()):
            if index in state and any(state[index][key].shape != parameter.shape for key in ("exp_avg", "exp_avg_sq")):
                raise UserError(f"its optimizer state does not fit the parameter {_PREFIX}{names.theirs(name)}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise UserError(
            f"its optimizer state is not AdamW's over its {len(parameters)} parameters: use weights=, not resume="
        ) from None
    return {"state": state, "param_groups": [{**group, "params": list(range(len(parameters)))}]}


def export(module: CodesignModule, folder: str | Path, optimizer: torch.optim.Optimizer | None = None) -> Path:
    """Writes folder/last.ckpt and folder/config.yaml in Multiflow's layout; returns the checkpoint's path.

    optimizer: AdamW over module.model.parameters(), whose state goes along. Raises UserError for a model that Multiflow
    cannot hold.
    """
    folder = Path(folder)
    config = to_config(module.recipe.model_dump(mode="json"))
    state = {names.theirs(name): tensor.detach().cpu() for name, tensor in module.model.state_dict().items()}
    order = names.legacy_order(list(state))
    trainer = module._trainer
    epoch, step = (
        (trainer.current_epoch, trainer.global_step) if trainer else (module.restored_epoch, module.restored_step)
    )
    checkpoint = {
        "epoch": epoch,
        "global_step": step,
        "pytorch-lightning_version": "2.0.4",
        "state_dict": {_PREFIX + name: state[name] for name in order},
        "loops": _loops(epoch, step),
        "callbacks": {},
        "optimizer_states": [_optimizer_out(optimizer, module, order)] if optimizer else [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"cfg": OmegaConf.create(config), "dataset_cfg": OmegaConf.create({})},
    }
    with replacing(folder / "config.yaml") as aside:
        OmegaConf.save(OmegaConf.create(config), aside)
    with replacing(folder / "last.ckpt") as aside:
        torch.save(checkpoint, aside)
    return folder / "last.ckpt"


def _loops(epoch: int, step: int) -> dict:
    """What Lightning reads its counters from, at the beginning of an epoch. What is not there starts from 0."""
    epochs = dict.fromkeys(("ready", "started", "processed", "completed"), epoch)
    steps = dict.fromkeys(("ready", "started", "completed"), step)
    none = dict.fromkeys(steps, 0)
    optimizer = {"step": {"total": steps, "current": none}, "zero_grad": {"total": steps, "current": none}}
    fit = {
        "epoch_progress": {"total": epochs, "current": epochs},
        "epoch_loop.state_dict": {"_batches_that_stepped": step},
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": optimizer},
    }
    return {"fit_loop": fit, "validate_loop": {}, "test_loop": {}, "predict_loop": {}}


def _optimizer_out(optimizer: torch.optim.Optimizer, module: CodesignModule, order: list[str]) -> dict:
    saved = optimizer.state_dict()
    if len(saved["param_groups"]) > 1:
        raise UserError("optimizer.groups: Multiflow has none: export the weights without the optimizer")
    number = {names.theirs(name): index for index, (name, _) in enumerate(module.model.named_parameters())}
    (group,) = saved["param_groups"]
    state = {index: saved["state"][number[old]] for index, old in enumerate(order) if number[old] in saved["state"]}
    return {"state": state, "param_groups": [{**group, "params": list(range(len(order)))}]}
