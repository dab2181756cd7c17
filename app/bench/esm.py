"""The language model by itself: ESM-2's shape with random weights, since how fast it is does not depend on them.

`max_error` is the largest difference of a residue's last hidden state, a normed one, from the reference in float32.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from app.bench.case import AUTO, REFERENCE, Case, Job, Outputs, Point, Sizes, largest_difference
from app.devices import CPU, MPS, NVIDIA
from app.errors import UserError
from app.model.esm import backends
from app.model.esm.folder import EsmConfig, EsmFolder
from app.model.esm.settings import PUBLISHED, EsmSize

SHAPE = "esm2_650m"
_SCALE = 0.02  # standard deviation of the weights


def cases() -> list[Case]:
    sizes = {
        CPU: Sizes((128,)),
        MPS: Sizes((128,)),
        NVIDIA: Sizes((256, 512, 1024), ("float32", "bfloat16", "float16"), batch=8),
    }
    return [Case("esm", esm_job, lambda device: [REFERENCE, AUTO], sizes)]


def esm_job(point: Point) -> Job:
    """Raises UserError where no package is installed that runs it."""
    size, device = PUBLISHED[SHAPE][1], point.torch_device
    folder = EsmFolder(Path(SHAPE), _config(size), vocabulary=())
    weights = dict(_weights(folder.config))
    made: dict[tuple[str, torch.dtype], torch.nn.Module] = {}
    source = torch.Generator().manual_seed(2)
    inputs = _SCALE * torch.randn(point.size, point.length + 2, size.width, generator=source)  # <cls> and <eos> as well
    attended = torch.ones(inputs.shape[:2], dtype=torch.bool, device=device)

    def model(backend: str, dtype: torch.dtype) -> torch.nn.Module:
        package = "transformers" if backend == REFERENCE else _best_package()
        if (package, dtype) not in made:
            made[package, dtype] = backends.build(package, folder, weights, device, dtype)
        return made[package, dtype]

    @torch.no_grad()
    def run(backend: str, dtype: torch.dtype = point.torch_dtype) -> Outputs:
        given = inputs.to(device, dtype)
        out = model(backend, dtype)(
            inputs_embeds=given, attention_mask=attended, output_hidden_states=True, return_dict=True
        )
        return {"hidden": backends.unpacked(out.hidden_states[-1], attended)}

    return Job(run, run, largest_difference, batch=lambda backend: point.size)


def _best_package() -> str:
    """FAPLM where it can be imported, as the recipes have it."""
    try:
        backends.refuse_absent("faplm")
    except UserError:
        return "transformers"
    return "faplm"


def _config(size: EsmSize) -> EsmConfig:
    return EsmConfig(
        model_type="esm",
        position_embedding_type="rotary",
        num_hidden_layers=size.layers,
        hidden_size=size.width,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        vocab_size=33,
    )


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
