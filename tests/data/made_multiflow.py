"""Makes small data sets in Multiflow's layout."""

import pickle

import numpy as np
import pandas as pd


def chain(length=70, seed=0, **changes):
    """The arrays of a processed file: a random walk of CAs with N and C beside them."""
    random = np.random.default_rng(seed)
    positions = np.zeros((length, 37, 3))
    positions[:, 1] = np.cumsum(random.normal(size=(length, 3)) + 1, axis=0) * 2 + 50
    positions[:, 0] = positions[:, 1] + random.normal(size=(length, 3))
    positions[:, 2] = positions[:, 1] + random.normal(size=(length, 3))
    mask = np.zeros((length, 37))
    mask[:, :3] = 1
    arrays = {
        "atom_positions": positions,
        "aatype": random.integers(0, 20, length),
        "atom_mask": mask,
        "residue_index": np.arange(10, 10 + length),
        "chain_index": np.zeros(length, dtype=np.int64),
        "b_factors": np.full((length, 37), 50.0),
        "modeled_idx": np.arange(length),
    }
    return arrays | changes


def row(name, **changes):
    return {
        "pdb_name": name,
        "processed_path": f"./processed/{name[1:3]}/{name}.pkl",
        "oligomeric_detail": "monomeric",
        "num_chains": 1,
        "modeled_seq_len": 70,
        "coil_percent": 0.3,
        "radius_gyration": 1.2,
    } | changes


def write(folder, rows, chains=None, metadata="metadata.csv", **files):
    """A data set in `folder`: metadata of `rows`, processed files (`chains` by name, else made up), more text files."""
    for number, one in enumerate(rows):
        path = folder / one["processed_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = (chains or {}).get(one["pdb_name"], chain(one["modeled_seq_len"], seed=number))
        path.write_bytes(arrays if isinstance(arrays, bytes) else pickle.dumps(arrays, protocol=2))
    (folder / metadata).parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / metadata, index=False)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
