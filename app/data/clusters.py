"""Clusters of proteins by sequence identity, so that what is held out is like nothing that is trained on.

Clusters are the connected components of likeness, as in the Protein Data Bank's own, which Multiflow uses. From the
longest sequence on, each is compared to those before it, as in CD-HIT (Li & Godzik 2006): k-mers find the candidates
(`app.data.similar`), and alignments decide. Of nearly identical sequences only one is searched for.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence.align import Alignment, align_banded, align_optimal
from scipy.cluster.hierarchy import DisjointSet

from app.data.cluster_file import joined
from app.data.features import BETWEEN_CHAINS
from app.data.likeness import Likeness
from app.data.similar import BAND, MATRIX, Encoded, Library, Similar, encode

VERSION = 2
"""Raised whenever the same sequences would give other clusters."""

_BLOCK = 512  # sequences searched for among themselves before they are added to the library
_MOST_ALIGNED = 5  # candidates of a sequence, the most promising ones of other clusters
_NEARLY_IDENTICAL = 0.9  # at least, to a sequence that is searched for already
_GAPS = (-11, -1)  # opening and extension, BLAST's with BLOSUM62
_KARLIN, _LAMBDA = 0.041, 0.267  # of BLOSUM62 with these gaps (Karlin & Altschul 1990)
_BY_CHANCE = 1e-4  # how often chance may be expected to score as well among all residues of the set
_ABOVE = 0.05
_SHORT = 100  # residues
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
    joint = _components(list(number_of), likeness, advance)
    for own in chains:
        for chain in own[1:]:
            joint.merge(number_of[own[0]], number_of[chain])
    return joined([[joint[number_of[own[0]]]] for own in chains])


def _components(sequences: list[str], likeness: Likeness, advance: Callable[[int, int], None]) -> DisjointSet:
    """The numbers of the sequences, those that are alike in one set."""
    order = sorted(range(len(sequences)), key=lambda number: (-len(sequences[number]), sequences[number]))
    joint, library, searched = DisjointSet(order), Library(), []
    residues = sum(map(len, sequences))
    for first in range(0, len(order), _BLOCK):
        advance(first, len(order))
        numbers = order[first : first + _BLOCK]
        block = [encode(sequences[number]) for number in numbers]
        among, new = Library(block), set()
        for place, (query, number) in enumerate(zip(block, numbers, strict=True)):
            candidates = [(one, searched[one.number], library) for one in library.like(query)]
            candidates += [(one, numbers[one.number], among) for one in among.like(query) if one.number in new]
            candidates.sort(key=lambda candidate: -candidate[0].score)
            if not _join(query, number, candidates, joint, likeness, residues):
                new.add(place)
        library.add([block[place] for place in sorted(new)])
        searched += [numbers[place] for place in sorted(new)]
    advance(len(order), len(order))
    return joint


def _join(
    query: Encoded,
    number: int,
    candidates: list[tuple[Similar, int, Library]],
    joint: DisjointSet,
    likeness: Likeness,
    residues: int,
) -> bool:
    """Join a sequence to those of the candidates that it is like; whether it is nearly identical to one of them.

    candidates: (where it promises to be alike, its number, the library that it is in), the most promising first.
    residues: of the whole set.
    """
    aligned, redundant = 0, False
    nearly_identical = max(_NEARLY_IDENTICAL, (1 + likeness.min_identity) / 2)
    for similar, other, library in candidates:
        if aligned == _MOST_ALIGNED:
            break
        if not joint.connected(number, other):
            aligned += 1
            other_sequence = library.sequences[similar.number]
            if identity := identity_if_alike(query, other_sequence, similar.diagonal, likeness, residues):
                joint.merge(number, other)
                redundant |= identity >= nearly_identical
    return redundant


def identity_if_alike(query: Encoded, other: Encoded, diagonal: int, likeness: Likeness, residues: int) -> float:
    """The share of identical residues in the best local alignment; 0 where that is less than is asked for, covers too
    little of the shorter sequence, or could be chance: neither its score is rare among so many `residues`, nor its
    identity beyond the twilight zone.

    What is related, but not by enough in a band around the diagonal, is aligned again without one: insertions are long
    at times. Short sequences are aligned from end to end first, since a local alignment may leave out a fifth of them
    for a few substitutions at an end.
    """
    one, two = query.sequence, other.sequence
    if len(one) < _SHORT:
        end_to_end = align_optimal(one, two, MATRIX, gap_penalty=_GAPS, terminal_penalty=False, max_number=1)[0]
        identity, pairs = _identity(end_to_end, likeness)
        if identity >= twilight(pairs):
            return identity
    band = diagonal - BAND, diagonal + BAND
    alignment = align_banded(one, two, MATRIX, band, gap_penalty=_GAPS, local=True, max_number=1)[0]
    identity, pairs = _identity(alignment, likeness)
    if _KARLIN * len(one) * residues * math.exp(-_LAMBDA * alignment.score) > _BY_CHANCE:
        return identity if identity >= twilight(pairs) else 0.0
    if identity:
        return identity
    return _identity(align_optimal(one, two, MATRIX, gap_penalty=_GAPS, local=True, max_number=1)[0], likeness)[0]


def twilight(pairs: int) -> float:
    """The identity in an alignment of so many residues above which two proteins are related, whatever their number:
    5 % above the curve of Rost (1999), which of 1500 unrelated sequences joined 3 to another."""
    if pairs <= 11:
        return 1.0
    return _ABOVE + (4.8 * pairs ** (-0.32 * (1 + math.exp(-pairs / 1000))) if pairs <= 450 else 0.195)


def _identity(alignment: Alignment, likeness: Likeness) -> tuple[float, int]:
    """(share of identical residues, 0 where that or the coverage is less than is asked for; residues aligned)."""
    one, two = alignment.sequences
    pairs = alignment.trace[(alignment.trace >= 0).all(axis=1)]
    residues = one.code[pairs[:, 0]]
    identity = float(((residues == two.code[pairs[:, 1]]) & (residues != _X)).sum() / max(len(pairs), 1))
    covered = len(pairs) >= likeness.min_coverage * min(len(one), len(two))
    return identity if covered and identity >= likeness.min_identity else 0.0, len(pairs)
