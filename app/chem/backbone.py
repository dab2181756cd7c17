"""Ideal backbone of one residue in its own frame: origin CA, x axis along CA -> C, N in the xy plane.

Coordinates in angstrom, those of AlphaFold 2's rigid groups for alanine (Engh & Huber geometry).
"""

IDEAL_N = (-0.525, 1.363, 0.0)
IDEAL_CA = (0.0, 0.0, 0.0)
IDEAL_C = (1.526, 0.0, 0.0)
IDEAL_CB = (-0.529, -0.774, -1.205)

CARBONYL_BOND = 1.23
"""Length of C=O, angstrom."""

OXYGEN_ALONG_CA_C = 0.627
"""Distance from C at which Multiflow's `to_atom37` leaves the oxygen (on the CA-C axis), angstrom."""

CA_CA_TRANS = 3.80
"""Distance between the CA atoms of residues joined by a trans peptide bond, angstrom."""
