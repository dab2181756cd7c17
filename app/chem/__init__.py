"""Chemistry as tables: residue types, atoms, ideal backbone geometry. No torch here."""
