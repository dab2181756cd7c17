"""One run of Lightning's Trainer: its devices, callbacks and loggers, from the recipe."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from app.config.keys import one_line
from app.data.datamodule import ProteinDataModule
from app.devices import choose
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.model.compiled import compile_in_place
from app.training.checkpoint import Opened
from app.training.checkpoint_io import WholeFiles
from app.training.console import console, keep_in, say
from app.training.counts import Counts
from app.training.csv_log import CsvLog
from app.training.ema import Ema
from app.training.flops import TrainFlops
from app.training.interrupt import StopOnSignal
from app.training.kernel_environment import KernelEnvironment
from app.training.loggers import build_loggers
from app.training.metrics import LogMetrics
from app.training.module import CodesignModule
from app.training.progress import StepBar, StepLines
from app.training.recipe import Recipe, TrainerSettings
from app.training.run_end import UNLIMITED, StopAfterEpochs, max_steps
from app.training.run_folder import RunFolder
from app.training.run_report import RunReport
from app.training.save_checkpoints import SaveCheckpoints
from app.training.throughput import DataWait


class Begin(Callback):
    """Takes possession of the run's folder, once everything that could be wrong has been found right."""

    def __init__(self, folder: RunFolder, recipe: Recipe, metrics: LogMetrics):
        self.folder, self.recipe, self.metrics = folder, recipe, metrics

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        plain = self.recipe.model_dump(mode="json")
        self.folder.begin(plain)
        keep_in(self.folder.log)
        for logger in trainer.loggers:
            logger.log_hyperparams(plain)
            if isinstance(logger, CsvLog):
                logger.drop_after(self.metrics.logged_step)


def fit(
    module: CodesignModule, folder: RunFolder, environment: EnvironmentSettings, resumed: Opened | None = None
) -> tuple[Trainer, int | None]:
    """Train until the recipe's end or a signal; the trainer and that signal, if there was one.

    environment: what kernels are to find. resumed: the checkpoint to go on from; its weights, optimizer and counters
    are restored.
    Raises UserError for an accelerator or logger that is not there, for unusable data, for a folder that cannot be
    written, and where training diverges.
    """
    recipe = module.recipe
    settings = recipe.trainer
    accelerator = accelerator_of(settings)
    data = ProteinDataModule(recipe.data)
    if rank_zero_only.rank == 0:
        data.prepare_data()  # Lightning would do it after it has begun to write

    if recipe.compile:
        compile_in_place(module.model, torch.device(accelerator))
    wait, stop = DataWait(), StopOnSignal()
    metrics = LogMetrics(settings.log_every, wait, _flops(recipe))
    loggers = build_loggers(recipe, folder, resumed.step if resumed else 0)
    callbacks = [
        metrics,
        Begin(folder, recipe, metrics),
        KernelEnvironment(recipe.kernels, environment, folder),
        stop,
        StopAfterEpochs(settings),
    ]
    if recipe.ema.decay is not None:
        callbacks.append(Ema(recipe.ema.decay))  # the last but for checkpoints: what others do in validation, it sees
    callbacks.append(SaveCheckpoints(folder, settings.checkpoint_every, settings.keep_checkpoints))
    callbacks.append(RunReport(folder, Counts(), recipe.callbacks.curves))
    if recipe.callbacks.progress_bar:
        callbacks.append(StepBar()) if console.is_terminal else loggers.append(StepLines())
    files = WholeFiles(resumed.take_state() if resumed else None)
    trainer = _trainer(settings, accelerator, folder, loggers, callbacks, files, wait)
    try:
        trainer.fit(module, data, ckpt_path=resumed.path if resumed else None)
    except (SystemExit, RuntimeError) as error:
        if stop.received is None:
            raise
        say(f"the step under way was given up ({type(error).__name__})")  # stopped at once, or its workers were too
    return trainer, stop.received


def _flops(recipe: Recipe) -> TrainFlops | None:
    """None with a language model, which is no network of ours to count."""
    has_language = recipe.model.esm["kind"] != "none"
    return None if has_language else TrainFlops(recipe.model, recipe.flow.self_condition_share)


def _trainer(
    settings: TrainerSettings,
    accelerator: str,
    folder: RunFolder,
    loggers: list[Logger],
    callbacks: list[Callback],
    files: WholeFiles,
    wait: DataWait,
) -> Trainer:
    try:
        return Trainer(
            accelerator=accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            max_steps=max_steps(settings),
            max_epochs=UNLIMITED,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.gradient_clip,
            deterministic=settings.deterministic,
            default_root_dir=folder.path,
            logger=loggers,
            callbacks=callbacks,
            plugins=[files],
            profiler=wait,
            enable_progress_bar=any(isinstance(callback, StepBar) for callback in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module shares the batches out
            log_every_n_steps=1,  # of metrics logged Lightning's way; there are none
        )
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: Lightning refuses its devices, strategy or precision: {one_line(error)}") from None


def accelerator_of(settings: TrainerSettings) -> str:
    """Lightning's name of the accelerator. Raises UserError where it is not there, or cannot run at that precision."""
    device = choose(settings.accelerator, key="trainer.accelerator")
    if device.type == "mps" and settings.precision != "32-true":
        raise UserError(
            f"trainer.precision={settings.precision}: a Mac's GPU runs float32 only: trainer.precision=32-true"
        )
    return device.type
