"""Protein families made up for tests: members of one descend from one sequence by substitutions, as BLOSUM62 has them,
insertions and deletions."""

import numpy as np
from biotite.sequence.align import SubstitutionMatrix

LETTERS = np.array(list("ARNDCQEGHILKMFPSTWYV"))
_FREQUENCIES = np.array([8, 5, 4, 5, 1.4, 4, 7, 7, 2.3, 6, 10, 6, 2.4, 4, 5, 7, 5, 1, 3, 7])
_FREQUENCIES = _FREQUENCIES / _FREQUENCIES.sum()


def _substitutions() -> np.ndarray:
    """[from, to] probabilities of a substitution (Henikoff & Henikoff 1992; half-bits)."""
    blosum = SubstitutionMatrix.std_protein_matrix()
    scores = np.array([[blosum.get_score(a, b) for b in LETTERS] for a in LETTERS])
    joint = np.outer(_FREQUENCIES, _FREQUENCIES) * 2.0 ** (scores / 2)
    np.fill_diagonal(joint, 0)
    return joint / joint.sum(1, keepdims=True)


_SUBSTITUTIONS = _substitutions()


def ancestor(random: np.random.Generator, length: int) -> str:
    return "".join(LETTERS[random.choice(20, length, p=_FREQUENCIES)])


def descendant(random: np.random.Generator, sequence: str, identity: float, indels: float = 0.01) -> str:
    """With about that share of residues unchanged, and insertions or deletions at a share `indels` of places."""
    out: list[str] = []
    for letter in sequence:
        if random.random() < indels:
            if random.random() < 0.5:
                continue
            out.append(ancestor(random, random.geometric(0.4)))
        kept = random.random() < identity
        place = np.flatnonzero(letter == LETTERS)[0]
        out.append(letter if kept else LETTERS[random.choice(20, p=_SUBSTITUTIONS[place])])
    return "".join(out)
