"""All that can be measured, by name, and what is if nobody says."""

from collections.abc import Sequence
from functools import cache

from app.bench import esm, longest, models, sampling
from app.bench import operation as operations
from app.bench.case import AUTO, LEGACY, REFERENCE, Case
from app.config.compose import options
from app.config.keys import did_you_mean
from app.devices import NVIDIA
from app.errors import UserError
from app.ops import select

FASTER = (
    "model-forward-compiled",
    "model-train-compiled",
    "model-train-recorded",
    "model-train-compiled-recorded",
    "sampling-compiled",
)
OF_A_RECIPE = ("model-forward", "model-train", "model-train-checkpointed", "sampling", *FASTER, longest.NAME)
"""Take NAME:RECIPE too."""

_ON_GPU = (
    *FASTER,
    "model-forward:pairformer_heavy",
    "model-train:pairformer_heavy",
    *(f"{longest.NAME}{recipe}" for recipe in ("", ":pairformer_heavy", ":linear_memory")),
)


@cache
def cases() -> dict[str, Case]:
    """By name, models first. The search for the longest chain is none: see `app.bench.longest`."""
    made = [*models.cases(), *sampling.cases(), *esm.cases(), *operations.cases()]
    return {case.name: case for case in made}


def names() -> list[str]:
    return [*cases(), longest.NAME]


def standard(device: str) -> list[str]:
    """What the whole table is made of: with a GPU also what is compiled or recorded, a larger model, and the longest
    chains."""
    return [*(name for name in cases() if name not in FASTER), *(_ON_GPU if device == NVIDIA else ())]


def name_of(case: str) -> str:
    """Without the recipe."""
    return case.partition(":")[0]


def case_of(case: str) -> Case:
    return cases()[name_of(case)]


def lacks(case: str, backend: str, device: str) -> str | None:
    """Why a case cannot be measured with a backend there, in words, or None."""
    if name_of(case) == longest.NAME:
        return None if backend in (REFERENCE, AUTO) else f"it is measured with {REFERENCE} and {AUTO}"
    of = case_of(case)
    if backend in of.backends(device) or backend in of.on_request:
        return None
    operation = select.operations()[of.name.removesuffix(operations.TRAIN)]
    if backend not in operation.backends:
        return f"it has {', '.join(operation.backends)}"
    one = operation.backends[backend]
    return one.absent() if one.is_for(device) else f"that runs on {' and '.join(one.devices)}, not on {device}"


def chosen_cases(only: Sequence[str] | None, recipe: str | None, device: str) -> list[str]:
    """Those of `--only`, else the standard ones, each once, with the recipe of `--recipe`.

    Raises UserError for a case or a recipe that there is not, and where none of the cases takes the recipe.
    """
    chosen = [checked(case, recipe) for case in only or standard(device)]
    if recipe and not any(name_of(case) in OF_A_RECIPE for case in chosen):
        raise UserError(f"--recipe {recipe} has no effect: only {', '.join(OF_A_RECIPE)} take a recipe; leave it out")
    return list(dict.fromkeys(chosen))


def checked(case: str, recipe: str | None = None) -> str:
    """A case as it was asked for, with the recipe of `--recipe`. Raises UserError for one that there is not."""
    name, colon, own = case.partition(":")
    if name not in names():
        raise UserError(f"--only {case}: {did_you_mean(name, names())}the cases are {', '.join(names())}")
    if name not in OF_A_RECIPE:
        if colon:
            raise UserError(f"--only {case}: only {', '.join(OF_A_RECIPE)} take a recipe: --only {name}")
        return name
    chosen = own or recipe
    known = options()["recipe"]
    if chosen and chosen not in known:
        raise UserError(f"recipe {chosen}: {did_you_mean(chosen, known)}the recipes are {', '.join(known)}")
    return f"{name}:{chosen}" if chosen and chosen != LEGACY else name
