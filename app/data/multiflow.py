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
from app.data.part import Part, one_of_each
from app.data.seen import Seen
from app.data.split import ValidationSettings, split
from app.data.strings import Strings
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
        self.names, self.lengths = Strings.pack(rows.pdb_name), rows.length.to_numpy(np.int64)
        self._files, self._sequences = Strings.pack(rows.file), Strings.pack(rows.sequence)
        self._synthetic = rows.synthetic.to_numpy(bool)
        self._clusters, self._joint = rows.cluster.to_numpy(np.int64), rows.joint.to_numpy(np.int64)
        self._is_clustered, self._is_linked = table.is_clustered, table.is_linked
        self._cache: dict[int, dict] = {}
        reasons = Counter(reason for _, reason in self.dropped)
        log.info("%s: %d entries in %d clusters are used", settings.path, len(self), len(np.unique(self._clusters)))
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
        return one_of_each(self._clusters, epoch, seed)

    def split(self, seen: Seen | None = None) -> tuple[Part, Part | None]:
        """What is trained on and what is held out, by the settings; no cluster is on both sides, and none of a complex.

        Raises UserError: see `app.data.split`; something is to be held out and there are entries, real or synthetic,
        of which no cluster file knows anything.
        """
        by, validation = self.settings, self.settings.validation
        cure = f"python -m app data cluster {by.path} --to {by.path / 'pdb.clusters'}"
        if not self._is_clustered and validation.is_on(len(self)):
            missing = "no cluster file" + " of real and synthetic entries" * bool(self._synthetic.any())
            if validation.fraction != "auto" or validation.hold_out:
                raise UserError(
                    f"data.validation: {by.path} has {missing}, so what is held out could be like what is trained on;"
                    f" make one: {cure}"
                )
            log.info("%s: %s, so nothing is held out for validation", by.path, missing)
            validation = ValidationSettings()
        elif not self._is_linked and validation.is_on(len(self)):
            log.warning(
                "%s: no cluster file knows both real and synthetic entries, so what is held out of the ones may be like"
                " others that are trained on; cluster them together: %s",
                by.path,
                cure,
            )
        return split(self, self._joint, validation, self._clusters if by.sample_by == "cluster" else None, seen)

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
