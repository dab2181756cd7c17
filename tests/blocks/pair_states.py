"""A small state for blocks over edges and nodes, blocks with nothing left at zero, and their results compared."""

from collections.abc import Callable

import numpy as np
import torch

from app.blocks import Block, build_block
from app.types import Frames, TrunkState
from tests.blocks.alphafold3 import Weights, array, weights_of
from tests.factories import generator, perturb

N, C_S, C_Z = 5, 12, 6
PRESENT = [[0, 1, 2, 3, 4], [0, 1, 2]]
Algorithm = Callable[[np.ndarray, np.ndarray, list[int], Weights], tuple[np.ndarray, np.ndarray]]
"""Nodes, edges, which residues are there, weights -> nodes, edges."""


def block(name: str, **changes) -> Block:
    return perturb(build_block(name, c_s=C_S, c_z=C_Z, **changes), scale=0.4).eval()


def state(length: int = N) -> TrunkState:
    """Two examples, the second with absent residues at its end; rubbish on what is absent."""
    source, mask = generator(), torch.ones(2, length)
    mask[1, len(PRESENT[1]) :] = 0
    return TrunkState(
        node=torch.randn(2, length, C_S, generator=source),
        edge=torch.randn(2, length, length, C_Z, generator=source),
        frames=Frames(torch.eye(3).expand(2, length, 3, 3), torch.zeros(2, length, 3)),
        node_mask=mask,
        edge_mask=mask[:, :, None] * mask[:, None],
        t=torch.zeros(2, 3),
    )


def assert_is(algorithm: Algorithm, module: Block) -> None:
    """The block's nodes and edges of present residues are those of the algorithm."""
    given, weights = state(), weights_of(module)
    with torch.no_grad():
        out = module(given)
    for example, present in enumerate(PRESENT):
        node, edge = algorithm(array(given.node[example]), array(given.edge[example]), present, weights)
        here = np.ix_(present, present)
        np.testing.assert_allclose(array(out.node[example])[present], node[present], atol=2e-5, rtol=1e-5)
        np.testing.assert_allclose(array(out.edge[example])[here], edge[here], atol=2e-5, rtol=1e-5)
