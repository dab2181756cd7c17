"""The LightningModule: noise a batch, predict the clean one, take the losses."""

import dataclasses
import random
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from app import __version__
from app.chem.residues import NUM_TOKENS
from app.config.validate import parse
from app.data.ledger import Ledger
from app.flow.interpolant import corrupt
from app.flow.partial import with_given_residues
from app.losses.codesign import losses
from app.model.codesign import CodesignModel
from app.sampling import Trajectory, sample
from app.training.held_out_losses import held_out_losses
from app.training.in_halves import Measured, measured_in_halves
from app.training.loops import at_start_of_epoch, count_steps
from app.training.optimizer import (
    OptimizerSettings,
    build_optimizer,
    group_names,
    impose,
    parameter_order,
    regrouped,
)
from app.training.passes import Part, Place
from app.training.recipe import Recipe, parse_recipe
from app.training.schedule import continue_at, scheduled
from app.training.step import OptimizerStep
from app.training.strategies import shard
from app.types import NoisyBatch, ProteinBatch

FORMAT = 1
"""Number of our checkpoint's layout; raised when it changes."""


class CodesignModule(lightning.LightningModule):
    """A model with its flow, losses and optimizer, all as one recipe says.

    Randomness of a training step is a function of (seed, epoch, batch, rank) and of nothing before it, so a resumed run
    goes on as if it had never stopped and no state of any generator has to be stored.
    """

    def __init__(self, recipe: dict | Recipe):
        super().__init__()
        self.recipe = recipe if isinstance(recipe, Recipe) else parse_recipe(recipe)
        self.model = CodesignModel(self.recipe.model)
        self.automatic_optimization = False  # of Lightning's, which can neither repeat nor leave out a step
        self.step = OptimizerStep(self)
        self.validation_ledger = Ledger()  # apart from training, which fails at smaller shapes
        self.restored_epoch = self.restored_step = 0  # of the checkpoint the weights came from

    def losses(self, batch: NoisyBatch) -> dict[str, Tensor]:
        """trans_loss, rots_vf_loss, aatypes_loss, auxiliary_loss, train_loss of the model on a batch, each [B]."""
        return losses(self.model(batch), batch, self.recipe.loss, self.recipe.flow.half_turn)

    def training_step(self, batch: ProteinBatch, batch_idx: int) -> dict[str, Any]:
        """A batch's passes, and the optimizer's step where it ends one: see `OptimizerStep.take`."""
        return self.step.take(batch, Place(self.current_epoch, batch_idx, self.global_rank))

    def part(self, batch: ProteinBatch, place: Place, first: int = 0, last: int | None = None) -> Part:
        """The examples of a batch from `first` up to `last`, noised; dropout is seeded for them.

        The whole batch is noised, so that an example's noise does not depend on which others it is computed with.
        """
        size = len(batch.res_mask)
        last = size if last is None else last
        noisy = self.noisy(batch, self._generator(place), conditioned=False).examples(first, last)
        self._seed_dropout(place, first)
        return Part(noisy, self._conditions(place), batch.share.weight * ((last - first) / size))

    def losses_of_part(self, noisy: NoisyBatch, conditioned: bool) -> dict[str, Tensor]:
        """As `losses`. conditioned: with the model's own first estimate to condition on."""
        return self.losses(self.with_own_estimate(noisy) if conditioned else noisy)

    def outputs(self, batch: ProteinBatch, place: Place, first: int = 0, last: int | None = None) -> dict[str, Any]:
        """Of the examples of a batch from `first` up to `last`: see `Part.told`."""
        part = self.part(batch, place, first, last)
        return part.told(self.losses_of_part(part.noisy, part.conditioned))

    def noisy(self, batch: ProteinBatch, generator: torch.Generator, conditioned: bool) -> NoisyBatch:
        """The batch noised, but for residues that are given. conditioned: with the model's own first estimate to
        condition on."""
        batch = with_given_residues(batch, self.recipe.flow.partial, generator)
        noisy = corrupt(batch, self.recipe.flow, generator)
        return self.with_own_estimate(noisy) if conditioned else noisy

    @torch.no_grad()
    def with_own_estimate(self, noisy: NoisyBatch) -> NoisyBatch:
        """The batch with the model's own estimate from it to condition on."""
        first = self.model(noisy)
        given = (1 - noisy.diffuse_mask)[..., None]
        truth = torch.eye(NUM_TOKENS, device=noisy.device)[noisy.aatypes_1]  # one_hot looks at its numbers
        trans_sc = torch.lerp(first.pred_trans, noisy.trans_1, given)
        return dataclasses.replace(noisy, trans_sc=trans_sc, aatypes_sc=torch.lerp(first.logits_to_see(), truth, given))

    def validation_step(self, batch: ProteinBatch, batch_idx: int) -> Measured:
        """Every example's losses [B] at the fixed times, by the log's columns: see `held_out_losses`."""
        return measured_in_halves(partial(held_out_losses, self), batch, self.validation_ledger, self.step.ranks)

    def _conditions(self, place: Place) -> bool:
        """Whether this batch is one of the share that is conditioned: on all ranks alike, since they wait for each
        other in the forward pass where parameters are sharded."""
        source = np.random.default_rng([self.recipe.seed, place.epoch, place.batch])
        return source.random() < self.recipe.flow.self_condition_share

    def _generator(self, place: Place) -> torch.Generator:
        """The step's generator for noise, on the CPU."""
        noise_seed = self._seeds(place)[0]
        return torch.Generator().manual_seed(noise_seed)

    def _seed_dropout(self, place: Place, first: int = 0) -> None:
        """Every other generator: torch's on all devices, which dropout draws from, and for whatever a block may come to
        use, numpy's and Python's. first: number of the first example that is computed."""
        _, dropout_seed, other_seed = self._seeds(place, first)
        torch.manual_seed(dropout_seed)
        np.random.seed(other_seed % 2**32)
        random.seed(other_seed)

    def _seeds(self, place: Place, first: int = 0) -> list[int]:
        entropy = [self.recipe.seed, place.epoch, place.batch, place.rank]
        source = np.random.SeedSequence(entropy, spawn_key=(first,) if first else ())
        return source.generate_state(3, np.uint64).tolist()

    def configure_model(self) -> None:
        """Lightning calls this on all ranks before there is an optimizer."""
        if self._device_mesh is not None:
            shard(self.model, self._device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        """AdamW, with a schedule where the rate is to change. Raises UserError for a group without parameters."""
        optimizer = build_optimizer(self.model, self.recipe.optimizer)
        return scheduled(optimizer, self.recipe.schedule, self.recipe.trainer.max_steps)

    def on_train_start(self) -> None:
        """Rates and schedule of the recipe, which may have changed, hold over those of a checkpoint."""
        self.step.on_train_start()
        impose(self.optimizers(), self.recipe.optimizer)
        if scheduler := self.lr_schedulers():
            continue_at(scheduler, self.global_step)

    def sample(self, **arguments) -> Trajectory:
        """Designs with the recipe's sampler; takes what `app.sampling.sample` takes."""
        return sample(self.model, **{"sampler": self.recipe.sampler} | arguments)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["trunkline"] = {
            "format": FORMAT,
            "version": __version__,
            "recipe": self.recipe.model_dump(mode="json"),
        }
        if self.model.esm is not None:  # in place of its weights
            checkpoint["trunkline"]["esm"] = self.model.esm.identity()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """A checkpoint of another program has no counters that Lightning's loops would understand, and one of an
        earlier version counted its steps elsewhere."""
        if self.model.esm is not None:
            self.model.esm.expect(checkpoint["trunkline"].get("esm"), "the checkpoint")
        self._regroup(checkpoint)
        if checkpoint["loops"] is None:
            checkpoint["loops"] = at_start_of_epoch(self.trainer, checkpoint["epoch"])
        count_steps(checkpoint["loops"]["fit_loop"], checkpoint["global_step"])

    def _regroup(self, checkpoint: dict) -> None:
        """The optimizer's state as today's groups number it, where the checkpoint had others."""
        recipe = checkpoint.get("trunkline", {}).get("recipe", {})
        before = parse(OptimizerSettings, recipe.get("optimizer", {}), "optimizer")
        if before.groups != self.recipe.optimizer.groups:
            order, groups = parameter_order(self.model, before), group_names(self.model, self.recipe.optimizer)
            checkpoint["optimizer_states"] = [regrouped(checkpoint["optimizer_states"][0], order, groups)]
