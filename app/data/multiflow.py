"""`data=multiflow`: training examples from a folder in Multiflow's own data set layout."""

import logging
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from app.chem.residues import AATYPES
from app.data.multiflow_entry import read_entry
from app.data.multiflow_settings import MultiflowSettings
from app.data.multiflow_table import load_table
from app.errors import UserError

log = logging.getLogger(__name__)

PLDDT_THRESHOLD = 70.0


class MultiflowDataset:
    """Entries that pass the filters; one of each cluster an epoch, as Multiflow trains.

    Differences from Multiflow, all to the safe side: entries that are in no cluster are dropped; residues without N, CA
    and C are masked, not only those without CA; pLDDT masks synthetic chains only, B-factors of experiments being
    something else; chains are numbered at random anew in each epoch, not at each reading; a broken file costs its
    example, not the run. A redesigned sequence, where there is one, always replaces the chain's own.

    names, lengths: of the entries in use. dropped: (name, reason) of the others.

    Raises UserError: folder, file or column missing.
    """

    def __init__(self, settings: MultiflowSettings):
        self.settings = settings
        table = load_table(settings)
        rows = table.rows.reset_index(drop=True)
        self.dropped = table.dropped
        self.names: list[str] = rows.pdb_name.tolist()
        self.lengths: list[int] = rows.length.tolist()
        self._files, self._sequences, self._synthetic = (
            rows.file.tolist(),
            rows.sequence.tolist(),
            rows.synthetic.tolist(),
        )
        self._by_cluster = rows.cluster.to_numpy().argsort(kind="stable")
        self._cluster_sizes = np.unique(rows.cluster, return_counts=True)[1]
        self._cache: dict[int, dict] = {}
        reasons = Counter(reason for _, reason in self.dropped)
        log.info("%s: %d entries in %d clusters are used", settings.path, len(self), len(self._cluster_sizes))
        for reason, count in reasons.most_common():
            log.info("%s: %d dropped: %s", settings.path, count, reason)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Features of one entry (see `read_entry`), with plddt_mask and name.

        Raises UserError naming the file: it cannot be used, or differs in length from what the metadata say.
        """
        if index not in self._cache:
            features = self._read(index)
            if len(self._cache) >= self.settings.max_cache_size:
                return features
            self._cache[index] = features
        return dict(self._cache[index])

    def draw(self, epoch: int, seed: int) -> np.ndarray:
        """One entry of each cluster: [clusters] indices, a pure function of (epoch, seed)."""
        chosen = np.random.default_rng((seed, epoch)).random(len(self._cluster_sizes)) * self._cluster_sizes
        first = np.cumsum(self._cluster_sizes) - self._cluster_sizes
        return self._by_cluster[first + chosen.astype(np.int64)]

    def augment(self, features: dict, random: np.random.Generator) -> dict:
        """With `shuffle_chains`, the chains 1..n renumbered by a random permutation; a single chain stays 1."""
        if not self.settings.shuffle_chains:
            return features
        chain_idx = features["chain_idx"]
        permutation = torch.from_numpy(random.permutation(int(chain_idx.max()))) + 1
        return {**features, "chain_idx": permutation[chain_idx - 1]}

    def _read(self, index: int) -> dict[str, Tensor | str]:
        features = read_entry(self._files[index])
        length = len(features["res_mask"])
        if length != self.lengths[index]:
            raise UserError(
                f"{self._files[index]}: {length} residues from first to last modelled, but modeled_seq_len of the"
                f" metadata is {self.lengths[index]}; mend the metadata"
            )
        plddt = features.pop("plddt")
        masked = self._synthetic[index] and self.settings.add_plddt_mask
        features["plddt_mask"] = (plddt >= PLDDT_THRESHOLD).float() if masked else torch.ones(length)
        if self._sequences[index]:
            features["aatypes_1"] = torch.tensor([AATYPES.index(letter) for letter in self._sequences[index]])
        return {**features, "name": self.names[index]}
