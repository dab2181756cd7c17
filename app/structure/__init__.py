"""Structure files in (PDB, mmCIF) and out."""
