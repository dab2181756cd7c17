"""A stage is its block type's defaults (recipes/block/NAME.yaml) plus what the trunk says."""

from pathlib import Path
from typing import Any

import yaml

# What app.model.stack knows of a stage besides its block's settings, so that it can be typed.
_EVERY_STAGE = {"depth": 1, "share_weights": False, "checkpoint": False}
_EVERY_REPEAT = {"share_weights": False}


def with_block_defaults(config: Any, recipes: Path) -> Any:
    """The config with every stage, wherever it stands, completed by the defaults file of its block type.

    A stage is a dict with the key `block`. Unknown block types are left for the model to refuse.
    """
    if isinstance(config, list):
        return [with_block_defaults(item, recipes) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: with_block_defaults(value, recipes) for key, value in config.items()}
    file = recipes / "block" / f"{config.get('block')}.yaml"
    if isinstance(config.get("block"), str) and file.is_file():
        defaults = yaml.safe_load(file.read_text()) or {}
        return {"block": config["block"], **_EVERY_STAGE, **defaults, **config}
    if isinstance(config.get("repeat"), int):
        return {"repeat": config["repeat"], **_EVERY_REPEAT, **config}
    return config
