"""Designs made and written, batch by batch, by one process or by several."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from subprocess import Popen

import torch
from lightning import Trainer
from torch import Tensor

from app.config.keys import one_line
from app.data.ledger import Ledger
from app.devices import free_memory, is_out_of_memory
from app.errors import UserError
from app.files.whole import told_of
from app.launched import by_launcher
from app.ops import select
from app.sampling.account import Account, reason
from app.sampling.batch_size import Room, Sizes, sizes
from app.sampling.designs import Design
from app.sampling.display import Display
from app.sampling.inputs import Task
from app.sampling.interrupt import Interruptible
from app.sampling.journal import DONE, Journal
from app.sampling.predict import Generation, Launcher
from app.sampling.prepared import Prepared
from app.sampling.request import Request
from app.sampling.results import Results
from app.sampling.sample import sample
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Trajectory

GRACE = 20
"""Seconds that other processes have to end their model calls, when the first one ends before its time."""


class Making:
    """One process's part in a run."""

    def __init__(
        self,
        trainer: Trainer,
        model: Prepared,
        request: Request,
        sampler: SamplerSettings,
        designs: Sequence[Design],
        display: Display,
        signals: Interruptible,
        room: Room | None,
    ):
        """designs: all of the run, done or not."""
        self.trainer, self.model, self.request, self.sampler = trainer, model, request, sampler
        self.designs, self.display, self.signals, self.room = designs, display, signals, room
        self.account: Account | None = None
        self.journal = Journal(request.out, trainer.global_rank)
        self.results = Results(request, sampler, self.journal)
        self.kernels = select.News()
        self.ledger = Ledger()

    def all(self, account: Account) -> None:
        """The first process: begins the account, makes its share, and sees to it that the others end."""
        self.account = account
        account.settle(self.display.verifying)
        self.display.start([design.length for design in account.todo], len(account.records))
        if not account.todo and not by_launcher():
            account.begin()
            return
        try:
            self.share()
            self._wait_for_others()
        except BaseException:
            if isinstance(launcher := self.trainer.strategy.launcher, Launcher):
                launcher.stop(GRACE)
            raise

    def share(self) -> None:
        """Make this process's share of what the first one says is to be made."""
        run = Generation(self.model.model, self._plan, self.designs, self._sizes, self._make)
        with self.journal:
            try:
                self.trainer.predict(run, return_predictions=False)
            except BaseException as error:
                with suppress(OSError):
                    self.journal.end(reason(error))
                raise
            with told_of(self.journal.path):
                self.journal.end(DONE)

    def _plan(self) -> list[str]:
        """The ids of what is to be made; the first process, whose word counts, begins its account."""
        self.signals.listen()
        if self.account is None:
            return []
        self.account.begin()
        self.account.shared_among(self.trainer.world_size)
        return [design.id for design in self.account.todo]

    def _sizes(self, designs: Sequence[Design]) -> Sizes:
        most = 1 if self.model.draws_in_inference else self.request.max_batch_size
        return sizes(designs, most, self.request.max_residues_squared, self.room)

    def _make(self, batch: list[Design]) -> None:
        """Sample a batch and write it. One that fails is halved, until those to blame are alone: too large a batch may
        run out of memory, and one design must not take others with it. Batches of shapes that ran out of it are halved
        at once.

        A UserError ends the run: inputs were checked when they were read, so it is about what no halving changes.
        """
        length = batch[0].length
        if len(batch) > 1 and self.ledger.refuses(len(batch), length):
            self._make_halves(batch)
            return
        try:
            trajectory = self._sample(batch)
        except UserError:
            raise
        except Exception as caught:
            error = caught  # told of below: while it is being handled, its frames hold the memory of what failed
        else:
            error = None
        if error is None:
            for index, design in enumerate(batch):
                self._keep(design, trajectory.one(index))
        elif len(batch) > 1:
            error.__traceback__ = None
            if is_out_of_memory(error):
                self.ledger.note([(len(batch), length)])
                free_memory(self.model.device)
            self._make_halves(batch)
            return
        else:
            self._fail(batch[0], error)
        self._account_for()

    def _make_halves(self, batch: list[Design]) -> None:
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            self._make(half)

    def _sample(self, batch: list[Design]) -> Trajectory:
        def on_step(step: int) -> None:
            self.display.step(batch[0].length, len(batch), step, self.request.steps)
            if step < self.request.steps:  # what is finished is also written
                self.signals.check()

        return sample(
            self.model,
            task=self.request.sampled,
            steps=self.request.steps,
            sampler=self.sampler,
            seed=[design.seed for design in batch],
            keep_path=self.request.trajectories or self.request.step_records,
            on_step=on_step,
            **_tensors(batch, self.request.sampled),
        )

    def _keep(self, design: Design, trajectory: Trajectory) -> None:
        try:
            self.results.add(design, trajectory)
        except (UserError, OSError) as error:
            self._fail(design, error)

    def _fail(self, design: Design, error: Exception) -> None:
        if is_out_of_memory(error):
            told = f"out of memory at {design.length} residues: use a device with more, or a shorter design;"
            told += f" python -m app estimate recipe=NAME length={design.length} tells what it takes"
        elif isinstance(error, UserError):
            told = one_line(error)
        elif isinstance(error, OSError):
            told = f"{error.filename or self.request.out}: cannot be written ({error.strerror or error})"
        else:
            told = f"{type(error).__name__}: {one_line(error)}"
        self.results.fail(design, told)

    def _account_for(self) -> None:
        """Between two batches."""
        for line in self.kernels.lines():
            self.display.say(line)
        if self.account is not None:
            self.account.compiled, self.account.cuda_graph = self.model.compiled, self.model.captured
            self.account.update()
        self.signals.check()

    def _wait_for_others(self) -> None:
        """Until they have made their shares, or are known not to. Those of other machines are their launcher's."""
        ended = self.account.journals.ended
        while waiting := [rank for rank in range(1, self.trainer.world_size) if rank not in ended]:
            gone = {rank: child.returncode for rank, child in self._children() if child.poll() is not None}
            self.account.update()
            for rank in waiting:
                if rank in gone:
                    ended.setdefault(rank, f"the process on device {rank} ended with status {gone[rank]}")
            self.signals.check()
            time.sleep(0.05)

    def _children(self) -> Iterator[tuple[int, Popen]]:
        """The processes that this one started, with their ranks."""
        launcher = self.trainer.strategy.launcher
        return enumerate(launcher.children if isinstance(launcher, Launcher) else (), start=1)


def _tensors(batch: list[Design], task: Task) -> dict[str, Tensor]:
    """What `sample` is told of designs of one length. task: the sampler's."""
    layouts, given = [design.layout for design in batch], [design.given for design in batch if design.given is not None]
    tensors = {
        "chain_idx": torch.stack([layout.chain_idx for layout in layouts]),
        "res_idx": torch.stack([layout.res_idx for layout in layouts]),
    }
    fixed = torch.stack([design.fixed for design in batch])
    if task.gives_tokens or fixed.any():
        tensors["aatypes_1"] = torch.stack([one.aatypes for one in given])
    if task.gives_frames or fixed.any():
        tensors["trans_1"] = torch.stack([one.frames.trans for one in given])
        tensors["rotmats_1"] = torch.stack([one.frames.rotmats for one in given])
    if fixed.any():
        tensors["diffuse_mask"] = (~fixed).float()
    return tensors
