"""Clusters that were made once are kept with the index."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import torch

from app.data import cache
from app.data.clusters import VERSION, cluster
from app.data.likeness import Likeness
from app.data.preprocess import progress_bar
from app.errors import UserError

_MANY = 1000  # sequences, which take long enough for a progress bar


def clusters_of_sequences(examples: Sequence[str], likeness: Likeness, cache_dir: Path) -> np.ndarray:
    """`app.data.clusters.cluster`, from the cache where these very sequences were clustered before.

    Raises UserError where the cache cannot be written.
    """
    digest = hashlib.sha256(f"{VERSION} {likeness.model_dump_json()}".encode())
    for example in examples:
        digest.update(f"\n{example}".encode())
    file = cache.file_of(cache_dir, digest.hexdigest()).with_suffix(".clusters")
    try:
        return cache.load(file)[0]["clusters"].numpy()
    except (cache.CacheMiss, KeyError):
        pass
    with progress_bar(len(examples) > _MANY) as progress:
        task = progress.add_task("clustering sequences", total=None)
        clusters = cluster(examples, likeness, lambda done, of: progress.update(task, completed=done, total=of))
    try:
        cache.save(file, {"clusters": torch.from_numpy(clusters)}, {})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{file}: cannot be written ({error}); make room or set another cache_dir") from None
    return clusters
