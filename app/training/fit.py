"""One run of Lightning's Trainer: its devices, callbacks and loggers, from the recipe."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from app.config.keys import one_line
from app.data.datamodule import ProteinDataModule
from app.data.worker_death import told_if_a_worker_died
from app.devices import choose
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.files.lock import Lock
from app.launched import refuse_other_number
from app.model.compiled import compile_in_place
from app.training.checkpoint import Opened
from app.training.checkpoint_io import WholeFiles
from app.training.console import console, keep_in, say
from app.training.counts import Counts
from app.training.csv_log import CsvLog
from app.training.ema import Ema
from app.training.estimate import expectation
from app.training.flops import TrainFlops
from app.training.interrupt import StopOnSignal
from app.training.kernel_environment import KernelEnvironment
from app.training.loggers import build_loggers
from app.training.meanwhile import Seen, refuse_written_since
from app.training.metrics import LogMetrics
from app.training.module import CodesignModule
from app.training.progress import StepBar, StepLines
from app.training.recipe import Recipe, TrainerSettings
from app.training.run_end import NEVER, UNLIMITED, StopAfterEpochs, max_steps
from app.training.run_folder import RunFolder
from app.training.run_report import RunReport
from app.training.same_data import refuse_other_data
from app.training.save_checkpoints import SaveCheckpoints
from app.training.skipped import SkippedSteps
from app.training.strategies import strategy_of
from app.training.tell_dropped import TellDropped
from app.training.validate import SECONDS, Validate, is_on


class Begin(Callback):
    """Takes possession of the run's folder, once everything that could be wrong has been found right."""

    def __init__(self, folder: RunFolder, seen: Seen, recipe: Recipe, metrics: LogMetrics, validate: Validate | None):
        self.folder, self.seen, self.recipe, self.metrics, self.validate = folder, seen, recipe, metrics, validate
        self.lock = Lock(folder.path)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if (first := trainer.strategy.broadcast(trainer.global_step)) != trainer.global_step:
            raise UserError(
                f"out={self.folder.path}: the first rank resumes at step {first}, rank {trainer.global_rank} at step"
                f" {trainer.global_step}: not all machines see the same files yet; start again, or type resume=FILE"
            )
        refuse_other_data(trainer)
        if failed := trainer.strategy.broadcast(self._failure(trainer)):
            raise failed  # on all ranks, rather than have the others wait for one that has ended

    @rank_zero_only
    def _failure(self, trainer: Trainer) -> UserError | None:
        try:
            self._take(trainer)
        except UserError as error:
            return error

    def _take(self, trainer: Trainer) -> None:
        step = trainer.global_step
        of_a_run_that_goes_on = {"train_loss": self.metrics.logged_step}
        if self.validate is not None:
            of_a_run_that_goes_on[SECONDS] = self.validate.validated_step
        plain = self.recipe.model_dump(mode="json")
        self.lock.take()
        refuse_written_since(self.folder, self.seen)
        self.folder.begin(plain, step)
        keep_in(self.folder.log)
        for logger in trainer.loggers:
            logger.log_hyperparams(plain)
            if isinstance(logger, CsvLog):
                logger.drop_after(step)
                for column, logged in of_a_run_that_goes_on.items():
                    logger.drop_after(step if logged is None else logged, column)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.lock.release()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.lock.release()


def fit(
    module: CodesignModule,
    folder: RunFolder,
    seen: Seen,
    environment: EnvironmentSettings,
    stop: StopOnSignal,
    resumed: Opened | None = None,
) -> Trainer:
    """Train until the recipe's end or a signal.

    seen: the folder's checkpoints when it was found that the run may begin there. environment: what kernels are to
    find. stop: tells of the signal; for the caller to restore. resumed: the checkpoint to go on from; its weights,
    optimizer and counters are restored.
    Raises UserError for an accelerator or logger that is not there, for unusable data, for a folder that cannot be
    written, where training diverges, where a data worker dies, and where too many optimizer steps in a row are skipped.
    """
    recipe = module.recipe
    settings = recipe.trainer
    accelerator = accelerator_of(settings)
    data = ProteinDataModule(recipe.data, settings.steps, recipe.validation.examples)
    if resumed:
        data.load_state_dict(resumed.state.get(ProteinDataModule.__qualname__, {}))
    if rank_zero_only.rank == 0:
        data.prepare_data()  # Lightning would do it after it has begun to write
        for line in expectation(recipe, data.dataset.lengths, data.loader_settings, accelerator):
            say(line)

    if recipe.compile:
        compile_in_place(module.model, torch.device(accelerator))
    metrics, counts = LogMetrics(settings.log_every, _flops(recipe)), Counts()
    ema = None if recipe.ema.decay is None else Ema(recipe.ema.decay)
    validate = Validate(recipe, stop, ema, metrics.throughput, counts) if is_on(recipe) else None
    loggers = build_loggers(recipe, folder, resumed.step if resumed else 0)
    callbacks = [
        stop,  # what ends the run comes first: the others see that this step is the last
        StopAfterEpochs(settings),
        Begin(folder, seen, recipe, metrics, validate),
        KernelEnvironment(recipe.kernels, environment, folder),
        SkippedSteps(folder, counts, module.step.ledger, settings.stop_after_skipped),
        metrics,
        TellDropped(),
        *([ema] if ema else []),
        *([validate] if validate else []),  # of this step's weights and their average, before they are saved
    ]
    callbacks.append(SaveCheckpoints(folder, settings.checkpoint_every, settings.keep_checkpoints))
    callbacks.append(RunReport(folder, counts, recipe.callbacks))
    if recipe.callbacks.progress_bar:
        callbacks.append(StepBar()) if console.is_terminal else loggers.append(StepLines())
    files = WholeFiles(resumed.take_state() if resumed else None)
    trainer = _trainer(settings, accelerator, folder, loggers, callbacks, files)
    refuse_other_number(
        trainer,
        keys="trainer.devices x trainer.num_nodes",
        cure="choose trainer=ddp or trainer=fsdp with trainer.devices=PROCESSES on each of trainer.num_nodes=NODES",
    )
    trainer._signal_connector.register_signal_handlers = lambda: None  # they would save, or stop, in mid-step
    try:
        trainer.fit(module, data, ckpt_path=resumed.path if resumed else None)
    except (SystemExit, RuntimeError) as error:
        if stop.received is None:
            if told := told_if_a_worker_died(error):
                raise told from None
            raise
        say(f"the step under way was given up ({type(error).__name__})")  # stopped at once, or its workers were too
    finally:
        data.teardown()  # Lightning leaves that out after an error: workers would outlive the run
    return trainer


def _flops(recipe: Recipe) -> TrainFlops | None:
    """None with a language model, which is no network of ours to count."""
    has_language = recipe.model.esm["kind"] != "none"
    return None if has_language else TrainFlops(recipe)


def _trainer(
    settings: TrainerSettings,
    accelerator: str,
    folder: RunFolder,
    loggers: list[Logger],
    callbacks: list[Callback],
    files: WholeFiles,
) -> Trainer:
    try:
        return Trainer(
            accelerator=accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=strategy_of(settings, accelerator),
            precision=settings.precision,
            max_steps=max_steps(settings),
            max_epochs=UNLIMITED,
            check_val_every_n_epoch=NEVER,  # `Validate` says when
            num_sanity_val_steps=0,
            inference_mode=False,  # shards that were gathered in it could not be trained on
            deterministic=settings.deterministic,
            default_root_dir=folder.path,
            logger=loggers,
            callbacks=callbacks,
            plugins=[files],
            enable_progress_bar=any(isinstance(callback, StepBar) for callback in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module shares the batches out
            log_every_n_steps=1,  # of metrics logged Lightning's way; there are none
        )
    except (RuntimeError, TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: Lightning refuses its devices, strategy or precision: {one_line(error)}") from None


def accelerator_of(settings: TrainerSettings) -> str:
    """Lightning's name of the accelerator. Raises UserError where it is not there, or cannot run at that precision."""
    device = choose(settings.accelerator, key="trainer.accelerator")
    if device.type == "mps" and settings.precision != "32-true":
        raise UserError(
            f"trainer.precision={settings.precision}: a Mac's GPU runs float32 only: trainer.precision=32-true"
        )
    return device.type
