"""How many folds a set of designs has: clusters by TM-score, single linkage."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, islice

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from app.evaluation import align
from app.evaluation.cache import Cache, key_of
from app.evaluation.pool import Pool

SAME_FOLD = 0.5
"""TM-score from which on two structures have the same fold (Xu & Zhang 2010)."""

_ROUND = 512  # pairs after which those that are in one cluster by now are passed over
_MUCH = 5_000_000  # pairs of residues worth starting processes for

Trace = tuple[str, np.ndarray]
"""Digest and CA [N, 3], angstrom."""


def clusters(
    traces: Mapping[str, Trace], pool: Pool, cache: Cache, tell: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, int]:
    """Cluster of each design, 0 the one of the most members.

    Two designs are in one where a chain of pairs links them, each of a TM-score, as a mean over the residues of the
    longer, of at least `SAME_FOLD`. Pairs that are linked already, and those whose lengths rule it out, are not
    superposed.
    """
    names, joined = list(traces), DisjointSet(traces)
    size = {name: len(traces[name][1]) for name in names}
    possible = [
        pair for pair in combinations(names, 2) if min(map(size.get, pair)) >= SAME_FOLD * max(map(size.get, pair))
    ]
    possible.sort(key=lambda pair: abs(size[pair[0]] - size[pair[1]]))  # the likeliest first
    enough = sum(size[one] * size[other] for one, other in possible) > _MUCH
    done, waiting = 0, iter(possible)
    while part := list(islice(waiting, _ROUND)):
        apart = [pair for pair in part if not joined.connected(*pair)]
        for pair, score in _scores(apart, traces, pool, cache, enough):
            if score >= SAME_FOLD:
                joined.merge(*pair)
        tell(done := done + len(part), len(possible))
    order = sorted(joined.subsets(), key=lambda members: (-len(members), min(map(names.index, members))))
    return {name: number for number, members in enumerate(order) for name in members}


def digest_of(ca: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(ca, dtype=np.float32).tobytes()).hexdigest()


def _scores(pairs, traces, pool: Pool, cache: Cache, enough: bool) -> Iterator[tuple[tuple[str, str], float]]:
    left = []
    for pair in pairs:
        key = key_of("pair", align.VERSION, *sorted(traces[name][0] for name in pair))
        known = cache.get(key)
        if isinstance(known, int | float):
            yield pair, known
        else:
            left.append((pair, key))
    tasks = [tuple(traces[name][1] for name in sorted(pair, key=lambda name: traces[name][0])) for pair, _ in left]
    for (pair, key), score in zip(left, pool.map(_score, tasks, enough), strict=True):
        cache.put(key, round(score, 5))
        yield pair, round(score, 5)


def _score(both: tuple[np.ndarray, np.ndarray]) -> float:
    return align.aligned_tm_score(*both, length=max(map(len, both)), limit=SAME_FOLD)
