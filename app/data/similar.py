"""Which of many sequences are worth aligning to a given one.

K-mers that match are seeds, those first that have others on about the same diagonal; the best stretch of a seed's
diagonal without gaps, scored by BLOSUM62, tells how promising it is. So works the prefilter of MMseqs2 (Steinegger &
Söding 2017); here k-mers are spaced, spell the ten residue classes of Murphy, Wallqvist & Levy (2000), and those of
short sequences, which have few, also match with one class exchanged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from biotite.sequence import LetterAlphabet, ProteinSequence
from biotite.sequence.align import KmerAlphabet, KmerTable, SubstitutionMatrix

MATRIX = SubstitutionMatrix.std_protein_matrix()  # BLOSUM62
BAND = 16
"""Diagonals that insertions and deletions may lie apart."""

_CLASSES = ("LVIM", "C", "A", "G", "ST", "P", "FYW", "EDNQ", "KR", "H")
_SPACING = "1101011"
_WITHOUT_CLASS = len(_CLASSES)  # X
_KMERS = KmerAlphabet(LetterAlphabet([members[0] for members in _CLASSES]), _SPACING.count("1"), _SPACING)
_WORK = 250_000  # residues of the query times seeds; those with most k-mers around them are looked at
_FEW = 100  # k-mers of a query, for which similar ones count as well
_CROWD = 4
_PROMISING, _ALONE = 30, 40  # score of a stretch without gaps, if others match nearby, and if its k-mer is alone
_BEYOND = len(ProteinSequence.alphabet)  # in place of a residue, where a diagonal leaves a sequence
_SCORES = np.pad(MATRIX.score_matrix().astype(np.int32), (0, 1), constant_values=-1000)
_APART = 2**32  # between the diagonals of two sequences, in one number for both


def _class_of_code() -> np.ndarray:
    classes = {letter: number for number, members in enumerate(_CLASSES) for letter in members}
    return np.array([classes.get(letter, _WITHOUT_CLASS) for letter in ProteinSequence.alphabet.get_symbols()])


_CLASS_OF_CODE = _class_of_code()


class Encoded(NamedTuple):
    """A sequence ready to be searched with: its residues, and where each of its k-mers occurs first."""

    sequence: ProteinSequence
    positions: np.ndarray  # [kmers] uint32
    kmers: np.ndarray  # [kmers] int64


class Similar(NamedTuple):
    number: int  # of the sequence in the library
    diagonal: int  # place in it minus place in the query
    score: int  # of the best stretch on that diagonal, in BLOSUM62's units


def encode(letters: str) -> Encoded:
    """letters: of the twenty residues, and X."""
    sequence = ProteinSequence(letters)
    classes = _CLASS_OF_CODE[sequence.code]
    span = len(_SPACING)
    if len(classes) < span:
        return Encoded(sequence, np.empty(0, np.uint32), np.empty(0, np.int64))
    known = np.lib.stride_tricks.sliding_window_view(classes != _WITHOUT_CLASS, span).all(-1)
    kmers = _KMERS.create_kmers(np.where(classes == _WITHOUT_CLASS, 0, classes).astype(np.uint8))
    places = np.flatnonzero(known)
    kmers, first = np.unique(kmers[places], return_index=True)  # once: a repeat would match itself everywhere
    return Encoded(sequence, places[first].astype(np.uint32), kmers)


class Library:
    """Sequences to search in, numbered as they were added."""

    def __init__(self, sequences: Sequence[Encoded] = ()):
        self.sequences: list[Encoded] = []
        self._table: KmerTable | None = None
        self._codes = np.array([_BEYOND], dtype=np.uint8)
        self._starts = self._lengths = np.empty(0, dtype=np.int64)
        self.add(sequences)

    def add(self, sequences: Sequence[Encoded]) -> None:
        if not sequences:
            return
        numbers = range(len(self.sequences), len(self.sequences) + len(sequences))
        positions, kmers = [one.positions for one in sequences], [one.kmers for one in sequences]
        table = KmerTable.from_kmer_selection(_KMERS, positions, kmers, numbers)
        self._table = table if self._table is None else KmerTable.from_tables([self._table, table])
        self.sequences += sequences
        codes = [one.sequence.code for one in sequences]
        self._lengths = np.concatenate([self._lengths, [len(one) for one in codes]])
        self._starts = 1 + np.cumsum(self._lengths) - self._lengths
        self._codes = np.concatenate([self._codes, *codes])

    def like(self, query: Encoded) -> list[Similar]:
        """The promising sequences, each on its best diagonal, the best first; of equal ones, the one added first."""
        if self._table is None:
            return []
        positions, kmers = query.positions, query.kmers
        if len(kmers) < _FEW:
            positions, kmers = _with_similar(positions, kmers)
        matches = self._table.match_kmer_selection(positions, kmers)
        seeds, alone = _seeds(matches, most=_WORK // max(len(query.sequence), 1))
        numbers, diagonals = seeds[:, 0], seeds[:, 1]
        scores = self._ungapped(query.sequence.code, numbers, diagonals)
        scores[scores < np.where(alone, _ALONE, _PROMISING)] = 0
        found: dict[int, Similar] = {}
        for place in np.lexsort((diagonals, numbers, -scores)).tolist():
            if scores[place] == 0:
                break
            found.setdefault(int(numbers[place]), Similar(*map(int, (*seeds[place], scores[place]))))
        return list(found.values())

    def _ungapped(self, query: np.ndarray, numbers: np.ndarray, diagonals: np.ndarray) -> np.ndarray:
        """[seeds] scores of the best stretch on each seed's diagonal (Kadane's algorithm, all seeds at once)."""
        places = diagonals + np.arange(len(query))[:, None]  # [residues of the query, seeds]
        inside = (places >= 0) & (places < self._lengths[numbers])
        residues = self._codes.take((places + self._starts[numbers]) * inside, mode="clip")  # at 0 lies `_BEYOND`
        pairs = residues + np.arange(0, len(query) * len(_SCORES), len(_SCORES))[:, None]
        score = np.zeros(len(numbers), dtype=_SCORES.dtype)
        best = score.copy()
        for row in _SCORES[:, query].T.ravel().take(pairs, mode="clip"):
            score += row
            np.maximum(score, 0, out=score)
            np.maximum(best, score, out=best)
        return best


def _with_similar(positions: np.ndarray, kmers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """These k-mers, and all that differ from them in one class."""
    units = len(_CLASSES) ** np.arange(_SPACING.count("1"))
    shifts = np.arange(len(_CLASSES))[:, None, None] - kmers[None, :, None] // units % len(_CLASSES)
    similar = kmers[None, :, None] + shifts * units  # [classes, kmers, places in the k-mer]
    places = np.broadcast_to(positions[None, :, None], similar.shape)
    both, first = np.unique(np.stack([places.ravel(), similar.ravel()]), axis=1, return_index=True)
    return places.ravel()[first], both[1]


def _seeds(matches: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """[seeds, 2]: (number, diagonal) of matches: first those with most others on their diagonal, then those with most
    within `BAND` diagonals; [seeds] bool: whether a seed has none of either.

    matches: [n, 3], (place in the query, number, place in the sequence of that number).
    """
    place, number, other = matches.astype(np.int64).T
    both = np.sort(number * _APART + other - place)
    crowd = np.zeros(len(both), dtype=np.int8)  # matches nearby, up to `_CROWD` on either side
    for apart in range(1, _CROWD + 1):
        near = both[apart:] - both[:-apart] <= BAND
        crowd[apart:] += near
        crowd[:-apart] += near
    both, first, same = np.unique(both, return_index=True, return_counts=True)
    crowd = crowd[first]
    chosen = np.lexsort((-crowd, -same))[:most]
    number = (both[chosen] + _APART // 2) // _APART
    return np.stack([number, both[chosen] - number * _APART], axis=1), (crowd + same)[chosen] == 1
