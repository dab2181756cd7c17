"""ESMFold (Lin et al. 2023) as a plug-in, run by Hugging Face's transformers from a local folder.

The folder's config.json is read as data, its weights from safetensors or by torch's weights-only unpickler.
"""

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from app.chem import atoms
from app.chem.residues import AATYPES_WITH_X
from app.config.keys import one_line
from app.devices import NVIDIA, full_precision
from app.errors import UserError
from app.evaluation.refold.plugin import Chains, Folded, Folder
from app.files.json_object import json_object
from app.model.esm.folder import EsmConfig

LINKER = 25
"""Glycines between chains, as ESMFold's authors fold complexes."""

GAP = 512
"""By which residue numbers grow between chains, as they have it."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BACKBONE = [0, 1, 2]  # N, CA and C among a residue's 14 atoms
_NOT_READ = ("esm.contact_head.",)
_TABLES = ("af2_to_esm", "inv_freq")  # follow from the configuration: transformers makes those that are not in a file
_PUBLISHED = "facebook/esmfold_v1"
_AGAIN = f"copy the folder again, as the Hugging Face hub has {_PUBLISHED}"


class _StructureModule(BaseModel):
    """What config.json says of loops over layers. The bounds are ten times the published numbers, or more."""

    num_blocks: int = Field(8, gt=0, le=128)
    num_resnet_blocks: int = Field(2, gt=0, le=32)
    num_transition_layers: int = Field(1, gt=0, le=32)


class _Trunk(BaseModel):
    num_blocks: int = Field(48, gt=0, le=512)
    max_recycles: int = Field(4, gt=0, le=64)
    structure_module: _StructureModule = _StructureModule()


class EsmFold(Folder):
    name = "esmfold"

    def check(self) -> None:
        self._config()
        self.files()

    def files(self) -> list[Path]:
        """config.json and the weights. Raises UserError where there are none."""
        for name in _WEIGHTS:
            if (self.weights / name).is_file():
                return [self.weights / "config.json", self.weights / name]
            index = self.weights / f"{name}.index.json"
            if index.is_file():
                parts = _json(index).get("weight_map")
                if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                    raise UserError(f"{index.name} names no files of weights: {_AGAIN}")
                files = [self.weights / Path(part).name for part in sorted(set(parts.values()))]
                if lacking := [file.name for file in files if not file.is_file()]:
                    raise UserError(f"it lacks {lacking[0]}, which {index.name} names: {_AGAIN}")
                return [self.weights / "config.json", index, *files]
        raise UserError(f"it holds no weights ({' or '.join(_WEIGHTS)}): {_AGAIN}")

    @torch.inference_mode()
    def fold(self, sequences: Sequence[Chains]) -> list[Folded]:
        """pLDDT is that of CA. Linkers between chains are folded, and left out of the result."""
        tokens = torch.tensor([_tokens(one) for one in sequences], device=self.device)
        numbers, kept = _layout([len(chain) for chain in sequences[0]])
        with full_precision(self.device), _quiet():
            out = self._model(
                tokens, torch.ones_like(tokens), position_ids=numbers.to(self.device).expand(len(sequences), -1)
            )
        backbone = out.positions[-1][..., _BACKBONE, :].float().cpu()[:, kept]
        plddt = 100 * out.plddt[..., atoms.CA].float().cpu()[:, kept]
        if not backbone.isfinite().all():
            raise ArithmeticError("coordinates that are no numbers")
        return [Folded(*one) for one in zip(backbone, plddt, strict=True)]

    @cached_property
    def _model(self) -> nn.Module:
        import transformers  # takes seconds

        plain = self._config()
        known = inspect.signature(transformers.EsmConfig).parameters.keys() - {
            "kwargs"
        }  # no names of code, nor of other packages
        half = bool(plain["esmfold_config"].get("fp16_esm", True))
        plain["esmfold_config"] = plain["esmfold_config"] | {"fp16_esm": False}
        try:
            with _quiet():
                model, report = transformers.EsmForProteinFolding.from_pretrained(
                    self.weights,
                    config=transformers.EsmConfig(**{key: value for key, value in plain.items() if key in known}),
                    local_files_only=True,
                    use_safetensors=self.files()[-1].suffix == ".safetensors",
                    weights_only=True,
                    torch_dtype=torch.float32,
                    output_loading_info=True,
                )
        except Exception as error:  # what transformers and torch meet in a folder that is not whole
            raise UserError(f"cannot be loaded ({type(error).__name__}: {one_line(error)[:200]}): {_AGAIN}") from None
        missing = (name for name in report["missing_keys"] if not name.startswith(_NOT_READ))
        if lacking := [name for name in missing if not name.endswith(_TABLES)]:
            raise UserError(f"its weights lack {sorted(lacking)[0]}: {_AGAIN}")
        if half and self.device.type == NVIDIA:
            model.esm.half()  # as its authors run the language model on GPUs
        return model.eval().requires_grad_(False).to(self.device)

    def _config(self) -> dict:
        """Of config.json. Raises UserError where it is not that of an ESMFold, or the folder would have others read."""
        if not self.weights.is_dir():
            raise UserError(f"no such folder: give one as the Hugging Face hub has it, such as a copy of {_PUBLISHED}")
        if (self.weights / "adapter_config.json").exists():
            raise UserError("it holds adapter_config.json, which would have another model read: remove that")
        plain = _json(self.weights / "config.json")
        if plain.get("model_type") != "esm" or not isinstance(plain.get("esmfold_config"), dict):
            raise UserError(f"config.json is not that of an ESMFold: give a copy of {_PUBLISHED}")
        try:
            EsmConfig.model_validate(plain)
            _Trunk.model_validate(plain["esmfold_config"].get("trunk") or {})
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise UserError(f"config.json is not that of an ESMFold ({one_line(told)[:200]}): {_AGAIN}") from None
        return plain


PLUGIN = EsmFold


def _json(file: Path) -> dict:
    if (plain := json_object(file)) is None:
        raise UserError(f"no {file.name} that can be read there: {_AGAIN}")
    return plain


def _tokens(chains: Chains) -> list[int]:
    """AlphaFold's order, which is ours; linkers between chains."""
    return [AATYPES_WITH_X.index(letter) for letter in ("G" * LINKER).join(chains)]


def _layout(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of a sequence with linkers: residue numbers [T], and which are residues of chains [T] bool."""
    chain = torch.cat([torch.full((length + LINKER,), index) for index, length in enumerate(lengths)])
    kept = torch.cat([torch.arange(length + LINKER) < length for length in lengths])
    total = len(chain) - LINKER  # there is none behind the last chain
    return (torch.arange(len(chain)) + GAP * chain)[:total], kept[:total]


@contextmanager
def _quiet() -> Iterator[None]:
    """What transformers says while it loads and runs is told by us, as an error, where it matters."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
