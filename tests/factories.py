"""What many tests start from: small batches, small models with nothing left at zero, and ways to change a batch.

Every function draws from generators of its own, so equal arguments give equal results.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from app.chem.residues import MASK_TOKEN, NUM_AATYPES, NUM_TOKENS
from app.geometry.rotations import from_gaussian_quaternions
from app.model.codesign import CodesignModel
from app.training.checkpoint_io import WholeFiles
from app.training.module import CodesignModule
from app.training.recipe import parse_recipe
from app.types import NoisyBatch, Prediction, ProteinBatch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perturb(module: nn.Module, seed: int = 0, scale: float = 0.1) -> nn.Module:
    """Gaussian noise on EVERY parameter, in place. Fresh models end in zero layers, with which anything would pass."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype)
    return module


def random_rotations(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform rotations [*shape, 3, 3]."""
    return from_gaussian_quaternions(torch.randn(*shape, 4, generator=generator(seed), dtype=torch.float64)).to(dtype)


def protein_batch(size: int = 2, length: int = 12, seed: int = 0, given: int = 0, missing: int = 0) -> ProteinBatch:
    """Chains along random walks with steps of 3.8 angstrom, centred.

    given: that many residues of the second example are not diffused. missing: that many of its last ones are padding.
    """
    source = generator(seed)
    step = nn.functional.normalize(torch.randn(size, length, 3, generator=source), dim=-1)
    res_mask, diffuse_mask = torch.ones(size, length), torch.ones(size, length)
    if missing:
        res_mask[1, -missing:] = 0
    diffuse_mask[1, :given] = 0
    present = res_mask[..., None]
    trans = (3.8 * step).cumsum(1)
    trans = (trans - (trans * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)) * present
    rotmats = random_rotations(size, length, seed=seed + 1)
    return ProteinBatch(
        res_mask=res_mask,
        diffuse_mask=diffuse_mask,
        plddt_mask=(torch.rand(size, length, generator=source) > 0.2).float(),
        chain_idx=1 + (torch.arange(length) >= length // 2).long().expand(size, length),
        res_idx=(torch.arange(length) % (length // 2) + 1).expand(size, length),
        trans_1=trans,
        rotmats_1=torch.where(present[..., None].bool(), rotmats, torch.eye(3)),
        aatypes_1=torch.randint(NUM_AATYPES, (size, length), generator=source),
        names=[f"chain{index}" for index in range(size)],
    )


def noisy_batch(size: int = 2, length: int = 12, seed: int = 0, given: int = 2, missing: int = 3) -> NoisyBatch:
    """A model input with the clean protein beside it: self-conditioning, masked tokens, given residues, padding."""
    clean = protein_batch(size, length, seed, given, missing)
    source = generator(seed + 2)
    times = 0.05 + 0.9 * torch.rand(3, size, 1, generator=source)
    tokens = torch.randint(NUM_TOKENS, (size, length), generator=source)
    present = clean.res_mask[..., None]
    return NoisyBatch(
        **{f.name: getattr(clean, f.name) for f in dataclasses.fields(clean) if f.name != "share"},
        so3_t=times[0],
        r3_t=times[1],
        cat_t=times[2],
        trans_t=(clean.trans_1 + 3 * torch.randn(size, length, 3, generator=source)) * present,
        rotmats_t=torch.where(present[..., None].bool(), random_rotations(size, length, seed=seed + 3), torch.eye(3)),
        aatypes_t=tokens.masked_fill(torch.rand(size, length, generator=source) < 0.3, MASK_TOKEN),
        trans_sc=(clean.trans_1 + torch.randn(size, length, 3, generator=source)) * present,
        aatypes_sc=torch.randn(size, length, NUM_TOKENS, generator=source) * present,
    )


def padded(batch, extra: int, seed: int = 9):
    """The batch with `extra` absent residues at the end, filled with finite rubbish that must not matter."""
    source = generator(seed)

    def fill(name: str, value: Tensor) -> Tensor:
        if value.dim() < 2 or (name.endswith("_t") and value.shape[1] == 1):
            return value
        shape = (len(value), extra, *value.shape[2:])
        if name == "res_mask":
            more = torch.zeros(shape)
        elif name.startswith("rotmats"):
            more = random_rotations(*shape[:2], seed=seed)
        elif name.endswith("_mask"):
            more = torch.ones(shape)
        elif value.is_floating_point():
            more = 7 * torch.randn(shape, generator=source)
        else:
            more = torch.randint(1, NUM_AATYPES, shape, generator=source)
        return torch.cat([value, more.to(value.dtype)], dim=1)

    tensors = _tensors(batch)
    return dataclasses.replace(batch, **{name: fill(name, value) for name, value in tensors.items()})


def rows(batch, *indices: int):
    """The batch of these examples only."""
    return batch.map(lambda tensor: tensor[list(indices)])


def moved(batch: NoisyBatch, rotation: Tensor, shift: Tensor) -> NoisyBatch:
    """The batch after a rigid motion of each example: rotation [B, 3, 3], shift [B, 3] angstrom."""

    def points(trans: Tensor) -> Tensor:
        return trans @ rotation.mT + shift[:, None]

    return dataclasses.replace(
        batch,
        trans_t=points(batch.trans_t),
        trans_sc=points(batch.trans_sc),
        trans_1=points(batch.trans_1),
        rotmats_t=rotation[:, None] @ batch.rotmats_t,
        rotmats_1=rotation[:, None] @ batch.rotmats_1,
    )


def tiny_recipe(**sections: dict) -> dict:
    """A plain recipe of a model that runs in milliseconds. sections: keys to change, as in `flow={"min_t": 0.1}`."""
    stage = {"block": "ipa", "depth": 2, "num_heads": 2, "head_width": 4, "num_qk_points": 2, "num_v_points": 3,
             "transformer_heads": 2, "transformer_layers": 1, "transformer_dropout": 0.0}  # fmt: skip
    recipe: dict = {
        "name": "tiny",
        "seed": 5,
        "model": {
            "c_s": 16,
            "c_z": 8,
            "node_embed": {"c_position": 8, "c_time": 8},
            "edge_embed": {"feature_width": 8, "num_bins": 6},
            "trunk": {"stages": [stage]},
        },
        "data": {"kind": "demo"},
    }
    for section, changes in sections.items():
        recipe[section] = {**recipe.get(section, {}), **changes}
    return recipe


def tiny_module(seed: int = 0, scale: float = 0.1, **sections: dict) -> CodesignModule:
    """The module of `tiny_recipe` in eval mode, every parameter perturbed."""
    torch.manual_seed(seed)
    return perturb(CodesignModule(tiny_recipe(**sections)), seed, scale).eval()


def saved(module: CodesignModule, path: Path) -> Path:
    """A checkpoint of a module, in our own format, as after two steps."""
    state = {"state_dict": module.state_dict(), "epoch": 1, "global_step": 2}
    module.on_save_checkpoint(state)
    WholeFiles().save_checkpoint(state, path)
    return path


def tiny_model(seed: int = 0, scale: float = 0.1, **model: dict) -> CodesignModel:
    """The model of `tiny_recipe(model=...)` in eval mode, every parameter perturbed."""
    torch.manual_seed(seed)
    settings = parse_recipe(tiny_recipe(model=model)).model
    return perturb(CodesignModel(settings), seed, scale).eval()


def results(prediction: Prediction) -> dict[str, Tensor]:
    return _tensors(prediction)


def _tensors(of) -> dict[str, Tensor]:
    found = {f.name: getattr(of, f.name) for f in dataclasses.fields(of)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
