"""An inference run: from what was asked for to a folder of designs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.config.keys import one_line
from app.data.ledger import Ledger
from app.devices import free_memory, is_out_of_memory
from app.errors import UserError
from app.ops import select
from app.sampling.designs import Design, batches, designs_of
from app.sampling.display import Display
from app.sampling.flags import summary as flags_in_words
from app.sampling.given import read_given
from app.sampling.inputs import Task, refuse_without_head
from app.sampling.prepared import Prepared, prepared
from app.sampling.request import Request
from app.sampling.results import MANIFEST, Results, check_new
from app.sampling.sample import sample
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Trajectory
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
) -> Outcome:
    """Run a request: structures, sequences and a manifest in request.out (see `app.sampling.results`).

    model: in eval mode; its parameters say which device is used; one that drops out in inference makes its designs one
    at a time, so that each depends on its own seed only. warn: what is to be
    known of these designs, said and put into the manifest. A design that fails is recorded and the others go on.
    Raises UserError, with nothing written, for an input that cannot be used, for a folder that holds another run, and
    for what the device cannot do; and, keeping what was made till then, where a kernel that was asked for cannot serve.
    """
    select.use(select.settings())  # forgets choices of other runs, which the manifest is not to tell
    if getattr(model, "has_sequence_head", True) is False:
        refuse_without_head(request.sampled, request.told)
    check_new(request.out)
    how = {"precision": request.precision, "compile": request.compile, "cuda_graph": request.cuda_graph}
    with display or Display(request.progress_bar) as display:
        ready = prepared(model, **how, tell=display.say)
        given, skipped = read_given(request, display.reading) if request.input is not None else ([], [])
        for one in skipped:
            display.say(f"skipped: {one.input}: {one.reason}")
        designs = designs_of(request, given)
        for warning in (warnings := warn(designs)):
            display.say(f"warning: {warning}")
        display.start(len(designs))
        language = _language_of(model)
        with Results(request, sampler, designs, skipped, ready.device, ready.dtype, language, warnings) as results:
            together = 1 if ready.draws_in_inference else request.max_batch_size
            ledger = Ledger()
            for batch in batches(designs, together, request.max_residues_squared):
                _make(batch, ready, sampler, results, display, ledger)
        _summary(results, display)
    return Outcome(
        folder=request.out,
        requested=len(designs),
        done=results.count("done"),
        failed=results.count("failed"),
        records=list(results.records.values()),
    )


def _make(
    batch: list[Design],
    model: Prepared,
    sampler: SamplerSettings,
    results: Results,
    display: Display,
    ledger: Ledger,
) -> None:
    """Sample a batch and write it. One that fails is halved, until those to blame are alone: too large a batch may run
    out of memory, and one design must not take others with it. Batches of shapes that ran out of it are halved at once.

    A UserError ends the run: inputs were checked when they were read, so it is about what no halving changes.
    """
    request, length = results.request, batch[0].length
    if len(batch) > 1 and ledger.refuses(len(batch), length):
        _make_halves(batch, model, sampler, results, display, ledger)
        return
    try:
        trajectory = sample(
            model,
            task=request.sampled,
            steps=request.steps,
            sampler=sampler,
            seed=[design.seed for design in batch],
            keep_path=request.trajectories or request.step_records,
            on_step=lambda step: display.step(length, len(batch), step, request.steps),
            **_tensors(batch, request.sampled),
        )
    except UserError:
        raise
    except Exception as caught:
        error = caught  # told of below: while it is being handled, its frames hold the memory of what failed
    else:
        error = None
    if error is None:
        for index, design in enumerate(batch):
            _keep(design, trajectory.one(index), results, display)
    elif len(batch) > 1:
        error.__traceback__ = None
        if is_out_of_memory(error):
            ledger.note([(len(batch), length)])
            free_memory(model.device)
        _make_halves(batch, model, sampler, results, display, ledger)
        return
    else:
        _fail(batch[0], error, results, display)
    for line in results.kernels.lines():
        display.say(line)
    display.finished(length, len(batch))
    results.compiled, results.cuda_graph = model.compiled, model.captured
    results.save()


def _make_halves(batch: list[Design], *others) -> None:
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        _make(half, *others)


def _language_of(model: Callable) -> dict[str, str] | None:
    """Of a model that reads one, the language model's name and sha256, and who runs it."""
    esm = getattr(model, "esm", None)
    return None if esm is None else esm.identity() | {"backend": esm.language.settings.backend}


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


def _keep(design: Design, trajectory: Trajectory, results: Results, display: Display) -> None:
    try:
        results.add(design, trajectory)
    except (UserError, OSError) as error:
        _fail(design, error, results, display)


def _fail(design: Design, error: Exception, results: Results, display: Display) -> None:
    if is_out_of_memory(error):
        told = f"out of memory at {design.length} residues: use a device with more, or a shorter design;"
        told += f" python -m app estimate recipe=NAME length={design.length} tells what it takes"
    elif isinstance(error, UserError):
        told = one_line(error)
    elif isinstance(error, OSError):
        told = f"{error.filename or results.folder}: cannot be written ({error.strerror or error})"
    else:
        told = f"{type(error).__name__}: {one_line(error)}"
    results.fail(design, told)
    display.say(f"failed: {design.id}: {told}")


def _summary(results: Results, display: Display) -> None:
    requested, done, failed = len(results.records), results.count("done"), results.count("failed")
    if told := flags_in_words(record["flags"] for record in results.records.values()):
        display.say(told)
    display.say(f"requested {requested}, done {done}, failed {failed}: {os.path.join(results.folder, MANIFEST)}")
