"""From infer.py's command line to a folder of designs."""

from collections.abc import Sequence
from functools import partial

from app import environment
from app.config.compose import chosen_groups, compose, typed_overrides
from app.config.diff import differences
from app.config.validate import parse
from app.devices import choose, choose_dtype
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.model.esm.settings import LanguageHere
from app.ops import account, select
from app.ops.settings import KernelSettings
from app.sampling.choice import choose_sampler
from app.sampling.request import Request
from app.sampling.results import check_new
from app.sampling.run import generate


def infer(arguments: Sequence[str], settings: EnvironmentSettings) -> int:
    """Run `infer.py` with these arguments; its exit status. Raises UserError for whatever the user can mend."""
    config = compose("infer", arguments)
    section = config.pop("sampler")
    language = parse(LanguageHere, config.pop("esm"), "esm").model_dump(exclude_none=True)
    kernels = parse(KernelSettings, config.pop("kernels"), "kernels")
    config.pop("environment")
    request = parse(Request, config)
    check_new(request.out)
    device = choose(request.device)
    dtype = choose_dtype(request.precision, device)
    precision = str(dtype).removeprefix("torch.")
    environment.apply(settings)
    from app.training.checkpoint import open_checkpoint  # slow to import: mistakes above are told at once
    from app.training.untrained import untrained

    opened = open_checkpoint(request.ckpt, language)
    request = request.model_copy(update={"use_ema": opened.take_ema(request.use_ema)})  # for the manifest
    module = opened.module.to(device)
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
    print(
        f"{request.told.removeprefix('task=')} with sampler {sampler.name} on {device} in {precision}{averaged}",
        flush=True,
    )
    for key, old, new in differences(trained.model_dump(), sampler.model_dump()):
        print(f"  sampler.{key}: {old} -> {new}", flush=True)
    print(f"with {environment.in_words()}; {account.versions_in_words()}", flush=True)
    for fault in environment.faults(settings):
        print(f"warning: {fault}", flush=True)

    with select.using(kernels):
        return 1 if generate(module.model, request, sampler, partial(untrained, module.recipe, request)).failed else 0
