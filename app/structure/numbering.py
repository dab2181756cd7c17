"""Chains and residue numbers as files give them, made unambiguous."""

import re
import string
from collections.abc import Iterable

import biotite.structure as struc
import numpy as np


def chains(atoms: struc.AtomArray) -> tuple[np.ndarray, list[str]]:
    """Chain of each atom [A], 0, 1, ... in order of appearance, and the name of each.

    Molecules that share a chain name are told apart by their segment.
    """
    found: dict[tuple[str, int], int] = {}
    chain = np.array(
        [
            found.setdefault(key, len(found))
            for key in zip(atoms.chain_id.tolist(), atoms.segment.tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    return chain, [name for name, _ in found]


def unique_names(names: list[str]) -> tuple[str, ...]:
    """The names with blanks filled by the first free letter and repeated ones numbered: "A", "A_2"."""
    free = iter(letter for letter in string.ascii_uppercase if letter not in names)
    unique: list[str] = []
    for name in names:
        name = name or next(free, "A")
        copies = (f"{name}_{count}" for count in range(2, len(names) + 2))
        while name in unique:
            name = next(copies)
        unique.append(name)
    return tuple(unique)


def increasing(number: np.ndarray, chain: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Residue numbers that strictly increase within each chain.

    number, chain: [R] the file's numbers and chains, the residues of a chain in sequence order. counted: [R] bool, the
    residues that take part; others keep their number. Gaps are kept. Where the file's number does not increase (an
    insertion code, numbers out of order) it grows by one, and what follows is shifted with it: 52, 52A, 53, 56 becomes
    52, 53, 54, 57.
    """
    result = number.copy()
    for index in np.unique(chain[counted]):
        own = np.flatnonzero(counted & (chain == index))
        steps = np.diff(number[own])
        result[own[1:]] = number[own[0]] + np.cumsum(np.where(steps > 0, steps, 1))
    return result


def residue_ids(number: np.ndarray, ins_code: np.ndarray, chain: np.ndarray, res_idx: np.ndarray) -> np.ndarray | None:
    """The file's own names of residues, [R] str: number and insertion code, as in "52" and "52A".

    None where they are no other than res_idx, where a chain has one twice, and where a code is no letter.
    """
    ids = in_words(number, ins_code)
    if (ids == res_idx.astype(str)).all():
        return None
    unique = len(set(zip(chain.tolist(), ids.tolist(), strict=True))) == len(ids)
    return ids if unique and all(_RESIDUE_ID.fullmatch(name) for name in ids.tolist()) else None


def in_words(number: np.ndarray, ins_code: np.ndarray) -> np.ndarray:
    """[R] str, as in "52" and "52A"."""
    return np.char.add(number.astype(str), np.char.strip(ins_code.astype(str)))


def split_residue_ids(ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [R] int64 and insertion codes [R] str, "" for none, of `residue_ids`."""
    numbers, codes = zip(*map(split_residue_id, ids), strict=True)
    return np.array(numbers, dtype=np.int64), np.array(codes)


def split_residue_id(name: str) -> tuple[int, str]:
    """Number and insertion code: "52A" is 52 and "A"."""
    number, code = _RESIDUE_ID.fullmatch(name).groups()
    return int(number), code


_RESIDUE_ID = re.compile(r"(-?\d+)([A-Za-z]?)")
