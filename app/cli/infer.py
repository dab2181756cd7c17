"""From infer.py's command line to a folder of designs."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app import environment
from app.config.compose import chosen_groups, compose, typed_overrides
from app.config.diff import differences
from app.config.keys import one_line
from app.config.validate import parse
from app.devices import CPU, choose, choose_dtype
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.model.esm.settings import LanguageHere
from app.ops import account, select
from app.ops.settings import KernelSettings
from app.report import viewer
from app.sampling.choice import choose_sampler
from app.sampling.manifest import check_folder
from app.sampling.request import Request


def infer(arguments: Sequence[str], settings: EnvironmentSettings) -> int:
    """Run `infer.py` with these arguments; its exit status. Raises UserError for whatever the user can mend."""
    config = compose("infer", arguments)
    section = config.pop("sampler")
    language = parse(LanguageHere, config.pop("esm"), "esm").model_dump(exclude_none=True)
    kernels = parse(KernelSettings, config.pop("kernels"), "kernels")
    config.pop("environment")
    request = parse(Request, config)
    check_folder(request.out)
    if request.report_viewer is not None:
        viewer.find(request.report_viewer)
    device = choose(request.device)
    dtype = choose_dtype(request.precision, device)
    precision = str(dtype).removeprefix("torch.")
    environment.apply(settings)
    from lightning.pytorch.utilities import rank_zero_only  # slow to import, all: mistakes above are told at once

    from app.estimate.at_once import room
    from app.sampling.interrupt import Interrupted
    from app.sampling.run import generate
    from app.training.checkpoint import open_checkpoint
    from app.training.untrained import untrained

    opened = open_checkpoint(request.ckpt, language)
    request = request.model_copy(update={"use_ema": opened.take_ema(request.use_ema)})  # for the manifest
    module = opened.module
    if module.model.esm is not None:
        module.model.esm.check(device)
    elif language:
        raise UserError(f"esm.{next(iter(language))} has no effect: this checkpoint's model has no language model")
    typed = typed_overrides(arguments)
    groups = chosen_groups(arguments)
    select.refuse_idle(typed, groups.get("kernels"), kernels, select.used_by(module))
    select.require(kernels, device, dtype, select.used_by(module))

    trained = module.recipe.sampler
    named = "sampler" in groups
    own = [key.removeprefix("sampler.") for key in typed if key.startswith("sampler.")]
    if request.temperature is not None:
        if "token_temperature" in own:
            raise UserError("temperature and sampler.token_temperature are the same setting: give one of them")
        section["token_temperature"] = request.temperature
        own.append("token_temperature")
    sampler = choose_sampler(trained, section, named, own, request.sampled, request.told)
    averaged = ", with the moving average of the weights" if request.use_ema else ""
    first = rank_zero_only.rank == 0
    said = [f"{request.told.removeprefix('task=')} with sampler {sampler.name} on {device} in {precision}{averaged}"]
    for key, old, new in differences(trained.model_dump(), sampler.model_dump()):
        said.append(f"  sampler.{key}: {old} -> {new}")
    said.append(f"with {environment.in_words()}; {account.versions_in_words()}")
    said += [f"warning: {fault}" for fault in environment.faults(settings)]
    print("\n".join(said * first), flush=True, end="\n" * first)

    processes = request.devices if device.type == CPU and isinstance(request.devices, int) else 1
    fits = room(module.recipe.model, device, dtype, kernels, processes, print if first else lambda _: None)
    with select.using(kernels):
        try:
            warn = partial(untrained, module.recipe, request)
            outcome = generate(module.model, request, sampler, warn, room=fits)
        except Interrupted as interrupted:
            print("interrupted; the same command makes what is missing", file=sys.stderr)
            return interrupted.status
    if outcome is None:  # not the first of several processes
        return 0
    if request.report:
        write_report(outcome.folder, request.report_viewer)
    return 1 if outcome.failed else 0


def write_report(folder: Path, script: Path | None) -> None:
    """report.html. One that fails costs no run."""
    from app import report  # slow to import

    try:
        print(f"report: {report.write(folder, script)}", flush=True)
    except Exception as error:
        print(f"warning: no report: {type(error).__name__}: {one_line(error)}", flush=True)
