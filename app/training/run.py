"""From the command line to a trained model."""

import signal
from collections.abc import Sequence

import torch
from lightning.pytorch.utilities import rank_zero_only

from app import environment
from app.config.compose import chosen_groups, typed_overrides
from app.config.entry import INTERRUPTED
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.files.lock import Lock
from app.launched import after_the_first
from app.losses.settings import LossSettings
from app.model.codesign import CodesignModel
from app.model.edge_embed import EdgeEmbedSettings
from app.ops import select
from app.training import console, recorded, slurm
from app.training.checkpoint import start_from_boltz
from app.training.console import say
from app.training.fit import accelerator_of, fit
from app.training.interrupt import StopOnSignal
from app.training.kernel_environment import dtype_of
from app.training.meanwhile import refuse_written_since
from app.training.module import CodesignModule
from app.training.optimizer import group_names
from app.training.plan import Plan, plan_of
from app.training.recipe import Recipe
from app.training.resume import changes
from app.training.run_end import UNLIMITED, is_reached
from app.training.run_report import report_ended
from app.training.transfer import transfer


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
    device = torch.device(accelerator)
    select.require(plan.recipe.kernels, device, dtype, select.used_by(module), backward=True)
    if plan.recipe.cuda_graph:
        recorded.refuse(module.model, device, plan.recipe.trainer.strategy)
    if rank_zero_only.rank == 0 and module.model.esm is not None:
        module.model.esm.check(device)
        language = module.model.esm.identity()
        report.append(f"language model {language['name']}, frozen, sha256 {language['sha256'][:16]}")
    announce(plan, module, report)
    if plan.resume and is_reached(plan.recipe.trainer, plan.resume.step, plan.resume.epochs_done):
        if rank_zero_only.rank == 0 and plan.resume.path.resolve().parent == plan.folder.checkpoints.resolve():
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
