"""The demo chains as the tests look at them."""

from functools import cache
from itertools import groupby

import numpy as np

from app.chem import atoms as slot
from app.chem import backbone_geometry as ideal
from app.data import demo
from app.data.demo_dataset import DemoDataset
from app.geometry import internal

SETS = {split: DemoDataset(split) for split in demo.SIZES}
CHAINS = [(data.protein(k), data.secondary_structure[k]) for data in SETS.values() for k in range(len(data))]
BACKBONES = [protein.atom37[:, :5].astype(float) for protein, _ in CHAINS]


made_chain = cache(demo.make_chain)
REMADE = [("train", 0), ("train", 4), ("train", 304), ("held_out", 3), ("held_out", 15)]
"""Chains that the tests make anew: quick ones."""


def with_all_cb(backbone):
    """Glycine's CB too, at its ideal place."""
    n, ca, c = (backbone[:, k] for k in (slot.N, slot.CA, slot.C))
    backbone = backbone.copy()
    backbone[:, slot.CB] = internal.place(n, c, ca, ideal.CA_CB, ideal.C_CA_CB, ideal.N_C_CA_CB)
    return backbone


def stretches(states):
    """(state, first residue, end) of every helix, strand and loop."""
    first = 0
    for state, group in groupby(states):
        end = first + len(list(group))
        yield state, first, end
        first = end


def pooled(values):
    """Arrays of all chains end to end."""
    return np.concatenate(list(values))
