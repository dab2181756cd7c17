"""From the command line to a trained model: a new run, one from given weights, or one that goes on."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from app import environment
from app.config.compose import chosen_groups, compose, typed_overrides
from app.config.diff import merge
from app.config.entry import INTERRUPTED
from app.config.keys import lookup
from app.config.validate import parse
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.files.lock import Lock
from app.launched import after_the_first
from app.losses.settings import LossSettings
from app.model.codesign import CodesignModel
from app.model.edge_embed import EdgeEmbedSettings
from app.model.esm.settings import WHERE as ESM
from app.model.esm.settings import LanguageHere
from app.ops import select
from app.training import console, slurm
from app.training.auto_resume import AUTO, folder_of, newest
from app.training.checkpoint import Opened, open_checkpoint, start_from_boltz
from app.training.console import say
from app.training.fit import accelerator_of, fit
from app.training.interrupt import StopOnSignal
from app.training.kernel_environment import dtype_of
from app.training.meanwhile import Seen, look, refuse_written_since
from app.training.module import CodesignModule
from app.training.optimizer import group_names
from app.training.recipe import Recipe, parse_recipe
from app.training.resume import RUN_KEYS, amended_recipe, changes
from app.training.run_end import UNLIMITED, is_reached
from app.training.run_folder import RunFolder
from app.training.run_report import report_ended
from app.training.transfer import transfer


@dataclass
class Plan:
    """What a command line asks for, checked as far as that goes before anything is built."""

    recipe: Recipe
    folder: RunFolder
    seen: Seen  # the folder's checkpoints, before any was read
    resume: Opened | None = None
    weights: Opened | None = None
    weights_boltz: Path | None = None


AT_THE_BEGINNING = ("experiment", "weights", "weights_boltz", "use_ema")
"""Keys that have done their part when a run has its first checkpoint; `resume=auto` lets them stand."""


def train(arguments: Sequence[str], settings: EnvironmentSettings | None = None) -> int:
    """Run `train.py` with these arguments; its exit status.

    settings: the section `environment` where the caller has read it already. Raises UserError for whatever the user can
    mend.
    """
    settings = settings or environment.of_command_line(arguments)
    console.set_up()
    slurm.requeue_if_told_to_end()
    plan = plan_of(arguments)
    accelerator = accelerator_of(plan.recipe.trainer)  # before anything reads as if the run had begun
    module, report = build_module(plan)
    refuse_idle(arguments, module.model, plan.recipe)
    dtype = dtype_of(plan.recipe.trainer.precision)
    select.require(plan.recipe.kernels, torch.device(accelerator), dtype, select.used_by(module))
    if rank_zero_only.rank == 0 and module.model.esm is not None:
        module.model.esm.check(torch.device(accelerator))
        language = module.model.esm.identity()
        report.append(f"language model {language['name']}, frozen, sha256 {language['sha256'][:16]}")
    announce(plan, module, report)
    if plan.resume and is_reached(plan.recipe.trainer, plan.resume.step, plan.resume.epochs_done):
        if rank_zero_only.rank == 0:
            _finish(plan)
        say(f"the run ended at step {plan.resume.step}: raise trainer.max_steps or trainer.max_epochs to go on")
        return 0
    stop = StopOnSignal()
    try:
        with after_the_first():
            trainer = fit(module, plan.folder, plan.seen, settings, stop, plan.resume)
            return conclude(plan, trainer.global_step, stop.received)
    finally:
        stop.restore()


def _finish(plan: Plan) -> None:
    """What a run killed between its last checkpoint and its end left undone, unless another process goes on with it."""
    folder, ended = plan.folder, plan.resume
    with Lock(folder.path).held():
        refuse_written_since(folder, plan.seen)
        folder.remove_leftovers()
        report_ended(folder, ended.step, ended.epochs_done, ended.state.get("callbacks", {}), plan.recipe.callbacks)


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises UserError for a command line that does not compose, a checkpoint that does not open or does not fit to it,
    and a folder that is not free."""
    typed = typed_overrides(arguments)
    resume = typed.get("resume")
    automatic = resume == AUTO or (slurm.was_requeued() and _folder_of(arguments, typed).holds_run())
    if automatic:
        folder = _folder_of(arguments, typed)
        seen = look(folder)
        if (opened := newest(folder, typed_language(typed))) is not None:
            return _continued(opened, folder, seen, _without(arguments, *AT_THE_BEGINNING))
    if resume not in (None, AUTO):
        for key in ("weights", "weights_boltz"):
            if typed.get(key) is not None:
                raise UserError(f"resume= and {key}=: give one; resume goes on with a run, {key} starts a new one")
        return _resumed(Path(resume), typed.get("out"), arguments, automatic)
    arguments = _without(arguments, "resume")
    language: dict[str, Any] = {}
    if typed.get("weights") is not None and not _chooses_model(others := _without_language(arguments)):
        language, arguments = typed_language(typed), others  # of the checkpoint's model, which no recipe knows yet
    config = compose("train", arguments)
    run = {key: config.pop(key) for key in RUN_KEYS}
    weights = None if run["weights"] is None else open_checkpoint(run["weights"], language)
    if weights is not None and not weights.is_finite:
        raise UserError(f"weights={weights.path}: its weights are not all finite: start from another checkpoint")
    _choose_ema(run["use_ema"], weights, typed)
    if weights is not None:
        _refuse_language(language, weights)
    if weights is not None and not _chooses_model(arguments):
        config = like_checkpoint(config, weights.recipe, arguments)
        if "out" not in typed:
            run["out"] = RunFolder.named(config["name"]).path
    if run["out"] is None:
        raise UserError("out=null: name the run's folder, or leave it out")
    if run["resume"] is not None:
        raise UserError(f"resume={run['resume']}: to be typed, not set by a recipe")
    boltz = None if run["weights_boltz"] is None else Path(run["weights_boltz"])
    folder = RunFolder(Path(run["out"]))
    plan = Plan(parse_recipe(config), folder, look(folder), weights=weights, weights_boltz=boltz)
    if rank_zero_only.rank == 0:
        plan.folder.refuse_other_run(plan.recipe.model_dump(mode="json") if automatic else None)
    return plan


def _folder_of(arguments: Sequence[str], typed: Mapping[str, Any]) -> RunFolder:
    """A run that takes its model from a checkpoint takes its name from there too."""
    if typed.get("weights") is not None and "out" not in typed and not _chooses_model(_without_language(arguments)):
        return RunFolder.named(open_checkpoint(typed["weights"], typed_language(typed)).recipe["name"])
    return folder_of(arguments, typed)


def _choose_ema(wanted: Any, weights: Opened | None, typed: Mapping[str, Any]) -> None:
    if wanted not in (True, False, "auto"):
        raise UserError(f"use_ema={wanted}: give auto, true or false")
    if weights is None and "use_ema" in typed:
        raise UserError("use_ema has no effect without weights=: leave it out")
    if weights is not None:
        weights.take_ema(wanted)


def _chooses_model(arguments: Sequence[str]) -> bool:
    """Whether the command line says which model it wants."""
    chosen = [*chosen_groups(arguments), *(key.replace(".", "/") for key in typed_overrides(arguments))]
    return any(key == "recipe" or key.startswith("model/") for key in chosen)


def typed_language(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed of where the language model is and how it is run, which a checkpoint does not settle."""
    said = {name: typed[key] for name in LanguageHere.model_fields if (key := f"{ESM}.{name}") in typed}
    for name, value in said.items():
        if value is None:
            raise UserError(f"{ESM}.{name}=null: give one, or leave it out")
    parse(LanguageHere, said, ESM)
    return said


def _refuse_language(language: Mapping[str, Any], opened: Opened) -> None:
    if language and opened.module.model.esm is None:
        raise UserError(f"{ESM}.{next(iter(language))} has no effect: this checkpoint's model has no language model")


def _without_language(arguments: Sequence[str]) -> list[str]:
    keys = [f"{ESM}.{name}" for name in LanguageHere.model_fields]
    return _without(arguments, *keys)


def _without(arguments: Sequence[str], *keys: str) -> list[str]:
    return [text for text in arguments if text.partition("=")[0] not in keys]


def like_checkpoint(config: dict, recipe: dict, arguments: Sequence[str]) -> dict:
    """A composed config with the model of a checkpoint's recipe, and what belongs to it: flow, losses, sampler, the
    average of its weights.

    What the user typed of these stays.
    """
    typed = typed_overrides(arguments)
    belonging = ("name", "model", "flow", "loss", "sampler", "ema")
    sections = [name for name in belonging if name not in chosen_groups(arguments)]
    own = {key: lookup(config, key) for key in typed if key.split(".")[0] in sections}
    return merge(config | {name: recipe[name] for name in sections}, own)


def _continued(opened: Opened, folder: RunFolder, seen: Seen, arguments: Sequence[str]) -> Plan:
    _refuse_language(typed_language(typed_overrides(arguments)), opened)
    opened.refuse_weights_only()
    recipe = amended_recipe(opened, arguments)
    if rank_zero_only.rank == 0:
        folder.refuse_unwritable()
    return Plan(recipe, folder, seen, resume=opened)


def _resumed(path: Path, out: str | None, arguments: Sequence[str], again: bool = False) -> Plan:
    """again: the same command was killed before the first checkpoint of the run that it begins in another folder."""
    language = typed_language(typed := typed_overrides(arguments))
    _choose_ema("auto", None, typed)
    own = RunFolder.of(path)
    folder = RunFolder(Path(out)) if out is not None else own
    seen = frozenset() if folder is None else look(folder)
    opened = open_checkpoint(path, language)
    _refuse_language(language, opened)
    opened.refuse_weights_only()
    recipe = amended_recipe(opened, arguments)
    if folder is None:
        raise UserError(f"resume={path}: not in the folder of a run: say with out=FOLDER where this one is to be")
    if rank_zero_only.rank == 0:
        if own is not None and folder.path.resolve() == own.path.resolve():
            folder.refuse_newer(path, opened.step)
        else:
            folder.refuse_other_run(recipe.model_dump(mode="json") if again else None)
    return Plan(recipe, folder, seen, resume=opened)


def build_module(plan: Plan) -> tuple[CodesignModule, list[str]]:
    """The module to train, and a report of what was taken from elsewhere: its weights depend on the seed alone, save
    those that are given.

    Raises UserError where nothing of given weights fits.
    """
    torch.manual_seed(plan.recipe.seed)
    module, report = CodesignModule(plan.recipe), []
    if plan.weights:
        taken = transfer(plan.weights.module.model, module.model, _not_to_take(plan.weights.module, module))
        if not taken.tensors:
            reasons = "; ".join(f"{name}: {why}" for name, why in taken.left[:4])
            raise UserError(
                f"weights={plan.weights.path}: nothing of it fits the model of recipe {plan.recipe.name}: {reasons}"
            )
        report.append(f"weights of {plan.weights.path}, step {plan.weights.step}")
        report += taken.lines() if taken.left or taken.new else []
    if plan.resume and module.model.esm is not None:
        module.model.esm.language.expect_like(plan.resume.module.model.esm.language)
    if plan.weights_boltz:
        report.append(f"pairformer weights of {plan.weights_boltz}")
        report += start_from_boltz(module.model, plan.weights_boltz)
    return module, report


def _not_to_take(source: CodesignModule, target: CodesignModule) -> dict[str, str]:
    """Parts that would fit and yet mean something else: what was learnt on another language model."""
    theirs, ours = source.model.esm, target.model.esm
    if theirs is None or ours is None or theirs.language.expected["sha256"] == ours.identity()["sha256"]:
        return {}
    return {"esm": f"learnt on another language model, {theirs.language.expected['name']}"}


def refuse_idle(arguments: Sequence[str], model: CodesignModel, recipe: Recipe) -> None:
    """Raises UserError for what was typed of a part that the model has no use for."""
    group_names(model, recipe.optimizer)
    idle = recipe.schedule.idle()
    if model.edge_embed is None:
        why = "no block of this model reads the edges"
        idle |= dict.fromkeys([f"model.edge_embed.{name}" for name in EdgeEmbedSettings.model_fields], why)
        idle |= {"model.c_z": why} if model.settings.c_z is not None else {}
    if not model.has_sequence_head:
        why = "this model has no sequence head"
        idle |= dict.fromkeys([f"loss.{name}" for name in LossSettings.model_fields if name.startswith("token_")], why)
    for key in typed_overrides(arguments):
        if key in idle:
            raise UserError(f"{key} has no effect: {idle[key]}; leave it out")
    group = chosen_groups(arguments).get("kernels")
    select.refuse_idle(typed_overrides(arguments), group, recipe.kernels, select.used_by(model))


def announce(plan: Plan, module: CodesignModule, report: Sequence[str]) -> None:
    """Say what is about to run, and in what it differs from the checkpoint that it goes on from."""
    trainer = plan.recipe.trainer
    size = sum(parameter.numel() for parameter in module.parameters())
    say(f"recipe {plan.recipe.name}, {size / 1e6:.2f} million parameters, into {plan.folder.path}")
    for line in report:
        say(line)
    if plan.resume:
        say(f"resuming {plan.resume.path}: epoch {plan.resume.epoch}, step {plan.resume.step}")
        for key, old, new in changes(plan.resume.recipe, plan.recipe):
            say(f"  {key}: {old} -> {new}")
    ends = {f"step {trainer.max_steps}": trainer.max_steps, f"{trainer.max_epochs} epochs": trainer.max_epochs}
    if limits := [end for end, number in ends.items() if number != UNLIMITED]:
        say(f"until {' or '.join(limits)}")
    else:
        say("until stopped: neither trainer.max_steps nor trainer.max_epochs is given")


def conclude(plan: Plan, step: int, received: int | None) -> int:
    """Say how it ended and how to go on; the exit status."""
    if received is None:
        say(f"done at step {step}: {plan.folder.last}")
        return 0
    if received == signal.SIGUSR1 and rank_zero_only.rank == 0:
        slurm.requeue()
    saved = plan.folder.last.is_file()
    say(f"interrupted at step {step}" + (f"; go on by: python train.py {plan.folder.resume_hint()}" if saved else ""))
    return INTERRUPTED if received == signal.SIGINT else 128 + received
