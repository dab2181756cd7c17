"""The language model by itself: ESM-2's shape with random weights, since how fast it is does not depend on them.

`max_error` is the largest difference of residues' last hidden states, which are normed, from the reference in float32.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from app.bench.case import AUTO, OF_MODELS, REFERENCE, Case, Job, Outputs, Point, Sizes, largest_difference
from app.bench.proteins import noisy_batch
from app.chem.residues import AATYPES_WITH_X
from app.devices import CPU, MPS, NVIDIA
from app.errors import UserError
from app.flow.settings import FlowSettings
from app.model.esm import backends
from app.model.esm.folder import EsmConfig, EsmFolder, config_of
from app.model.esm.language import LanguageModel
from app.model.esm.settings import PUBLISHED, EsmSettings

SHAPE = "esm2_650m"
_SCALE = 0.02  # standard deviation of the weights


def cases() -> list[Case]:
    sizes = {
        CPU: Sizes((128,)),
        MPS: Sizes((128,)),
        NVIDIA: Sizes((256, 512, 1024), ("float32", "bfloat16", "float16"), batch=8),
    }
    return [Case("esm", esm_job, _backends, sizes, OF_MODELS)]


def _backends(device: str) -> list[str]:
    return [REFERENCE, AUTO, *(("torch", "flash_attn") if device == NVIDIA else ())]


def esm_job(point: Point) -> Job:
    """The reference is transformers with all attention maps written out; all others run FAPLM."""
    batch = noisy_batch(point.length, point.size, FlowSettings()).to(point.torch_device)

    def run(backend: str, dtype: torch.dtype = point.torch_dtype) -> Outputs:
        model = _language_model(_package(backend), dtype)
        model.release()
        return {"hidden": model(batch, point.torch_device).hidden[-1]}

    return Job(
        run=run,
        outputs=run,
        error=largest_difference,
        refuses=lambda backend: _absent(_package(backend)),
        batch=lambda backend: point.size,
    )


class RandomLanguageModel(LanguageModel):
    """One that is read from no folder."""

    def __init__(self, package: str, dtype: torch.dtype):
        super().__init__(EsmSettings(name=SHAPE, backend=package, precision=str(dtype).removeprefix("torch.")))
        self._sha256 = "random"

    def _found(self) -> tuple[EsmFolder, dict[str, Tensor]]:
        return _files()


def _package(backend: str) -> str:
    return "transformers" if backend == REFERENCE else "faplm"


def _absent(package: str) -> str | None:
    """Why it cannot be run, or None."""
    try:
        backends.refuse_absent(package)
    except UserError as error:
        return str(error)
    return None


_VOCABULARY = ("<cls>", "<pad>", "<eos>", "<unk>", *AATYPES_WITH_X, *"BUZO.-", "<null_1>", "<mask>")


@cache
def _language_model(package: str, dtype: torch.dtype) -> RandomLanguageModel:
    """Made once in a process, and loaded with its first call: the memory that it takes is not that of a later one."""
    return RandomLanguageModel(package, dtype)


@cache
def _files() -> tuple[EsmFolder, dict[str, Tensor]]:
    config = config_of(PUBLISHED[SHAPE][1])
    return EsmFolder(Path(SHAPE), config, _VOCABULARY), dict(_weights(config))


def _weights(config: EsmConfig) -> Iterator[tuple[str, Tensor]]:
    """Name and random numbers of every weight of an ESM-2."""
    source, width, inner = torch.Generator().manual_seed(1), config.hidden_size, config.intermediate_size
    linear = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
    linear |= {"output.dense": (width, inner)}
    norms = ["attention.LayerNorm", "LayerNorm"]
    yield "embeddings.word_embeddings.weight", _SCALE * torch.randn(config.vocab_size, width, generator=source)
    for layer in (f"encoder.layer.{index}." for index in range(config.num_hidden_layers)):
        for name, shape in linear.items():
            yield f"{layer}{name}.weight", _SCALE * torch.randn(shape, generator=source)
            yield f"{layer}{name}.bias", _SCALE * torch.randn(shape[0], generator=source)
        for name in norms:
            yield from _norm(layer + name, width, source)
    yield from _norm("encoder.emb_layer_norm_after", width, source)


def _norm(name: str, width: int, source: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", 1 + _SCALE * torch.randn(width, generator=source)
    yield f"{name}.bias", _SCALE * torch.randn(width, generator=source)
