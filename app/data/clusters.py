"""Clusters of proteins by sequence identity, so that what is held out is like nothing that is trained on.

Greedy incremental clustering (CD-HIT, Li & Godzik 2006): from the longest sequence on, each is compared to the
representatives found so far, and becomes one itself where it is like none. A sequence that is like several joins them:
clusters are connected components, as in the Protein Data Bank's own clusters, which Multiflow uses. Candidates are
found by k-mers (`app.data.similar`), and alignments decide.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence.align import align_banded

from app.data.cluster_file import joined
from app.data.features import BETWEEN_CHAINS
from app.data.likeness import Likeness
from app.data.similar import BAND, MATRIX, Encoded, Library, encode

VERSION = 1
"""Raised whenever the same sequences would give other clusters."""

_BLOCK = 512  # sequences searched for among themselves before the representatives of them are added to the library
_MOST_ALIGNED = 5  # candidates of a sequence, the most promising ones
_GAPS = (-11, -1)  # opening and extension, BLAST's with BLOSUM62
_KARLIN, _LAMBDA = 0.041, 0.267  # of BLOSUM62 with these gaps
_BY_CHANCE, _AMONG = 1e-3, 1e7
_X = ProteinSequence.alphabet.encode("X")


def cluster(
    examples: Sequence[str], likeness: Likeness, advance: Callable[[int, int], None] = lambda done, of: None
) -> np.ndarray:
    """The cluster of each example, [examples] int64, numbered from 0 as they appear.

    examples: sequences in one-letter codes (X: unknown); an example of several chains has them separated by
    `BETWEEN_CHAINS`, and joins its chains' clusters into one. advance: told now and then how many sequences are done.

    A function of the sequences and of `likeness` alone; equal sequences always share a cluster.
    """
    chains = [example.split(BETWEEN_CHAINS) for example in examples]
    number_of = {chain: number for number, chain in enumerate(dict.fromkeys(chain for own in chains for chain in own))}
    cluster_of = joined(_alike(list(number_of), likeness, advance))
    return joined([[int(cluster_of[number_of[chain]]) for chain in own] for own in chains])


def _alike(sequences: list[str], likeness: Likeness, advance: Callable[[int, int], None]) -> list[list[int]]:
    """Of each sequence its own number, if it is a representative, and those of the representatives that it is like."""
    order = sorted(range(len(sequences)), key=lambda number: (-len(sequences[number]), sequences[number]))
    library, representatives = Library(), []
    found: dict[int, list[int]] = {}
    for first in range(0, len(order), _BLOCK):
        advance(first, len(order))
        numbers = order[first : first + _BLOCK]
        block = [encode(sequences[number]) for number in numbers]
        among, new = Library(block), []
        for place, query in enumerate(block):
            candidates = [(one, representatives[one.number], library) for one in library.like(query)]
            candidates += [(one, numbers[one.number], among) for one in among.like(query) if one.number in new]
            candidates.sort(key=lambda candidate: -candidate[0].score)
            alike = [
                number
                for one, number, where in candidates[:_MOST_ALIGNED]
                if are_alike(query, where.sequences[one.number], one.diagonal, likeness)
            ]
            found[numbers[place]] = alike or [numbers[place]]
            if not alike:
                new.append(place)
        library.add([block[place] for place in new])
        representatives += [numbers[place] for place in new]
    advance(len(order), len(order))
    return [found[number] for number in range(len(sequences))]


def are_alike(query: Encoded, other: Encoded, diagonal: int, likeness: Likeness) -> bool:
    """Whether a semi-global alignment around that diagonal has the identity, covers the shorter sequence, and scores
    as chance does not: an expected `_BY_CHANCE` times in `_AMONG` residues (Karlin & Altschul 1990)."""
    one, two = query.sequence, other.sequence
    band = diagonal - BAND, diagonal + BAND
    alignment = align_banded(one, two, MATRIX, band, gap_penalty=_GAPS, max_number=1)[0]
    pairs = alignment.trace[(alignment.trace >= 0).all(axis=1)]
    residues = one.code[pairs[:, 0]]
    identical = (residues == two.code[pairs[:, 1]]) & (residues != _X)
    return (
        len(pairs) >= likeness.min_coverage * min(len(one), len(two))
        and identical.sum() >= likeness.min_identity * len(pairs)
        and _KARLIN * len(one) * _AMONG * math.exp(-_LAMBDA * alignment.score) <= _BY_CHANCE
    )
