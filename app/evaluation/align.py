"""TM-score of two structures of any residues: which of one lie on which of the other, in order, is found as well.

The score is that of Zhang & Skolnick (2004), the largest over rigid motions and over alignments. Both are improved in
turn, and neither step lowers it: the best alignment at a superposition by dynamic programming without gap penalty, and
the superposition of an alignment by least squares with each pair weighted by the square of its part in the score
(1 / (1 + (d / d0)^2) is convex in d^2: its tangents lie below it). The search begins, as that of TM-align (Zhang &
Skolnick 2005), from whole chains laid along each other and from pairs of fragments.

biotite has such a search, from one beginning, which for unlike structures raises or does not end (1.6).
"""

import numpy as np

from app.evaluation.tm_score import scale

VERSION = 1
"""See `app.evaluation.design.VERSION`."""

FRAGMENT, STRIDE, MOST = 16, 8, 40
"""Residues of fragments, from one to the next, and how many of a chain: in longer ones they are further apart."""

BEGINNINGS = 3, 9
"""Of whole chains, of fragments: those of the highest scores are tried."""

ROUNDS, LAST = 3, 10
"""Alignments of each beginning, and of each of the best `KEPT`."""

KEPT = 3

SOFTEST = 2.5
"""Angstrom: the search for short chains begins with at least this scale."""

HOPELESS = 0.6
"""Where only what passes a limit matters, the search ends after `ROUNDS` if it is below this share of the limit."""

_AT_ONCE = 2**23  # pairs of residues that superpositions of fragments are judged by, together
_EVERY = 3, 2  # residues of one and of the other that take part in that

Motions = tuple[np.ndarray, np.ndarray]
"""Rotations [S, 3, 3] and what is then added [S, 3]."""


def aligned_tm_score(one: np.ndarray, other: np.ndarray, length: int, limit: float = 0.0) -> float:
    """TM-score of CA traces [N, 3] and [M, 3], angstrom, as a mean over `length` residues, which also sets the scale.

    limit: scores below it need not be right, only low.
    """
    if min(len(one), len(other)) < 3 or min(len(one), len(other)) < limit * length:
        return 0.0
    one, other = (x - x.mean(0, dtype=np.float64) for x in (one, other))
    one, other = one.astype(np.float32), other.astype(np.float32)
    soft = max(scale(length), SOFTEST)
    whole, parts = _along(one, other, soft), _fragments(one, other, soft)
    motions = tuple(np.concatenate(both) for both in zip(whole, parts, strict=True))
    motions, scores = _improved(one, other, motions, soft, ROUNDS)
    if scores.max() < HOPELESS * limit * length:
        return float(scores.max() / length)
    best = np.argsort(-scores)[:KEPT]
    _, scores = _improved(one, other, (motions[0][best], motions[1][best]), scale(length), LAST)
    return min(1.0, float(scores.max() / length))


def _improved(one, other, motions: Motions, d0: float, rounds: int) -> tuple[Motions, np.ndarray]:
    """The motions after so many rounds, and the highest sum [S] that each came by."""
    best = np.zeros(len(motions[0]), dtype=np.float32)
    mobile = np.broadcast_to(one, (len(best), *one.shape))
    for _ in range(rounds):
        terms = _terms(one, other, motions, d0)
        partner = _alignments(terms)
        there = partner >= 0
        partner = np.maximum(partner, 0)
        own = np.take_along_axis(terms, partner[..., None], -1)[..., 0] * there
        if (own.sum(-1) <= best).all():
            break
        best = np.maximum(best, own.sum(-1))
        target, weight = other[partner], own**2
        for _ in range(3):
            motions = _superposed(mobile, target, weight)
            squared = ((_moved(one, motions) - target) ** 2).sum(-1)
            weight = there / (1 + squared / d0**2) ** 2
    return motions, best


def _alignments(terms: np.ndarray) -> np.ndarray:
    """[S, N] which residue of the other each is aligned with, -1 for none: the highest sum of `terms` [S, N, M] with
    both in order."""
    size, length, width = terms.shape
    sums = np.zeros((length + 1, size, width + 1), dtype=np.float32)  # of the first i of one and the first j of other
    for i in range(length):
        np.add(sums[i, :, :-1], terms[:, i], out=sums[i + 1, :, 1:])
        np.maximum(sums[i + 1], sums[i], out=sums[i + 1])
        np.maximum.accumulate(sums[i + 1], axis=1, out=sums[i + 1])
    partner = np.full((size, length), -1)
    every, j = np.arange(size), np.full(size, width)
    for i in range(length, 0, -1):
        value = sums[i, every, j]
        matched = value > sums[i - 1, every, j]
        first = (sums[i] < value[:, None]).sum(-1)  # the first column by which the sum is as high
        partner[matched, i - 1] = first[matched] - 1
        j = np.where(matched, first - 1, j)
    return partner


def _along(one, other, d0: float) -> Motions:
    """Superpositions of the chains without gaps, at every shift that leaves half of the shorter one."""
    length, width = len(one), len(other)
    least = max(min(length, width) // 2, min(length, width, 5))
    shift = np.arange(least - width, length - least + 1)
    partner = np.arange(length) - shift[:, None]
    there = (partner >= 0) & (partner < width)
    target = other[np.clip(partner, 0, width - 1)]
    motions = _superposed(np.broadcast_to(one, target.shape), target, there.astype(np.float32))
    squared = ((_moved(one, motions) - target) ** 2).sum(-1)
    return _highest(motions, (there / (1 + squared / d0**2)).sum(-1), BEGINNINGS[0])


def _fragments(one, other, d0: float) -> Motions:
    """Superpositions of fragments; the score of all residues on the nearest, in any order, tells the promising."""
    size = min(FRAGMENT, len(one), len(other))
    first, second = (x[_starts(len(x), size)[:, None] + np.arange(size)] for x in (one, other))  # [F, size, 3]
    mobile = np.repeat(first, len(second), axis=0)
    motions = _superposed(mobile, np.tile(second, (len(first), 1, 1)), np.ones(mobile.shape[:-1], np.float32))
    some, others = one[:: _EVERY[0]], other[:: _EVERY[1]]
    count = max(1, _AT_ONCE // (len(some) * len(others)))
    parts = [(motions[0][k : k + count], motions[1][k : k + count]) for k in range(0, len(mobile), count)]
    scores = [_terms(some, others, part, d0).max(-1).sum(-1) for part in parts]
    return _highest(motions, np.concatenate(scores), BEGINNINGS[1])


def _starts(length: int, size: int) -> np.ndarray:
    """First residues of the fragments of a chain."""
    return np.arange(0, length - size + 1, max(STRIDE, length // MOST))


def _highest(motions: Motions, scores: np.ndarray, count: int) -> Motions:
    best = np.argsort(-scores, kind="stable")[:count]
    return motions[0][best], motions[1][best]


def _terms(one, other, motions: Motions, d0: float) -> np.ndarray:
    """[S, N, M]: what each pair would add to the score."""
    moved = _moved(one, motions)
    squared = (moved**2).sum(-1)[:, :, None] + (other**2).sum(-1) - 2 * moved @ other.T
    return 1 / (1 + np.maximum(squared, 0) / np.float32(d0**2))


def _moved(points: np.ndarray, motions: Motions) -> np.ndarray:
    return points @ motions[0].swapaxes(-1, -2) + motions[1][:, None]


def _superposed(mobile: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Motions:
    """Of each [K, 3] of `mobile` onto `target`, both [S, K, 3], with least squares weighted by [S, K] (Kabsch 1976)."""
    weight = weight[..., None] / np.maximum(weight.sum(-1), 1e-9)[..., None, None]
    centre, onto = (weight * mobile).sum(-2), (weight * target).sum(-2)
    covariance = ((mobile - centre[:, None]) * weight).swapaxes(-1, -2) @ (target - onto[:, None])
    u, _, vt = np.linalg.svd(covariance)
    flip = np.ones(u.shape[:-1], dtype=u.dtype)
    flip[:, -1] = np.sign(np.linalg.det(u @ vt))
    rotation = (vt.swapaxes(-1, -2) * flip[:, None]) @ u.swapaxes(-1, -2)
    rotation = rotation.astype(np.float32)
    return rotation, (onto - (rotation @ centre[..., None])[..., 0]).astype(np.float32)
