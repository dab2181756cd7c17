"""The ESM combiner: a frozen protein language model reads the noisy tokens and enriches node and edge."""

from collections.abc import Set

from app.blocks.base import Part
from app.config.validate import parse
from app.errors import UserError
from app.model.esm.combiner import EsmCombiner
from app.model.esm.folder import size_of
from app.model.esm.settings import WHERE, EsmSettings, NoEsm
from app.model.stack import Sizes

KINDS: dict[str, type[NoEsm | EsmSettings]] = {"none": NoEsm, "esm2": EsmSettings}


def completed_esm(config: dict, sizes: Sizes) -> dict:
    """The config with every setting of the combiner, those of its stages and the language model's size included.

    A checkpoint's config is complete: the language model need not be there to build the rest. Raises UserError.
    """
    settings = _parsed(config).completed(sizes)
    if isinstance(settings, EsmSettings) and settings.size is None:
        settings = settings.model_copy(update={"size": size_of(settings.name)})
    return settings.model_dump(mode="json")


def build_esm(config: dict, sizes: Sizes, needed: Set[Part]) -> EsmCombiner | None:
    """The combiner, or None. needed: what the trunk reads of the state. No weights are loaded here.

    Raises UserError for settings that do not fit each other, the model or the trunk, and for an unknown language model.
    """
    settings = _parsed(config)
    return None if isinstance(settings, NoEsm) else EsmCombiner(settings, sizes, needed)


def _parsed(config: dict) -> NoEsm | EsmSettings:
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{WHERE}.kind: {kind!r} is not a language model; choose one of {', '.join(KINDS)}")
    return parse(KINDS[kind], config, where=WHERE)
