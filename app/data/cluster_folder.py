"""The clusters of all that a folder holds, whatever the filters of a run would leave out."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from app.data import cache
from app.data.check import is_multiflow
from app.data.cluster_cache import clusters_of_sequences
from app.data.features import sequence_of
from app.data.likeness import Likeness
from app.data.multiflow_settings import MultiflowFilter, MultiflowSettings
from app.data.structures import survey
from app.data.structures_settings import StructuresSettings
from app.errors import UserError

_EVERY_LENGTH = 10**9


def cluster_folder(
    path: Path, likeness: Likeness, cache_dir: Path | None = None
) -> tuple[list[str], np.ndarray, list[tuple[str, str]]]:
    """(names, the cluster of each, (name, reason) of what cannot be read) of a folder of structure files or a Multiflow
    data set.

    Raises UserError: no such path, nothing readable in it, cache folder not writable.
    """
    names, sequences, unreadable = (_of_multiflow if is_multiflow(path) else _of_structures)(path, cache_dir)
    if not names:
        raise UserError(f"{path}: holds nothing that can be read; see what and why: python -m app data check {path}")
    clusters = clusters_of_sequences(sequences, likeness, cache_dir or cache.default_folder())
    return names, clusters, unreadable


def _of_structures(path: Path, cache_dir: Path | None) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    settings = StructuresSettings(
        path=path, cache_dir=cache_dir, min_length=1, max_length=None, max_unknown_fraction=1.0
    )
    found = survey(settings)
    return list(found.names), found.sequences(), found.unreadable


def _of_multiflow(path: Path, _cache_dir: Path | None) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    from app.data.multiflow import MultiflowDataset  # the other kind does without its dependencies

    everything = MultiflowFilter(
        oligomeric=None, num_chains=None, min_num_res=1, max_num_res=_EVERY_LENGTH, max_coil_percent=None,
        rog_quantile=None,
    )  # fmt: skip
    settings = MultiflowSettings(
        path=path, clusters=None, synthetic_clusters=None, redesigned=None, filter=everything, max_cache_size=0
    )
    dataset = MultiflowDataset(settings)
    names, sequences, unreadable = [], [], []
    for index in track(range(len(dataset)), "reading entries", console=Console(stderr=True), transient=True):
        try:
            features = dataset[index]
        except UserError as error:
            unreadable.append((dataset.names[index], str(error)))
            continue
        names.append(dataset.names[index])
        sequences.append(sequence_of(features["aatypes_1"], features["chain_idx"]))
    return names, sequences, unreadable
