"""An inference run: from what was asked for to a folder of designs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from app.files.manifest import MANIFEST
from app.launched import by_launcher
from app.ops import select
from app.sampling.account import Account
from app.sampling.batch_size import Room
from app.sampling.designs import Design, designs_of
from app.sampling.display import Display
from app.sampling.flags import summary as flags_in_words
from app.sampling.given import Skipped, files_of, read_given
from app.sampling.head import head
from app.sampling.inputs import refuse_without_head
from app.sampling.interrupt import Interruptible
from app.sampling.making import Making
from app.sampling.manifest import check_folder, inputs_of
from app.sampling.predict import trainer_of
from app.sampling.prepared import prepared
from app.sampling.request import Request
from app.sampling.settings import SamplerSettings
from app.types import NoisyBatch, Prediction


@dataclass(frozen=True)
class Outcome:
    """How a run ended. requested = done + failed."""

    folder: Path
    requested: int
    done: int
    failed: int
    records: list[dict]  # the manifest's `designs`


def generate(
    model: Callable[[NoisyBatch], Prediction],
    request: Request,
    sampler: SamplerSettings,
    warn: Callable[[Sequence[Design]], list[str]] = lambda designs: [],
    display: Display | None = None,
    room: Room | None = None,
) -> Outcome | None:
    """Run a request: structures, sequences and a manifest in request.out, which is a new folder, or that of the same
    run, of which what is missing, damaged or failed is made. On several devices each process calls this; None is
    returned by all but the first.

    model: in eval mode; one that drops out in inference makes its designs one at a time, so that each depends on its
    own seed only. warn: what is to be known of these designs, said and put into the manifest. room: for
    max_residues_squared=auto. A design that fails is recorded and the others go on.
    Raises UserError, with nothing written, for an input that cannot be used, for a folder that holds another run, and
    for what the device cannot do; and, keeping what was made till then, where a kernel that was asked for cannot serve,
    or where the folder can no longer be written. Raises Interrupted, with all accounted for, at a signal.
    """
    select.use(select.settings())  # forgets choices of other runs, which the manifest is not to tell
    if getattr(model, "has_sequence_head", True) is False:
        refuse_without_head(request.sampled, request.told)
    check_folder(request.out)
    trainer = trainer_of(request)
    first = rank_zero_only.rank == 0
    how = {"precision": request.precision, "compile": request.compile, "cuda_graph": request.cuda_graph}
    with display or Display(request.progress_bar, quiet=not first) as display:
        ready = prepared(model, device=trainer.strategy.root_device, **how, tell=display.say)
        given, skipped = read_given(request, display.reading) if request.input is not None else ([], [])
        for one in skipped:
            display.say(f"skipped: {one.input}: {one.reason}")
        for one in given:
            for note in one.notes * (one.kept is not None):  # of one file that is to stay as it is, all counts
                display.say(f"warning: {one.source}: {note}")
        designs = designs_of(request, given)
        for warning in (warnings := warn(designs)):
            display.say(f"warning: {warning}")
        parent = None if first or by_launcher() else os.getppid()
        with Interruptible(parent, says=first) as signals:
            making = Making(trainer, ready, request, sampler, designs, display, signals, room)
            if not first:
                making.share()
                return None
            about = head(request, sampler, ready, trainer.world_size, _inputs(request, skipped), skipped, warnings)
            with Account(request, about, designs, partial(_tell, display=display)) as account:
                making.all(account)
            _summary(account, display)
    return Outcome(
        folder=request.out,
        requested=len(designs),
        done=account.count("done"),
        failed=account.count("failed"),
        records=list(account.records.values()),
    )


def _inputs(request: Request, skipped: Sequence[Skipped]) -> dict[str, str]:
    """The sha256 of the files that designs start from, by name."""
    if request.input is None:
        return {}
    left_out = {one.input for one in skipped}
    return inputs_of(request.input, [file for file in files_of(request.input) if str(file) not in left_out])


def _tell(records: Sequence[dict], display: Display) -> None:
    for record in records:
        if record["status"] == "failed":
            display.say(f"failed: {record['id']}: {record['error']}")
        for flag in record["flags"]:
            display.say(f"warning: {record['id']}: {flag}")
    for length, group in groupby(records, key=lambda record: record["length"]):
        display.finished(length, len(list(group)))


def _summary(account: Account, display: Display) -> None:
    requested, done, failed = len(account.records), account.count("done"), account.count("failed")
    if told := flags_in_words(record["flags"] for record in account.records.values()):
        display.say(told)
    display.say(f"requested {requested}, done {done}, failed {failed}: {os.path.join(account.folder, MANIFEST)}")
