"""Models and proteins to measure with: published sizes, no weight at zero, chains without a data set."""

import torch
import torch.nn.functional as F
from torch import nn

from app.chem.residues import NUM_AATYPES, NUM_TOKENS
from app.config.compose import compose
from app.flow.interpolant import corrupt
from app.flow.settings import FlowSettings
from app.geometry.rotations import from_gaussian_quaternions
from app.model.codesign import CodesignModel
from app.training.recipe import Recipe, parse_recipe
from app.types import NoisyBatch, ProteinBatch

_STEP = 3.8  # angstrom between neighbouring CA
_PERTURBATION = 0.02
"""Standard deviation of what is added to every weight: half of a fresh layer's own, so that activations keep their
scale while the layers that start at zero, behind which errors would hide, do not stay there."""


def recipe_of(name: str) -> Recipe:
    """A recipe as it is. Raises UserError for one that is not valid."""
    config = compose("train", [f"recipe={name}"])
    return parse_recipe({key: config[key] for key in Recipe.model_fields if key in config})


def model_of(recipe: Recipe) -> CodesignModel:
    """The recipe's model in eval mode on the CPU, every weight perturbed; the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return perturbed(CodesignModel(recipe.model)).eval()


@torch.no_grad()
def perturbed(model: nn.Module) -> nn.Module:
    source = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += _PERTURBATION * torch.randn(parameter.shape, generator=source)
    return model


def noisy_batch(length: int, size: int, flow: FlowSettings, seed: int = 0) -> NoisyBatch:
    """Random walks of `length` residues in noise, with the clean chains beside them and estimates to condition on."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source)

    trans = (_STEP * F.normalize(normal(size, length, 3), dim=-1)).cumsum(1)
    position, present = torch.arange(length).expand(size, length), torch.ones(size, length)
    clean = ProteinBatch(
        res_mask=present,
        diffuse_mask=present,
        plddt_mask=present,
        chain_idx=torch.ones_like(position),
        res_idx=position + 1,
        trans_1=trans - trans.mean(1, keepdim=True),
        rotmats_1=from_gaussian_quaternions(normal(size, length, 4)),
        aatypes_1=torch.randint(NUM_AATYPES, (size, length), generator=source),
    )
    noisy = corrupt(clean, flow.model_copy(update={"separate_times": False}), source)
    noisy.trans_sc = clean.trans_1 + normal(size, length, 3)
    noisy.aatypes_sc = normal(size, length, NUM_TOKENS)
    return noisy
