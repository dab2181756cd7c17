"""The columns of self-consistency, with what each says. docs/metrics.md defines them."""

CODESIGN = ("codesign_rmsd", "codesign_tm", "codesign_plddt", "codesign_designable")
"""The design's own sequence, folded ("co-design 1")."""

REDESIGN = ("sc_rmsd", "sc_tm", "sc_plddt", "sc_share", "sc_sequence", "designable")
"""The best of several sequences that inverse folding gave the design's backbone ("PMPNN 8")."""

LIKELIHOOD = ("sequence_nll",)
"""What inverse folding thinks of the design's own sequence."""

COLUMNS = CODESIGN + REDESIGN + LIKELIHOOD

SKIPPED = "skipped: "
"""How the value of what was not measured begins; the reason follows."""


def skipped(columns: tuple[str, ...], reason: str) -> dict[str, str]:
    return dict.fromkeys(columns, SKIPPED + reason)
