"""Exact continuation of a run whose model has all that draws, recomputes, recycles, or reads a language model."""

import random

import numpy as np
import pytest
import torch

from app.training.module import CodesignModule
from app.training.run import train
from tests.model.esm.made_esm import write_esm
from tests.training.runs import arguments, assert_same_weights

STAGES = (
    "model.trunk.stages=[{block: pairformer, checkpoint: true, num_heads: 2, pair_num_heads: 2, pair_head_width: 4},"
    " {block: ipa, num_heads: 2, head_width: 4, transformer_heads: 2, transformer_layers: 1, checkpoint: true,"
    " transformer_dropout: {train: 0.3, infer: 0.0}}]"
)


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_resumed_run_ends_as_one_that_never_stopped(accumulate, tmp_path):
    plain = [text for text in arguments(tmp_path) if "trunk.stages" not in text]
    parts = [
        STAGES,
        "model.trunk.num_recycles=1",
        "model/esm=node_and_edge",
        f"model.esm.name={write_esm(tmp_path / 'esm')}",
    ]
    made = [*plain, *parts, f"trainer.accumulate={accumulate}"]
    train([*made, "trainer.max_steps=5", f"out={tmp_path / 'whole'}"])
    train([*made, "trainer.max_steps=2", f"out={tmp_path / 'out'}"])
    train([f"resume={tmp_path / 'out/checkpoints/last.ckpt'}", "trainer.max_steps=5"])
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


def test_whatever_a_step_draws_from_goes_on_too(tmp_path, monkeypatch):
    """Python's, numpy's and torch's own generators, though nothing of ours draws from the first two."""
    losses = CodesignModule.losses

    def drawn(self, batch):
        factor = 1 + random.random() + np.random.random() + torch.rand(()).item()
        return {name: factor * value for name, value in losses(self, batch).items()}

    monkeypatch.setattr(CodesignModule, "losses", drawn)
    made = arguments(tmp_path)
    train([*made, "trainer.max_steps=5", f"out={tmp_path / 'whole'}"])
    train([*made, "trainer.max_steps=2", f"out={tmp_path / 'out'}"])
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    train([f"resume={tmp_path / 'out/checkpoints/last.ckpt'}", "trainer.max_steps=5"])
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
