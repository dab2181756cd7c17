"""Which designs are compared where comparing all would take too long: as many as a budget allows, chosen by chance."""

from collections.abc import Mapping

import numpy as np

MILLION = 1_000_000


def within(lengths: Mapping[str, int], millions: float, seed: int, others: int | None = None) -> list[str]:
    """Names, in their order, of designs that together take no more than so many million pairs of residues.

    lengths: residues of each design. others: residues that each is compared with; None: with each other. Of a larger
    set a random part, the same for a seed.
    """
    names = list(lengths)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.array([lengths[names[place]] for place in order], dtype=float)
    before = np.cumsum(sizes) - sizes if others is None else float(others)
    count = int((np.cumsum(sizes * before) <= millions * MILLION).sum()) if millions else 0
    if others is None and count < min(2, len(names)):
        count = 0  # nothing to compare it with
    return [names[place] for place in sorted(order[:count].tolist())]
