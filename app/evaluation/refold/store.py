"""Results of plug-ins on disk, by all that they depend on. What is damaged or missing is computed again."""

import logging
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from app.data import cache
from app.evaluation.refold.plugin import Backbone, Chains, Folded, Folder, InverseFolder, Redesign

log = logging.getLogger(__name__)

VERSION = "refold 1"
"""To be raised whenever a plug-in's results change."""


def default_folder() -> Path:
    return user_cache_path("trunkline", appauthor=False) / "refold"


class Store:
    """A folder of results. One that cannot be written costs time when designs are refolded again, and nothing else."""

    def __init__(self, folder: Path | None):
        self.folder = folder or default_folder()
        self._told = False

    def redesign(self, inverse: InverseFolder, backbone: Backbone, count: int, temperature: float) -> Path:
        """Where the result for this backbone is."""
        tensors = (backbone.atoms, backbone.numbers, backbone.chains)
        content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)
        return self._file(content, inverse, backbone.sequence, f"{backbone.seed} {count} {temperature!r}")

    def fold(self, folder: Folder, sequence: Chains) -> Path:
        """Where the result for this sequence is."""
        return self._file("/".join(sequence).encode(), folder)

    def read(self, file: Path) -> Redesign | Folded | None:
        """What was written there, or None."""
        try:
            tensors, record = cache.load(file)
            if tensors:
                return Folded(**tensors)
            return Redesign(tuple(record["sequences"]), record["nll"])
        except (cache.CacheMiss, KeyError, TypeError):
            return None

    def write(self, file: Path, result: Redesign | Folded) -> None:
        """Whole, or not at all."""
        if isinstance(result, Folded):
            tensors = {"backbone": result.backbone.contiguous(), "plddt": result.plddt.contiguous()}
            record: dict[str, Any] = {}
        else:
            tensors, record = {}, {"sequences": list(result.sequences), "nll": result.nll}
        try:
            cache.save(file, tensors, record)
        except OSError as error:
            if not self._told:
                log.warning("%s: cannot be written (%s): results are not kept there", self.folder, error.strerror)
            self._told = True

    def _file(self, content: bytes, plugin: InverseFolder | Folder, *settings: str) -> Path:
        # devices differ in the last digits, and in the precision that a plug-in chooses for them
        key = cache.key_of(content, VERSION, plugin.name, plugin.sha256, plugin.device.type, *settings)
        return cache.file_of(self.folder, key)
