"""Blocks: one a file (what they are made of in parts/), all `TrunkState -> TrunkState`, built by name.

To add one: a file here whose name is the block's, with `Block` and `Block.Settings`; a line in `BlockType`; a YAML of
the same name in recipes/block/.
"""

import enum
import importlib

from app.blocks.base import Block, BlockSettings
from app.config.validate import parse
from app.errors import UserError

__all__ = ["Block", "BlockSettings", "BlockType", "block_class", "block_settings", "build_block"]


class BlockType(enum.Enum):
    IPA = "ipa"
    PAIRFORMER = "pairformer"
    PAIRFORMER_NOSEQ = "pairformer_noseq"
    TRIANGLE_ATTENTION = "triangle_attention"
    TRIANGLE_MULTIPLICATION = "triangle_multiplication"
    PAIR_BIAS = "pair_bias"
    DOUBLE_ATTENTION = "double_attention"
    FLASH_IPA = "flash_ipa"
    GEOMETRIC = "geometric"


def block_class(name: str | BlockType, where: str = "block") -> type[Block]:
    """The class of a block type. Raises UserError naming `where` for an unknown name."""
    try:
        kind = BlockType(name)
    except ValueError:
        known = ", ".join(kind.value for kind in BlockType)
        raise UserError(f"{where}: {name!r} is not a block type; choose one of {known}") from None
    return importlib.import_module(f"app.blocks.{kind.value}").Block


def build_block(name: str | BlockType, **overrides) -> Block:
    """One block with its default settings and the overrides: `build_block("ipa", c_s=64, c_z=32)`.

    Raises UserError for an unknown block type and for settings that do not fit.
    """
    cls = block_class(name)
    return cls(block_settings(name, overrides))


def block_settings(name: str | BlockType, overrides: dict, where: str = "block") -> BlockSettings:
    """The checked settings of a block type. Raises UserError naming `where`."""
    cls = block_class(name, where)
    return parse(cls.Settings, overrides, where=where)
