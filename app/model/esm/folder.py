"""A language model's files: where they are, what they hold, and the hash by which checkpoints know them.

Nothing in them is run: the configuration and the vocabulary are read as data, weights from safetensors or by torch's
weights-only unpickler. The folder is laid out as the Hugging Face hub has it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from safetensors.torch import load_file
from torch import Tensor

from app.config.keys import did_you_mean, one_line
from app.errors import UserError
from app.files.json_object import json_object
from app.model.esm.settings import PUBLISHED, WHERE, EsmSize

NAME = f"{WHERE}.name"
_DATA = ["config.json", "vocab.txt"]
_WEIGHTS = {
    "model.safetensors": ["*.safetensors", "*.safetensors.index.json"],
    "pytorch_model.bin": ["*.bin", "*.bin.index.json"],
}
"""Weights file (or, with .index.json, the list of its parts) -> what to fetch for it, in order of preference."""

_NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class EsmConfig(BaseModel):
    """What matters of config.json; the rest is ignored, names of code above all.

    The bounds are ten times those of ESM-2 15B: a model is built by these numbers before weights are looked at.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    model_type: str
    position_embedding_type: str
    num_hidden_layers: int = Field(gt=0, le=512)
    hidden_size: int = Field(gt=0, le=65_536)
    num_attention_heads: int = Field(gt=0, le=512)
    intermediate_size: int = Field(gt=0, le=262_144)
    vocab_size: int = Field(gt=0, le=65_536)
    pad_token_id: int = Field(1, ge=0)
    layer_norm_eps: float = Field(1e-5, gt=0, lt=1)
    emb_layer_norm_before: Literal[False] | None = False
    token_dropout: bool = True

    @field_validator("num_attention_heads")
    @classmethod
    def _divides_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("hidden_size", 2 * heads)
        if width % (2 * heads):  # rotary positions turn pairs of channels
            raise ValueError(f"{heads} heads do not divide hidden_size={width} into even widths")
        return heads

    @field_validator("pad_token_id")
    @classmethod
    def _is_a_token(cls, padding: int, info: ValidationInfo) -> int:
        if padding >= info.data.get("vocab_size", padding + 1):
            raise ValueError(f"{padding} is not below vocab_size={info.data['vocab_size']}")
        return padding

    @property
    def size(self) -> EsmSize:
        return EsmSize(self.num_hidden_layers, self.hidden_size, self.num_attention_heads)


@dataclass(frozen=True)
class EsmFolder:
    path: Path
    config: EsmConfig
    vocabulary: tuple[str, ...]  # token of each index

    def weights(self) -> dict[str, Tensor]:
        """Name -> tensor, mapped from the disk, of the layers that make representations: no head, no table that follows
        from the sizes. Raises UserError where there are none, they cannot be read, or are no plain numbers."""
        found: dict[str, Tensor] = {}
        for file in self._weight_files():
            try:
                part = load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
            except Exception as error:  # of many kinds where a file is cut off
                raise UserError(
                    f"{NAME}={self.path}: {file.name} cannot be read ({one_line(error)[:120]}): fetch it again"
                ) from None
            if not isinstance(part, dict) or not all(isinstance(name, str) for name in part):
                raise UserError(f"{NAME}={self.path}: {file.name} is no table of named weights: fetch it again")
            found |= {_plain(name): value for name, value in part.items()}
        found = {name: value for name, value in found.items() if _makes_representations(name)}
        if fault := _fault(found):
            raise UserError(f"{NAME}={self.path}: its weights {fault}: fetch it again")
        return {name: tensor.detach() for name, tensor in found.items()}

    def _weight_files(self) -> list[Path]:
        for name in _WEIGHTS:
            if (self.path / name).is_file():
                return [self.path / name]
            if (index := self.path / f"{name}.index.json").is_file():
                parts = _json(index, self.path).get("weight_map")
                if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                    raise UserError(f"{NAME}={self.path}: {index.name} names no files of weights: fetch it again")
                return [self.path / Path(part).name for part in sorted(set(parts.values()))]
        raise UserError(f"{NAME}={self.path}: it holds no weights: wanted {' or '.join(_WEIGHTS)} there")


def size_of(name: str) -> EsmSize:
    """The dimensions of a language model, by the table or a folder's config.json. Raises UserError."""
    known = _published(name)
    return known[1] if known else _config(_local(name)).size


def config_of(size: EsmSize) -> EsmConfig:
    """The configuration of a language model of that size, in the proportions of the published ones."""
    return EsmConfig(
        model_type="esm",
        position_embedding_type="rotary",
        num_hidden_layers=size.layers,
        hidden_size=size.width,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        vocab_size=33,
    )


def find(name: str) -> EsmFolder:
    """A language model's folder; published ones come from the hub's cache, or are fetched (HF_HUB_OFFLINE: never).

    Raises UserError where it is not there, not whole, or not an ESM-2 model.
    """
    known = _published(name)
    path = _fetched(name, known[0]) if known else _local(name)
    folder = EsmFolder(path, _config(path), _vocabulary(path))
    if len(folder.vocabulary) > folder.config.vocab_size:
        raise UserError(f"{NAME}={path}: vocab.txt and config.json tell different numbers of tokens: fetch it again")
    if known and folder.config.size != known[1]:
        raise UserError(f"{NAME}={name}: {path} holds a model of other dimensions: remove it from the cache")
    return folder


def sha256(weights: dict[str, Tensor]) -> str:
    """A hash of names, types, shapes and values, whatever the format of the file that they came in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _published(name: str) -> tuple[str, EsmSize] | None:
    """(hub's name, size)."""
    return PUBLISHED.get(name) or next((known for known in PUBLISHED.values() if known[0] == name), None)


def _local(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        there = path.is_dir()
    except (RuntimeError, OSError, ValueError):  # ~nobody, a name too long, a name with a null character
        there = False
    if not there:
        raise UserError(
            f"{NAME}={name}: neither a folder that is there nor a published model: {did_you_mean(name, PUBLISHED)}"
            f"known are {', '.join(PUBLISHED)}; say where it is by {NAME}=FOLDER, in infer.py by esm.name=FOLDER"
        )
    return path


def _fetched(name: str, hub_name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{NAME}={name}: fetching it takes the package transformers: pip install 'transformers>=4.30.2,<4.54',"
            " or name a folder"
        ) from None
    try:
        for file, patterns in _WEIGHTS.items():
            path = Path(snapshot_download(hub_name, allow_patterns=[*_DATA, *patterns]))
            if (path / file).exists() or (path / f"{file}.index.json").exists():
                break
        return path
    except Exception as error:  # no network, offline, no room: each has its own
        raise UserError(
            f"{NAME}={name}: {hub_name} is not in the cache and cannot be fetched ({type(error).__name__}): run once"
            " where the hub can be reached and HF_HUB_OFFLINE is not set, or name a folder with its files"
        ) from None


def _config(path: Path) -> EsmConfig:
    plain = _json(path / "config.json", path)
    if plain.get("model_type") != "esm" or plain.get("position_embedding_type") != "rotary":
        kind = plain.get("model_type"), plain.get("position_embedding_type")
        raise UserError(f"{NAME}={path}: not an ESM-2 model (wanted esm with rotary positions, it says {kind})")
    try:
        return EsmConfig.model_validate(plain)
    except ValidationError as error:
        faults = {".".join(map(str, fault["loc"])): fault["msg"] for fault in error.errors()}
        said = "; ".join(f"{key}: {one_line(told).removeprefix('Value error, ')}" for key, told in faults.items())
        raise UserError(f"{NAME}={path}: config.json is not that of an ESM-2 model ({said})") from None


def _vocabulary(path: Path) -> tuple[str, ...]:
    try:
        return tuple((path / "vocab.txt").read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{NAME}={path}: no vocab.txt that can be read there: add that of ESM-2") from None


def _json(file: Path, path: Path) -> dict:
    if (plain := json_object(file)) is None:
        raise UserError(f"{NAME}={path}: no {file.name} that can be read there: name the folder of an ESM-2 model")
    return plain


def _unpickled(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _fault(weights: dict[str, Any]) -> str | None:
    """What is wrong with weights as they were read, or None.

    A small file can tell of large tensors, as views that repeat a few numbers: they are held to what was stored.
    """
    if not weights:
        return "hold no layers of a language model"
    for name, value in weights.items():
        if not _is_plain_numbers(value):
            return f"hold something else than plain floating-point numbers at {name}"
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in weights.values()}
    if sum(value.numel() * value.itemsize for value in weights.values()) > sum(storages.values()):
        return "are views of fewer numbers than they have"
    return None


def _is_plain_numbers(value: Any) -> bool:
    """A dense tensor in memory: not sparse, nested, quantized, without data, or lazily negated."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and value.dtype in _NUMBERS and not value.is_neg()


def _plain(name: str) -> str:
    """A weight's name whatever head the model was saved with, and whatever its norms were called (transformers 5)."""
    name = name.removeprefix("esm.")
    for other, ours in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(other) + ours if name.endswith(other) else name
    return name


def _makes_representations(name: str) -> bool:
    return name.startswith(("embeddings.word_embeddings.", "encoder.")) and not name.endswith("inv_freq")
