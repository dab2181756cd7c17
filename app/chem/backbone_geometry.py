"""Ideal bond lengths and angles of the protein backbone, for building chains from torsion angles.

Source: Engh & Huber 1991 (Acta Cryst. A47:392), the values of residues other than glycine and proline, which are used
for all. Lengths in angstrom, angles in radian. Consecutive CA of a trans peptide come out 3.80 angstrom apart.
"""

from math import radians

N_CA = 1.458
CA_C = 1.525
C_N = 1.329
C_O = 1.231
CA_CB = 1.530

N_CA_C = radians(111.2)
CA_C_N = radians(116.2)
C_N_CA = radians(121.7)
CA_C_O = radians(120.8)
C_CA_CB = radians(110.1)

N_C_CA_CB = radians(122.6)
"""Dihedral N-C-CA-CB: positive in an L residue. With the angles above, N-CA-CB is 110.5 degrees."""
