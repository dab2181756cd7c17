"""Numbers that say how good designs are."""
