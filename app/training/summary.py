"""What a recipe is, without training it: its purpose and cost in words, its size, its blocks."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from app.blocks import Block
from app.config.compose import compose, options
from app.config.overrides import RECIPES
from app.errors import UserError
from app.model.codesign import CodesignModel
from app.training.recipe import parse_recipe
from app.training.resume import RUN_KEYS
from app.training.transfer import match

MULTIFLOW = "multiflow_legacy"
"""The recipe of Multiflow at its published size, which its published weights fit whole."""


def summaries() -> list[dict[str, Any]]:
    """Of every recipe: name, purpose, cost, parameters (a language model's left out), blocks by type; trunk, esm and
    head in words; what it can take of Multiflow's weights ("all", "part", "none"), and how many of their parameters.
    Of one that is not valid, its name and the error."""
    multiflow = _model(MULTIFLOW)
    found = []
    for name in options()["recipe"]:
        try:
            found.append(_summary(name, multiflow))
        except UserError as error:
            found.append({"name": name, "error": str(error)})
    return found


def _summary(name: str, multiflow: CodesignModel) -> dict[str, Any]:
    model = _model(name)
    plain = model.settings.model_dump(mode="json")
    purpose, cost = header(name)
    taken, whole = match(multiflow, model).numbers_taken, size(multiflow)
    return {
        "name": name,
        "purpose": purpose,
        "cost": cost,
        "parameters": size(model),
        "blocks": dict(Counter(part.settings.name for part in model.modules() if isinstance(part, Block))),
        "trunk": stages_in_words(plain["trunk"]["stages"]),
        "esm": _in_words(plain["esm"], "refine", plain["esm"].get("mode")),
        "head": _in_words(plain["head"], "stages", "mlp"),
        "multiflow_weights": "none" if not taken else "all" if taken == whole else "part",
        "multiflow_parameters_taken": taken,
        "multiflow_parameters": whole,
    }


def header(name: str) -> tuple[str, str]:
    """The two lines that a recipe's file opens with: what it is for, and what it costs. Raises UserError."""
    lines = (RECIPES / "recipe" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if not line.startswith("# @package")][:2]
    if len(words) < 2 or not all(line.startswith("# ") for line in words):
        raise UserError(f"recipes/recipe/{name}.yaml: open it with two comment lines: what it is for, what it costs")
    return words[0].removeprefix("# "), words[1].removeprefix("# ")


def stages_in_words(stages: Sequence[dict]) -> str:
    """`12 pairformer, 2 x (1 pair_bias, 1 ipa)`."""
    return ", ".join(
        f"{stage['repeat']} x ({stages_in_words(stage['stages'])})"
        if "repeat" in stage
        else f"{stage.get('depth', 1)} {stage.get('block')}"
        for stage in stages
    )


def size(model: CodesignModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _model(name: str) -> CodesignModel:
    with torch.device("meta"):
        return CodesignModel(parse_recipe(_recipe(name)).model)


def _recipe(name: str) -> dict:
    return {key: value for key, value in compose("train", [f"recipe={name}"]).items() if key not in RUN_KEYS}


def _in_words(config: dict, stages: str, last: str | None) -> str:
    """`2 ipa, mlp`: the blocks that refine, with what they refine for."""
    if config["kind"] == "none":
        return "none"
    return ", ".join(filter(None, [stages_in_words(config.get(stages) or []), last or config["kind"]]))
