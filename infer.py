"""Design proteins with a trained model.

    python infer.py ckpt=PATH task=unconditional 'lengths=[60,80]' samples_per_length=2 steps=50 seed=1 out=DIR
    python infer.py ckpt=PATH task=forward_folding input=FILE_OR_DIR_OR_FASTA out=DIR
    python infer.py ckpt=PATH task=inverse_folding input=FILE_OR_DIR out=DIR

Writes DIR/structures/ID.pdb, DIR/sequences.fasta and DIR/manifest.json. recipes/infer.yaml and recipes/task/ say what
the keys are. Exit status: 0 if every design was made, 1 if some failed, 2 on bad input.
"""

from app import environment
from app.config.entry import run


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    settings = environment.of_command_line(arguments)
    environment.prepare(settings)
    from app.config.compose import chosen_groups, compose, typed_overrides
    from app.config.diff import differences
    from app.config.validate import parse
    from app.devices import choose
    from app.errors import UserError
    from app.model.esm.settings import LanguageHere
    from app.ops import select
    from app.ops.settings import KernelSettings
    from app.sampling.choice import choose_sampler
    from app.sampling.request import Request
    from app.sampling.results import check_new
    from app.sampling.run import generate

    config = compose("infer", arguments)
    section = config.pop("sampler")
    language = parse(LanguageHere, config.pop("esm"), "esm").model_dump(exclude_none=True)
    kernels = parse(KernelSettings, config.pop("kernels"), "kernels")
    config.pop("environment")
    request = parse(Request, config)
    check_new(request.out)
    device = choose(request.device)
    environment.apply(settings)
    select.use(kernels)
    from app.training.checkpoint import load_module  # slow to import: mistakes above are told at once

    module = load_module(request.ckpt, device, language)
    if module.model.esm is not None:
        module.model.esm.check(device)
    elif language:
        raise UserError(f"esm.{next(iter(language))} has no effect: this checkpoint's model has no language model")

    trained = module.recipe.sampler
    named = "sampler" in chosen_groups(arguments)
    typed = [key.removeprefix("sampler.") for key in typed_overrides(arguments) if key.startswith("sampler.")]
    sampler = choose_sampler(trained, section, named, typed, request.task)
    print(f"{request.task.value} with sampler {sampler.name} on {device}", flush=True)
    for key, old, new in differences(trained.model_dump(), sampler.model_dump()):
        print(f"  sampler.{key}: {old} -> {new}", flush=True)

    return 1 if generate(module.model, request, sampler).failed else 0


if __name__ == "__main__":
    run(main)
