"""Lightning's predict loop over batches of designs, on one device or several."""

import logging
import os
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import lightning
from lightning import Trainer
from lightning.fabric.utilities.distributed import _init_dist_connection
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from app.config.entry import say_error
from app.config.keys import one_line
from app.devices import choose, how_many
from app.errors import UserError
from app.launched import refuse_other_number
from app.sampling.batch_size import Sizes
from app.sampling.designs import Design, batches, share
from app.sampling.interrupt import Interrupted
from app.sampling.request import Request

_CURE = "choose devices=PROCESSES on each of num_nodes=NODES"


class Apart(DDPStrategy):
    """A process for each device, of which none waits for another once it knows its share of the designs.

    With gloo, which does not mind when one of them is gone, on devices of any type.
    """

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        _init_dist_connection(self.cluster_environment, "gloo", timeout=timedelta(minutes=10))


class Launcher(_SubprocessScriptLauncher):
    """Starts the same command once more for each further device. Lightning's would kill the first process when one of
    the others ends badly; here the first lives on to give account of it."""

    children: Sequence[subprocess.Popen] = ()

    def _call_children_scripts(self) -> None:
        self.begun = threading.Event()
        super()._call_children_scripts()
        self.children, self.procs = self.procs, []  # Lightning watches over nobody
        threading.Thread(target=self._end_with_a_child, daemon=True).start()

    def _end_with_a_child(self) -> None:
        """Until all have begun they wait for each other, in the midst of which Python runs nothing else."""
        while not self.begun.wait(0.1):
            for child in self.children:
                if child.poll() is not None:
                    why = f"ended before it began, with status {child.returncode}: what it says above is the reason"
                    say_error(f"devices={self.num_processes}: a process {why}")
                    self.stop(0)
                    os._exit(1)

    def stop(self, seconds: float) -> None:
        """End the others: after the model call at hand where that takes no longer than so many seconds."""
        for child in self.children:
            child.terminate()
        limit = time.monotonic() + seconds
        for child in self.children:
            try:
                child.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def trainer_of(request: Request) -> Trainer:
    """Raises UserError for devices that are not there, and for other numbers of processes than a launcher started."""
    device = choose(request.device)
    devices = how_many(device.type) if request.devices in ("auto", -1) else request.devices
    several = devices * request.num_nodes > 1
    _quiet()
    try:
        trainer = Trainer(
            accelerator=device.type,
            devices=devices,
            num_nodes=request.num_nodes,
            strategy=Apart() if several else "auto",
            inference_mode=False,  # `sample` switches gradients off
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (RuntimeError, TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"devices={request.devices}: Lightning refuses: {one_line(error)}") from None
    refuse_other_number(trainer, keys="devices x num_nodes", cure=_CURE)
    trainer._signal_connector.register_signal_handlers = lambda: None  # they know nothing of the account
    return trainer


class Generation(lightning.LightningModule):
    """One process's part in a run."""

    def __init__(
        self,
        model: Callable,
        plan: Callable[[], list[str]],
        designs: Sequence[Design],
        sizes: Callable[[Sequence[Design]], Sizes],
        make: Callable[[list[Design]], None],
    ):
        """model: moved to the process's device. plan: what is to be made, by its ids; the first process's word counts.
        designs: all of the run. sizes: of batches of the designs given. make: makes a batch."""
        super().__init__()
        self.model = model
        self.plan, self.designs, self.sizes, self.make = plan, designs, sizes, make

    def predict_dataloader(self) -> "Batches":
        strategy = self.trainer.strategy
        plan = strategy.broadcast(self.plan())
        if isinstance(strategy.launcher, Launcher) and strategy.launcher.children:
            strategy.launcher.begun.set()
        wanted = set(plan)
        todo = [design for design in self.designs if design.id in wanted]
        if len(todo) < len(wanted):
            raise UserError("this process reads other inputs than the first one: give all of them the same")
        own = share(todo, self.trainer.global_rank, self.trainer.world_size)
        return Batches(own, self.sizes(own))

    def transfer_batch_to_device(self, batch: list[Design], *_) -> list[Design]:
        return batch  # `sample` sees to it

    def predict_step(self, batch: list[Design], batch_idx: int) -> int:
        try:
            self.make(batch)
        except KeyboardInterrupt:  # which Lightning would make a failure of
            raise Interrupted(signal.SIGINT) from None
        return len(batch)


class Batches:
    """What Lightning goes through."""

    def __init__(self, designs: Sequence[Design], sizes: Sizes):
        self.designs, self.sizes = designs, sizes

    def __iter__(self) -> Iterator[list[Design]]:
        return batches(self.designs, self.sizes)


def _quiet() -> None:
    """Of what Lightning has to say only its errors."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")
